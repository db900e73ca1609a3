"""Pinned values: they lie where they lay, whatever becomes of their record and of other memory."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from types import ModuleType
from typing import Any

import pytest

from shmstore import pure
from shmstore.errors import InvalidKey, StoreFull
from shmstore.layout import (
    EXTENT_BYTES,
    GRANULE_MASK,
    HEAP_START,
    HOLDER_BYTES_MAX,
)
from tests.segments import Segment, copy_of, nothing

CAPACITY = 1 << 20
VALUE = b"looked at" * 40
ONE, TWO = b"one", b"two"
INDEX = b"\x92status"
RECORD = ("s", "n", "looked at")


@pytest.fixture
def segment(engine: ModuleType) -> Iterator[Segment]:
    made = Segment(engine, CAPACITY)
    for i in range(70):
        made.owner.put("s", "n", f"id{i}", b"other", i, (), (INDEX,))
    made.owner.put(*RECORD, VALUE, 3, (), (INDEX,))
    made.owner.commit()
    yield made
    assert made.owner.check() == []
    assert accounted(made) == made.owner.statistics()["extended"]
    made.close()


def accounted(segment: Segment) -> int:
    """The bytes that are said to be in use, free, or in quarantine."""
    statistics = segment.owner.statistics()
    return int(sum(statistics[each] for each in ("used", "free", "quarantine"))) + HEAP_START


def pin(segment: Segment, holder: bytes = ONE) -> tuple[int, int]:
    """Commit a pin of the record; return (granule, offset of the value)."""
    granule, start, size, version = segment.owner.pin(holder, *RECORD)
    assert segment.memory[start : start + size] == VALUE
    scope = segment.reader.scope("s", "n")
    assert version == segment.reader.version(scope, "looked at")
    segment.owner.commit()
    return granule, start


def value_at(segment: Segment, start: int) -> bytes:
    return segment.memory[start : start + len(VALUE)]


def fill(owner: Any, table: str) -> None:
    """Put records of several sizes until there is no room."""
    number = count()
    for size in (30_000, 3000, 300, 1):
        while True:
            try:
                owner.put(table, "noise", f"{next(number)}", b"#" * size)
                owner.commit()
            except StoreFull:
                owner.abort()
                break


def write_everywhere(owner: Any) -> None:
    """Fill all that is free with the system's own records, which may take even the reserve."""
    fill(owner, "")
    owner.clear("", "noise", ())
    owner.commit()
    settle(owner)


def settle(owner: Any) -> None:
    while owner.settle():
        pass


def used(segment: Segment) -> int:
    settle(segment.owner)
    return int(segment.owner.statistics()["used"])


def held(segment: Segment) -> int:
    return int(segment.owner.statistics()["held_bytes"])


# What becomes of the record


def replaced(segment: Segment) -> None:
    segment.owner.put(*RECORD, b"new", 3, (INDEX,), (INDEX,))


def replaced_again_and_again(segment: Segment) -> None:
    for i in range(20):
        segment.owner.put(*RECORD, bytes([i]) * i, 3, (INDEX,), (INDEX,))
        segment.owner.commit()


def deleted(segment: Segment) -> None:
    segment.owner.remove(*RECORD, (INDEX,))


def deleted_leaving_a_ghost(segment: Segment) -> None:
    segment.owner.remove(*RECORD, (INDEX,), ghost=True)


def a_ghost_forgotten(segment: Segment) -> None:
    deleted_leaving_a_ghost(segment)
    segment.owner.commit()
    for i in range(300):
        segment.owner.put("s", "n", f"ghost{i}", b"", i)
        segment.owner.remove("s", "n", f"ghost{i}", (), ghost=True)
        segment.owner.commit()
    assert segment.reader.page("s", "n", 1, "ghost299", None)
    with pytest.raises(LookupError):
        segment.reader.page("s", "n", 1, RECORD[2], None)


def cleared(segment: Segment) -> None:
    segment.owner.clear("s", "n", (INDEX,))


def purged(segment: Segment) -> None:
    deleted(segment)
    segment.owner.commit()
    settle(segment.owner)


def purged_and_inserted_again(segment: Segment) -> None:
    purged(segment)
    segment.owner.put(*RECORD, b"new", 9)


def inserted_over_the_dead(segment: Segment) -> None:
    deleted(segment)
    segment.owner.commit()
    segment.owner.put(*RECORD, b"new", 9)


def deleted_in_a_batch_that_inserts_it(segment: Segment) -> None:
    deleted(segment)
    segment.owner.put(*RECORD, b"new", 9)
    segment.owner.remove(*RECORD)


