"""Segments that earlier releases wrote are read, taken over and written on, as they are."""

from __future__ import annotations

import gzip
import mmap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from shmstore.codec import unpack
from shmstore.layout import FORMAT_VERSION
from tests import golden
from tests.segments import nothing


@pytest.fixture(params=sorted(golden.FILES))
def memory(request: pytest.FixtureRequest) -> Iterator[mmap.mmap]:
    content = gzip.decompress(golden.FILES[request.param].read_bytes())
    with mmap.mmap(-1, len(content)) as made:
        made[:] = content
        yield made


def assert_holds_all(reader: Any) -> None:
    """Everything that was committed, nothing that was not, by keys, lists, indexes and pages."""
    expected = golden.plain_records()
    scope = reader.scope("plain", "")
    items = reader.chunk("plain", "", b"", None, None, False)
    assert {item[0]: item[1] for item in items} == expected
    assert [item[0] for item in items] == list(expected)
    assert [item[2] for item in items] == [None] * len(expected)
    assert reader.count("plain", "") == len(expected)
    assert reader.get_many(scope, list(expected)) == list(expected.values())
    assert reader.get_many(scope, ["k3", "never", b"k2"]) == [None, None, None]
    assert reader.get_versioned(scope, "k10") == (4, expected["k10"])
    assert reader.version(scope, "k11") == 1
    for namespace in ("a", "b"):
        oldest_first = golden.store_records(namespace)
        items = reader.chunk("store", namespace, b"", None, None, False)
        assert [unpack(item[1]) for item in items] == oldest_first
        assert [item[2] for item in items] == [record["created"] for record in oldest_first]
        for index, status in ((golden.ENABLED, "enabled"), (golden.DISABLED, "disabled")):
            found = reader.chunk("store", namespace, index, None, None, False)
            wanted = [record for record in oldest_first if record["status"] == status]
            assert [unpack(item[1]) for item in found] == wanted
            assert reader.count("store", namespace, index) == len(wanted)
    values, has_more = reader.page("store", "a", 3, "we_5", None)
    assert [unpack(value)["id"] for value in values] == ["we_4", "we_3", "we_2"]
    assert has_more


def test_there_is_one_of_the_present_format() -> None:
    assert FORMAT_VERSION in golden.FILES


def test_it_is_read_as_its_dead_writer_left_it(engine: ModuleType, memory: mmap.mmap) -> None:
    reader = engine.Reader(memory)
    assert_holds_all(reader)
    assert reader.info()["committed"] == 4
    reader.close()


def test_it_is_taken_over_and_written_on(engine: ModuleType, memory: mmap.mmap) -> None:
    owner = engine.Owner.take_over(memory, nothing, nothing)
    assert owner.check() == []
    assert_holds_all(owner.reader)
    version, inserted = owner.put("plain", "", "next", b"\xc3")
    assert (version, inserted, owner.commit()) == (5, True, 5)
    assert owner.remove("plain", "", "next")
    for i in range(2000):
        owner.put("new", "", f"k{i}", b"\x01")
    owner.commit()
    assert owner.check() == []
    assert_holds_all(owner.reader)
    owner.close()


def test_what_makes_it_today_holds_the_same(engine: ModuleType) -> None:
    """The committed file is of the past; its recipe must still tell what is in it."""
    with mmap.mmap(-1, golden.CAPACITY) as memory:
        golden.build(memory)
        reader = engine.Reader(memory)
        assert_holds_all(reader)
        reader.close()
