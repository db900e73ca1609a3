"""What the check says of catalogue and indexes, each broken once."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from shmstore.codec import index_name, pack
from shmstore.processes import HOLDER_BYTES
from shmstore.writer import soundness
from shmstore.writer.ties import HOLDERS
from tests.desk import NAMESPACE, TABLE, Desk


@pytest.fixture
def desk(engine: ModuleType) -> Iterator[Desk]:
    made = Desk(engine, 2 << 20)
    made.do("declare", TABLE, "", ["status"])
    for i in range(5):
        made.upsert(f"k{i}", status="on" if i % 2 else "off")
    made.do("put", "plain", "", "k", pack(1))
    yield made
    made.segment.close()


def test_a_sound_store_has_nothing_wrong(desk: Desk) -> None:
    assert soundness.check(desk.owner) == []


def test_a_record_missing_from_its_index_is_named(desk: Desk) -> None:
    desk.owner.reindex(TABLE, NAMESPACE, "k3", [index_name("status", "on")], [])
    desk.owner.commit()
    (problem,) = soundness.check(desk.owner)
    assert "1 records, 2 have its value" in problem


def test_a_record_in_the_index_of_another_value_is_named(desk: Desk) -> None:
    desk.owner.reindex(TABLE, NAMESPACE, "k3", [], [index_name("status", "off")])
    desk.owner.commit()
    (problem,) = soundness.check(desk.owner)
    assert "4 records, 3 have its value" in problem


def test_a_table_without_records_is_named(desk: Desk) -> None:
    desk.owner.remove("plain", "", "k")
    desk.owner.commit()
    (problem,) = soundness.check(desk.owner)
    assert "'plain'" in problem


def test_a_namespace_without_records_is_named(desk: Desk) -> None:
    desk.owner.clear(TABLE, NAMESPACE, [index_name("status", "on"), index_name("status", "off")])
    desk.owner.commit()
    (problem,) = soundness.check(desk.owner)
    assert repr(NAMESPACE) in problem


def test_damage_of_the_segment_comes_first(desk: Desk) -> None:
    start = desk.segment.memory.find(b"\xa6status")
    desk.segment.memory[start + 1 : start + 2] = b"X"
    assert any("checksum" in problem for problem in soundness.check(desk.owner))


def test_a_pin_and_a_tie_of_nobody_are_named(desk: Desk) -> None:
    holder = bytes(HOLDER_BYTES)
    desk.owner.put("", HOLDERS, holder, pack(0))
    desk.plain("insert", "k", pack(1), holder)
    granule, *_ = desk.plain("pin", "k", holder)
    assert soundness.check(desk.owner) == []
    desk.owner.remove("", HOLDERS, holder)
    desk.owner.commit()
    assert soundness.check(desk.owner) == [
        f"the pin of the value at granule {granule} is that of no known holder",
        "the tie of 'k' in table 't' is that of no known holder",
    ]