def taken_over(segment: Segment) -> None:
    segment.take_over()
    replaced(segment)
    segment.owner.commit()
    segment.take_over()


def taken_over_dead(segment: Segment) -> None:
    deleted(segment)
    segment.owner.commit()
    segment.take_over()
    settle(segment.owner)
    segment.take_over()


def index_grown(segment: Segment) -> None:
    replaced(segment)
    segment.owner.commit()
    segments = segment.owner.statistics()["index_segments"]
    for i in range(1500):
        segment.owner.put("many", "", f"{i}", b"")
    segment.owner.commit()
    assert segment.owner.statistics()["index_segments"] > segments
    segment.owner.clear("many", "", ())


FATES = [
    replaced,
    replaced_again_and_again,
    deleted,
    deleted_leaving_a_ghost,
    a_ghost_forgotten,
    cleared,
    purged,
    purged_and_inserted_again,
    inserted_over_the_dead,
    deleted_in_a_batch_that_inserts_it,
    taken_over,
    taken_over_dead,
    index_grown,
]
Fate = Callable[[Segment], None]


@pytest.mark.parametrize("fate", FATES)
def test_a_pinned_value_stays_until_its_last_pin_goes(segment: Segment, fate: Fate) -> None:
    granule, start = pin(segment, ONE)
    assert pin(segment, TWO) == (granule, start)
    fate(segment)
    segment.owner.commit()
    assert segment.owner.check() == []
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE
    assert held(segment) == segment.owner.statistics()["pinned_bytes"] >= len(VALUE)
    assert segment.owner.check() == []
    assert segment.owner.unpin(ONE, granule)
    segment.owner.commit()
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE
    assert segment.owner.unpin(TWO, granule)
    segment.owner.commit()
    assert held(segment) == segment.owner.statistics()["pinned_bytes"] == 0
    assert accounted(segment) == segment.owner.statistics()["extended"]
    write_everywhere(segment.owner)
    assert value_at(segment, start) != VALUE


@pytest.mark.parametrize("fate", FATES)
def test_what_was_pinned_once_takes_no_memory(segment: Segment, fate: Fate) -> None:
    with copy_of(segment.memory) as memory:
        never = Segment(segment.engine, CAPACITY)
        never.owner.close()
        never.memory, never.owner = memory, segment.engine.Owner.take_over(memory, nothing, nothing)
        fate(never)
        never.owner.commit()
        expected = used(never)
        never.owner.close()
    granule, _ = pin(segment)
    fate(segment)
    segment.owner.commit()
    settle(segment.owner)
    segment.owner.unpin(ONE, granule)
    segment.owner.commit()
    assert used(segment) == expected


def test_a_value_whose_record_lives_is_pinned_and_not_held(segment: Segment) -> None:
    granule, _ = pin(segment)
    size = segment.owner.statistics()["pinned_bytes"]
    assert len(VALUE) < size < len(VALUE) + 100
    assert held(segment) == 0
    assert segment.owner.unpin(ONE, granule)
    segment.owner.commit()
    write_everywhere(segment.owner)
    scope = segment.reader.scope("s", "n")
    assert segment.reader.get(scope, "looked at") == VALUE


def test_a_value_is_given_back_after_its_pin_and_not_before(segment: Segment) -> None:
    """When the pin goes, the block waits in the quarantine for readers like any other."""
    granule, _ = pin(segment)
    replaced(segment)
    segment.owner.commit()
    settle(segment.owner)
    assert segment.owner.statistics()["quarantine"] == 0
    segment.owner.unpin(ONE, granule)
    segment.owner.commit()
    assert segment.owner.statistics()["quarantine"] >= len(VALUE)
    assert held(segment) == 0


# Holders


def test_a_holder_pins_a_value_once(segment: Segment) -> None:
    granule, start = pin(segment)
    assert segment.owner.pin(ONE, *RECORD)[:2] == (granule, start)
    assert segment.owner.share_pin(ONE, granule)
    assert not segment.owner.staged
    assert segment.owner.pins() == [(ONE, granule, len(VALUE))]
    assert segment.owner.unpin(ONE, granule)
    assert not segment.owner.unpin(ONE, granule)
    assert not segment.owner.share_pin(TWO, granule)


def test_several_versions_of_a_record_are_pinned_each_for_itself(segment: Segment) -> None:
    places = []
    for i in range(5):
        segment.owner.put(*RECORD, bytes([i]) * 100, 3)
        places.append(segment.owner.pin(ONE, *RECORD))
        segment.owner.commit()
    assert len({granule for granule, *_ in places}) == 5
    assert [version for *_, version in places] == sorted({version for *_, version in places})
    write_everywhere(segment.owner)
    for i, (_, start, size, _) in enumerate(places):
        assert segment.memory[start : start + size] == bytes([i]) * 100
    assert [pinned for _, pinned, _ in segment.owner.pins()] == sorted(each[0] for each in places)
    assert segment.owner.statistics()["pins"] == 5


def test_a_held_value_can_be_pinned_by_one_more(segment: Segment) -> None:
    """A child that was forked has views of what its parent looks at, replaced or not."""
    granule, start = pin(segment)
    purged(segment)
    assert segment.owner.pin(TWO, *RECORD) is None
    assert segment.owner.share_pin(TWO, granule)
    assert segment.owner.unpin(ONE, granule)
    segment.owner.commit()
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE
    assert segment.owner.pins() == [(TWO, granule, len(VALUE))]


def test_a_pin_taken_away_in_its_batch_makes_room_for_another(segment: Segment) -> None:
    """The other one lies where it lay."""
    owner = segment.owner
    granule, *_ = owner.pin(ONE, "s", "n", "id1")
    assert owner.unpin(ONE, granule)
    other, *_ = owner.pin(TWO, "s", "n", "id2")
    owner.commit()
    assert owner.pins() == [(TWO, other, 5)]
    assert owner.unpin(TWO, other)
    owner.commit()
    assert owner.pins() == []
    assert owner.statistics()["pinned_bytes"] == 0


def test_a_pin_of_this_batch_can_be_shared(segment: Segment) -> None:
    granule, start, *_ = segment.owner.pin(ONE, *RECORD)
    assert segment.owner.share_pin(TWO, granule)
    assert segment.owner.unpin(ONE, granule)
    replaced(segment)
    segment.owner.commit()
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE


@pytest.mark.parametrize("granule", [0, 1, 300, -1, GRANULE_MASK, 1 << 36, 1 << 70, -(1 << 70)])
def test_what_is_not_pinned_is_not_unpinned_and_not_shared(segment: Segment, granule: int) -> None:
    pin(segment)
    assert not segment.owner.unpin(ONE, granule)
    assert not segment.owner.share_pin(TWO, granule)
    assert not segment.owner.staged


def test_a_granule_of_another_holder_is_not_unpinned(segment: Segment) -> None:
    granule, _ = pin(segment)
    for other in (TWO, b"", b"on", b"one\0"):
        assert not segment.owner.unpin(other, granule)
    assert segment.owner.pins() == [(ONE, granule, len(VALUE))]


@pytest.mark.parametrize("holder", [b"", b"\0", b"h" * HOLDER_BYTES_MAX])
def test_a_holder_has_any_name_of_modest_length(segment: Segment, holder: bytes) -> None:
    granule, _ = pin(segment, holder)
    segment.take_over()
    assert segment.owner.pins() == [(holder, granule, len(VALUE))]
    assert segment.owner.unpin(holder, granule)


@pytest.mark.parametrize("holder", [b"h" * (HOLDER_BYTES_MAX + 1), "one", None, 1, bytearray(3)])
def test_what_cannot_be_a_holder_is_named(segment: Segment, holder: Any) -> None:
    with pytest.raises(InvalidKey, match="a holder is named by bytes, at most 64, not by"):
        segment.owner.pin(holder, "t", "", "there is none")
    with pytest.raises(InvalidKey, match="a holder"):
        segment.owner.share_pin(holder, 1)
    with pytest.raises(InvalidKey, match="a holder"):
        segment.owner.unpin(holder, 1)
    assert not segment.owner.staged


def test_what_is_not_there_is_not_pinned(segment: Segment) -> None:
    owner = segment.owner
    assert owner.pin(ONE, "s", "n", "none") is None
    owner.remove("s", "n", "id1", (INDEX,))
    assert owner.pin(ONE, "s", "n", "id1") is None
    owner.remove("s", "n", "id2", (INDEX,), ghost=True)
    assert owner.pin(ONE, "s", "n", "id2") is None
    owner.commit()
    assert owner.pin(ONE, "s", "n", "id1") is owner.pin(ONE, "s", "n", "id2") is None
    with pytest.raises(InvalidKey):
        owner.pin(ONE, "s", "n", 7)
    assert owner.pins() == []


# Within one batch


def test_a_value_can_be_pinned_in_the_batch_that_writes_it(segment: Segment) -> None:
    segment.owner.put("t", "", "k", b"of this batch" * 9)
    granule, start, size, version = segment.owner.pin(ONE, "t", "", "k")
    assert version == segment.owner.committed + 1
    assert segment.owner.pins() == []
    assert segment.owner.statistics()["pins"] == 0
    segment.owner.commit()
    assert segment.owner.pins() == [(ONE, granule, size)]
    assert segment.memory[start : start + size] == b"of this batch" * 9
    assert held(segment) == 0


def put_again(owner: Any) -> None:
    owner.put("t", "", "k", b"the last one")


def remove_again(owner: Any) -> None:
    owner.remove("t", "", "k")


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("end", [put_again, remove_again])
def test_a_value_pinned_and_given_up_in_one_batch_is_held(
    segment: Segment, end: Callable[[Any], None], there_before: bool
) -> None:
    owner = segment.owner
    if there_before:
        segment.put("k", b"before")
    owner.put("t", "", "k", b"v" * 500)
    granule, start, size, _ = owner.pin(ONE, "t", "", "k")
    end(owner)
    owner.commit()
    assert held(segment) >= 500
    assert segment.get("k") == (b"the last one" if end is put_again else None)
    write_everywhere(owner)
    assert segment.memory[start : start + size] == b"v" * 500
    segment.take_over()
    write_everywhere(segment.owner)
    assert segment.memory[start : start + size] == b"v" * 500
    assert segment.owner.unpin(ONE, granule)
    segment.owner.commit()
    write_everywhere(segment.owner)
    assert segment.memory[start : start + size] != b"v" * 500


@pytest.mark.parametrize("end", [put_again, remove_again])
def test_a_value_pinned_unpinned_and_given_up_in_one_batch_is_free(
    segment: Segment, end: Callable[[Any], None]
) -> None:
    owner = segment.owner
    segment.put("k", b"before")
    end(owner)
    owner.commit()
    expected = used(segment)
    for order in ("unpin first", "unpin last"):
        owner.put("t", "", "k", b"before")
        owner.commit()
        owner.put("t", "", "k", b"v" * 500)
        granule, *_ = owner.pin(ONE, "t", "", "k")
        if order == "unpin first":
            assert owner.unpin(ONE, granule)
        end(owner)
        if order == "unpin last":
            assert owner.unpin(ONE, granule)
        owner.commit()
        assert owner.statistics()["pins"] == held(segment) == 0
        assert used(segment) == expected


def test_a_value_unpinned_and_replaced_in_one_batch_is_given_up(segment: Segment) -> None:
    for unpin_first in (True, False):
        segment.owner.put(*RECORD, VALUE, 3)
        segment.owner.commit()
        granule, start = pin(segment)
        if unpin_first:
            assert segment.owner.unpin(ONE, granule)
        replaced(segment)
        if not unpin_first:
            assert segment.owner.unpin(ONE, granule)
        segment.owner.commit()
        assert held(segment) == 0
        write_everywhere(segment.owner)
        assert value_at(segment, start) != VALUE


def test_a_value_unpinned_and_pinned_in_one_batch_stays_pinned(segment: Segment) -> None:
    granule, start = pin(segment)
    replaced(segment)
    assert segment.owner.unpin(ONE, granule)
    assert not segment.owner.share_pin(TWO, granule)
    segment.owner.abort()
    assert segment.owner.share_pin(TWO, granule)
    assert segment.owner.unpin(ONE, granule)
    assert segment.owner.share_pin(ONE, granule)
    assert segment.owner.unpin(TWO, granule)
    replaced(segment)
    segment.owner.commit()
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE
    assert segment.owner.pins() == [(ONE, granule, len(VALUE))]


def test_a_batch_that_is_dropped_neither_pins_nor_unpins(segment: Segment) -> None:
    granule, start = pin(segment)
    before = segment.owner.statistics()
    replaced(segment)
    segment.owner.share_pin(TWO, granule)
    segment.owner.unpin(ONE, granule)
    segment.owner.pin(ONE, "s", "n", "id3")
    segment.owner.put("t", "", "new", b"x")
    segment.owner.pin(ONE, "t", "", "new")
    segment.owner.put("t", "", "new", b"y")
    segment.owner.abort()
    assert segment.owner.pins() == [(ONE, granule, len(VALUE))]
    after = segment.owner.statistics()
    assert {**after, "free": 0, "quarantine": 0} == {**before, "free": 0, "quarantine": 0}
    replaced(segment)
    segment.owner.commit()
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE


def test_a_purge_in_a_batch_that_unpins_holds_the_block_if_the_batch_is_dropped(
    segment: Segment,
) -> None:
    """The word of a deleted entry is emptied by an allocation, whatever becomes of its batch."""
    granule, start = pin(segment)
    deleted(segment)
    segment.owner.commit()
    for end in (segment.owner.abort, segment.owner.commit):
        assert segment.owner.unpin(ONE, granule)
        with pytest.raises(StoreFull):
            segment.owner.put("t", "", "too large", bytes(CAPACITY))
        assert held(segment) >= len(VALUE)
        end()
        assert (held(segment) == 0) == (end == segment.owner.commit)
        assert segment.owner.check() == []
    write_everywhere(segment.owner)
    assert value_at(segment, start) != VALUE


# What others see


def test_pins_are_in_no_table_and_in_no_list(segment: Segment) -> None:
    def seen() -> list[Any]:
        reader = segment.reader
        return [
            segment.owner.count("s", "n"),
            reader.count("s", "n"),
            reader.chunk("s", "n", b"", None, None, False),
            reader.chunk("", "", b"", None, None, False),
            reader.info()["insertions"],
        ]

    before = seen()
    granule, _ = pin(segment)
    assert seen() == before
    key = ONE + granule.to_bytes(8, "little")
    assert segment.reader.get(0, key) is None
    assert segment.reader.version(0, key) is None


def test_a_reader_of_the_other_engine_finds_the_segment_sound(segment: Segment) -> None:
    pin(segment)
    replaced(segment)
    segment.owner.commit()
    with closing(pure.Reader(segment.memory)) as reader:
        assert reader.get(reader.scope("s", "n"), "looked at") == b"new"
    assert pure.check_segment(segment.memory) == []


# Memory


def test_a_full_store_can_be_looked_at(segment: Segment) -> None:
    owner = segment.owner
    fill(owner, "t")
    granule, start = pin(segment)
    for number in range(70):
        for holder in (ONE, TWO, b"three"):
            assert owner.pin(holder, "s", "n", f"id{number}")
        owner.commit()
    deleted(segment)
    owner.commit()
    owner.clear("t", "noise", ())
    owner.commit()
    write_everywhere(owner)
    assert value_at(segment, start) == VALUE
    assert owner.unpin(ONE, granule)


def test_a_pin_that_does_not_fit_is_refused(segment: Segment) -> None:
    granule, start = pin(segment)
    fill(segment.owner, "")

    def pin_many() -> None:
        for number in range(10_000):
            segment.owner.pin(b"%d" % number, "s", "n", "id1")

    with pytest.raises(StoreFull):
        pin_many()
    segment.owner.abort()
    assert segment.owner.pins() == [(ONE, granule, len(VALUE))]
    assert segment.owner.unpin(ONE, granule)
    segment.owner.commit()
    assert value_at(segment, start) == VALUE


def test_pinned_memory_is_not_given_back_to_the_system(engine: ModuleType) -> None:
    released: list[range] = []

    def release(offset: int, size: int) -> None:
        released.append(range(offset, offset + size))
        memory[offset : offset + size] = bytes(size)

    memory = mmap.mmap(-1, 64 << 20)
    owner = engine.Owner.create(memory, nothing, release)
    for i in range(40):
        owner.put("t", "", f"k{i}", bytes([i + 1]) * EXTENT_BYTES)
    _, start, size, _ = owner.pin(ONE, "t", "", "k20")
    owner.commit()
    owner.clear("t", "", ())
    owner.commit()
    settle(owner)
    assert sum(len(each) for each in released) > 30 * EXTENT_BYTES
    assert not any(start < each.stop and each.start < start + size for each in released)
    assert memory[start : start + size] == bytes([21]) * EXTENT_BYTES
    assert owner.check() == []
    owner.close()
    memory.close()


# Takeover


def test_pins_and_what_they_hold_are_found_again(segment: Segment) -> None:
    granule, start = pin(segment, ONE)
    replaced(segment)
    segment.owner.commit()
    live, *_ = segment.owner.pin(TWO, "s", "n", "id1")
    segment.owner.share_pin(TWO, granule)
    segment.owner.commit()
    settle(segment.owner)
    before = segment.owner.statistics()
    segment.take_over()
    expected = [(ONE, granule, 360), (TWO, live, 5), (TWO, granule, 360)]
    assert segment.owner.pins() == sorted(expected)
    settle(segment.owner)
    after = segment.owner.statistics()
    for name in ("pins", "pinned_bytes", "held_bytes", "used"):
        assert after[name] == before[name], name
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE


def test_a_pin_that_was_not_committed_is_taken_back(segment: Segment) -> None:
    granule, start = pin(segment, ONE)
    segment.owner.pin(TWO, "s", "n", "id1")
    segment.owner.unpin(ONE, granule)
    replaced(segment)
    segment.take_over()
    assert segment.owner.pins() == [(ONE, granule, len(VALUE))]
    write_everywhere(segment.owner)
    assert value_at(segment, start) == VALUE
