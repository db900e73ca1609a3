"""The allocator against a model: no overlap, no loss, nothing handed out before its time."""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shmstore.errors import StoreFull
from shmstore.layout import (
    EXTENT_BYTES,
    EXTENT_END_WORD,
    GRANULE_BYTES,
    HEAP_START,
    HORIZON_WORD,
    QUARANTINE_BYTES,
    RESERVE_BYTES_MAX,
    RESERVE_DIVISOR,
)
from shmstore.pure.clock import Clock
from shmstore.pure.free import FreeBlocks
from shmstore.pure.heap import Heap

MIB = 1 << 20
EXTENT = EXTENT_BYTES // GRANULE_BYTES
FIRST = HEAP_START // GRANULE_BYTES
Block = tuple[int, int]


class Ground:
    """A heap, the system under it and the readers above it, without any memory."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        reserve_end = min(RESERVE_BYTES_MAX, HEAP_START + capacity // RESERVE_DIVISOR)
        self.border = reserve_end // GRANULE_BYTES
        self.words = memoryview(array("Q", bytes(HEAP_START)))
        self.clock = Clock(self.words)
        self.real: set[int] = set()
        self.denied = False
        self.busy_words = False
        self.in_use: dict[int, int] = {}
        self.dead: dict[int, tuple[int, int]] = {}
        """Size, and clock of the last reader that may have met it alive, of entries in words."""
        self.waiting: list[tuple[int, int, int]] = []
        """(start, size, clock of the last reader that may look at it) of blocks given up."""
        self.heap = self._new_heap()

    def _new_heap(self) -> Heap:
        return Heap(self.words, self.clock, self.capacity, self._extend, self._release, self._purge)

    # What the heap calls

    def _extend(self, offset: int, length: int) -> None:
        if self.denied:
            raise OSError(errno.ENOSPC, "the machine is full")
        assert offset % EXTENT_BYTES == 0
        assert offset + length <= self.capacity
        extents = range(offset // EXTENT_BYTES, -(-(offset + length) // EXTENT_BYTES))
        assert self.real.isdisjoint(extents), "what is real is asked for again"
        self.real.update(extents)

    def _release(self, offset: int, length: int) -> None:
        assert (offset % EXTENT_BYTES, length) == (0, EXTENT_BYTES)
        self.real.remove(offset // EXTENT_BYTES)
        start, size = offset // GRANULE_BYTES, length // GRANULE_BYTES
        assert not overlaps(start, size, [*self.in_use.items(), *self.dead_blocks()])
        self.assert_unread(start, size)

    def _purge(self, start: int, word_hash: int) -> bool:
        size, clock = self.dead[start]
        assert word_hash == start * 3
        assert self.clock.horizon > clock, "a word is emptied under a reader that needs it"
        if self.busy_words:
            return False
        del self.dead[start]
        self.waiting.append((start, size, self.clock.free_clock))
        return True

    def assert_unread(self, start: int, size: int) -> None:
        """No reader that may have come to this memory before will be accepted any more."""
        self.waiting = [each for each in self.waiting if each[2] >= self.clock.horizon]
        for block, length, clock in self.waiting:
            if overlaps(start, size, [(block, length)]):
                raise AssertionError(f"memory is reused under a reader of clock {clock}")

    # What a writer does

    def allocate(self, size: int, reserved: bool = False) -> int:
        start = self.heap.allocate(size, reserved)
        taken = [*self.in_use.items(), *self.dead_blocks()]
        assert not overlaps(start, size, taken), "a block is handed out twice"
        assert start >= FIRST
        assert (start + size) * GRANULE_BYTES <= self.words[EXTENT_END_WORD]
        assert self.real.issuperset(range(start // EXTENT, (start + size - 1) // EXTENT + 1))
        self.assert_unread(start, size)
        if not reserved or self.heap.growing:
            assert start >= self.border, "a record lies in the reserve"
        self.in_use[start] = size
        return start

    def free(self, start: int) -> None:
        self.heap.free(start, self.in_use.pop(start))

    def retire(self, start: int) -> None:
        size = self.in_use.pop(start)
        self.waiting.append((start, size, self.clock.free_clock))
        self.heap.retire(start, size)

    def commit(self, replaced: Iterable[int] = (), dead: Iterable[int] = ()) -> None:
        clock = self.clock.free_clock
        blocks = [(start, self.in_use.pop(start)) for start in replaced]
        self.waiting += [(*block, clock) for block in blocks]
        entries = []
        for start in dead:
            self.dead[start] = self.in_use.pop(start), clock
            entries.append((start, self.dead[start][0], start * 3))
        self.heap.stamp(blocks, entries)
        self.heap.growing = False

    def settle(self) -> None:
        while self.heap.settle():
            pass

    def take_over(self) -> None:
        """Forget the heap, and build another one from what is in use."""
        self.clock.reuse(self.clock.retire())
        self.heap = self._new_heap()
        self.heap.adopt([*self.in_use.items(), *self.dead_blocks()])
        self.heap.stamp([], [(start, size, start * 3) for start, size in self.dead_blocks()])
        clock = self.clock.free_clock - 1
        self.dead = {start: (size, clock) for start, size in self.dead_blocks()}
        # What is wholly free may have been returned: it has to be asked for again.
        for start, size in self.heap.free_blocks():
            self.real.difference_update(range(-(-start // EXTENT), (start + size) // EXTENT))

    def dead_blocks(self) -> list[Block]:
        return [(start, size) for start, (size, _) in self.dead.items()]

    def check(self) -> None:
        heap, end = self.heap, self.words[EXTENT_END_WORD] // GRANULE_BYTES
        free, quarantined = heap.free_blocks(), heap.quarantined()
        assert sorted(block.start for block in heap.deleted()) == sorted(self.dead)
        held = [*self.in_use.items(), *quarantined, *self.dead_blocks()]
        at = FIRST if end else 0
        for start, size in sorted([*free, *held]):
            assert start == at, "memory is lost, or given twice"
            at += size
        assert at == end
        ends = {start + size for start, size in free} - {self.border}
        assert ends.isdisjoint(dict(free)), "neighbours that are free were not merged"
        waiting = sum(size for _, size in [*quarantined, *self.dead_blocks()])
        assert heap.free_granules == sum(size for _, size in free)
        assert heap.quarantine_granules == waiting
        assert heap.used_granules == sum(self.in_use.values())
        ragged = end * GRANULE_BYTES % EXTENT_BYTES
        whole = len(self.real) * EXTENT_BYTES
        assert heap.real_bytes == whole - (EXTENT_BYTES - ragged if ragged else 0)


def overlaps(start: int, size: int, blocks: Iterable[Block]) -> bool:
    return any(at < start + size and start < at + length for at, length in blocks)


CAPACITY = 21 * MIB + 3 * 4096
RESERVE = min(RESERVE_BYTES_MAX - HEAP_START, CAPACITY // RESERVE_DIVISOR) // GRANULE_BYTES
"""The granules that are kept for deletions."""

block_sizes = (
    st.integers(1, 70) | st.integers(60, 5000) | st.integers(5000, 8 * EXTENT) | st.just(2 * EXTENT)
)


class HeapMachine(RuleBasedStateMachine):
    """Everything a writer asks of its heap, in any order."""

    ground: Ground

    @initialize(hold=st.sampled_from([0, QUARANTINE_BYTES]))
    def begin(self, hold: int) -> None:
        self.ground = Ground(CAPACITY)
        self.hold = hold

    @rule(size=block_sizes, reserved=st.booleans())
    def allocate(self, size: int, reserved: bool) -> None:
        ground, heap = self.ground, self.ground.heap
        heap.hold_bytes = self.hold
        used, growing = heap.used_granules, heap.growing
        try:
            ground.allocate(size, reserved)
        except StoreFull:
            assert heap.used_granules == used, "a refusal took something"
            assert heap.growing is growing
            assert ground.denied or self.nothing_fits(size, reserved)
        else:
            assert heap.growing is (growing or not reserved)

    def nothing_fits(self, size: int, reserved: bool) -> bool:
        heap, border = self.ground.heap, self.ground.border
        free = heap.free_blocks()
        kept = sum(length for start, length in free if start < border)
        least = 0 if reserved and not heap.growing else border
        largest = max((length for start, length in free if start >= least), default=0)
        end = self.ground.words[EXTENT_END_WORD]
        if not reserved and kept < RESERVE // 2:
            most = max(largest, (CAPACITY - end) // GRANULE_BYTES)
            return most < size + RESERVE and not heap.quarantined()
        at_the_end = end == CAPACITY
        return largest < size and at_the_end and not heap.quarantined()

    def some(self, data: st.DataObject, most: int) -> list[int]:
        blocks = sorted(self.ground.in_use)
        if not blocks:
            return []
        return data.draw(st.lists(st.sampled_from(blocks), max_size=most, unique=True))

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """As an abort does."""
        for start in self.some(data, 5):
            self.ground.free(start)
        self.ground.heap.growing = False

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        """As the split of an index segment does, in the middle of a batch."""
        for start in self.some(data, 2):
            self.ground.retire(start)

    @rule(data=st.data(), kills=st.sampled_from([0, 1, 2]))
    def commit(self, data: st.DataObject, kills: int) -> None:
        given_up = self.some(data, 6)
        cut = len(given_up) * kills // 2
        self.ground.commit(given_up[cut:], given_up[:cut])
        self.ground.heap.give_back()

    @rule()
    def commit_everything(self) -> None:
        self.ground.commit([], list(self.ground.in_use))

    @precondition(lambda self: not self.ground.busy_words)
    @rule()
    def settle(self) -> None:
        heap = self.ground.heap
        self.ground.settle()
        assert heap.quarantine_granules == 0
        assert self.ground.dead == {}
        if not self.ground.in_use and heap.free_granules:
            assert len(heap.free_blocks()) == 2, "all is free and yet in pieces"

    @rule(denied=st.booleans())
    def the_machine_fills_or_empties(self, denied: bool) -> None:
        self.ground.denied = denied

    @rule(busy=st.booleans())
    def the_open_batch_stands_on_the_words(self, busy: bool) -> None:
        self.ground.busy_words = busy

    @rule()
    def take_over(self) -> None:
        self.ground.take_over()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        self.ground.check()

    def teardown(self) -> None:
        ground = self.ground
        ground.denied = ground.busy_words = False
        ground.commit(list(ground.in_use))
        ground.settle()
        ground.allocate(CAPACITY // GRANULE_BYTES - ground.border)


def test_the_heap_as_its_model_says() -> None:
    run_state_machine_as_test(
        HeapMachine, settings=settings(max_examples=200, stateful_step_count=50, deadline=None)
    )


@pytest.fixture
def ground() -> Ground:
    return Ground(CAPACITY)


def fill(ground: Ground, size: int, reserved: bool = False) -> list[int]:
    """Allocate until the store is full; return the blocks."""
    blocks = []
    with suppress(StoreFull):
        while True:
            blocks.append(ground.heap.allocate(size, reserved))
            ground.in_use[blocks[-1]] = size
    ground.check()
    return blocks


def test_a_part_is_kept_for_deletions_in_one_piece(ground: Ground) -> None:
    """However the rest of a full store lies in pieces."""
    for start in fill(ground, 30)[::2]:
        ground.free(start)
    fill(ground, 28)
    assert max(size for _, size in ground.heap.free_blocks()[1:]) < 30
    with pytest.raises(StoreFull, match=r"in use; delete records or .* capacity=") as caught:
        ground.allocate(30)
    used = ground.heap.used_granules * GRANULE_BYTES
    assert caught.value.details == {"requested": 480, "used": used, "capacity": CAPACITY}
    with pytest.raises(StoreFull):
        ground.allocate(30, reserved=True)  # the batch puts records as well
    ground.commit()
    assert ground.allocate(RESERVE, reserved=True) == FIRST
    with pytest.raises(StoreFull):
        ground.allocate(30, reserved=True)
    ground.check()


def test_the_reserve_is_the_last_that_is_taken(ground: Ground) -> None:
    blocks = fill(ground, 1000, reserved=True)
    border = [start < ground.border for start in blocks]
    assert border == sorted(border)
    assert sum(border) == RESERVE // 1000
    ground.check()


def test_records_leave_a_piece_for_deletions_while_the_reserve_is_in_use(ground: Ground) -> None:
    size = RESERVE // 10
    blocks = fill(ground, size, reserved=True)
    kept = [start for start in blocks if start < ground.border]
    others = [start for start in blocks if start >= ground.border]
    ground.commit(others[:22:2])
    with pytest.raises(StoreFull):
        ground.allocate(1)
    ground.commit(others[1:21:2])
    with pytest.raises(StoreFull):
        ground.allocate(12 * size)
    ground.allocate(9 * size)
    with pytest.raises(StoreFull):
        ground.allocate(3 * size)
    ground.commit(kept[:6])
    ground.allocate(3 * size)
    ground.check()


def test_a_full_heap_has_room_again_after_a_delete(ground: Ground) -> None:
    for _ in range(5):
        blocks = fill(ground, 1000)
        ground.commit(blocks[::2], blocks[1::2])
    assert len(blocks) == (CAPACITY // GRANULE_BYTES - ground.border) // 1000


def test_what_was_given_up_is_used_before_the_store_is_full(ground: Ground) -> None:
    ground.commit(fill(ground, 7))
    assert ground.allocate(20 * EXTENT) is not None
    ground.check()


def test_freed_blocks_are_used_before_the_segment_grows(ground: Ground) -> None:
    start = ground.allocate(500)
    end = ground.words[EXTENT_END_WORD]
    ground.free(start)
    for _ in range(10):
        again = ground.allocate(500)
        ground.free(again)
        assert again == start
    assert ground.words[EXTENT_END_WORD] == end == EXTENT_BYTES


def test_readers_are_turned_away_only_when_memory_is_short(ground: Ground) -> None:
    """What a reader may look at is left alone until the quarantine is larger than it must be."""
    size = 1000
    most = QUARANTINE_BYTES // (size * GRANULE_BYTES)
    for _ in range(most):
        ground.commit([ground.allocate(size)])
    assert ground.clock.horizon == 0
    for _ in range(3):
        ground.commit([ground.allocate(size)])
    assert 0 < ground.clock.horizon <= 3
    ground.check()


def test_the_oldest_is_released_first(ground: Ground) -> None:
    blocks = [ground.allocate(EXTENT // 4) for _ in range(12)]
    for start in blocks:
        ground.commit([start])
    ground.allocate(1)
    # Four of these fill what is held back.
    assert ground.clock.horizon == len(blocks) - 4
    ground.check()


def test_idle_extents_go_back_to_the_system_and_are_asked_for_again(ground: Ground) -> None:
    blocks = fill(ground, 3000)
    assert len(ground.real) == 22
    ground.commit(blocks[1:])
    assert len(ground.real) == 22, "nothing is given back while readers may look at it"
    ground.settle()
    assert ground.real == {0, 21}, "only the header's and the ragged last one are left"
    assert ground.heap.real_bytes == EXTENT_BYTES + 3 * 4096
    ground.check()
    assert len(fill(ground, 3000)) == len(blocks) - 1
    assert len(ground.real) == 22


def test_a_little_idle_memory_is_kept(ground: Ground) -> None:
    for _ in range(20):
        blocks = [ground.allocate(EXTENT) for _ in range(5)]
        ground.commit(blocks)
        ground.settle()
        assert len(ground.real) >= 5
    # Nor is it given back bit by bit.
    for _ in range(5):
        ground.heap.give_back()
    assert len(ground.real) >= 5


def test_a_machine_that_is_full_is_a_full_store_until_it_is_not(ground: Ground) -> None:
    first = ground.allocate(EXTENT // 2)
    ground.denied = True
    with pytest.raises(StoreFull, match="machine is full"):
        ground.allocate(2 * EXTENT)
    ground.check()
    ground.free(ground.allocate(100, reserved=True))
    with pytest.raises(StoreFull, match="machine is full"):
        ground.allocate(EXTENT)
    ground.denied = False
    ground.allocate(2 * EXTENT)
    assert first in ground.in_use
    ground.check()


def test_a_machine_that_does_not_take_back_what_it_got_loses_nothing(ground: Ground) -> None:
    ground.commit(fill(ground, EXTENT))
    ground.settle()
    ground.denied = True
    with pytest.raises(StoreFull):
        ground.allocate(3 * EXTENT)
    ground.check()
    ground.denied = False
    ground.allocate(3 * EXTENT)
    ground.check()


def test_a_segment_that_gets_no_memory_at_all_is_full() -> None:
    ground = Ground(CAPACITY)
    ground.denied = True
    with pytest.raises(StoreFull):
        ground.allocate(1)
    assert (ground.heap.used_granules, ground.heap.real_bytes) == (0, 0)


def test_growth_comes_in_larger_steps_as_the_segment_grows() -> None:
    ground = Ground(1 << 36)
    steps: list[Any] = []
    extend = ground._extend

    def count(offset: int, length: int) -> None:
        steps.append(length)
        extend(offset, length)

    ground.heap._extend = count
    while ground.heap.real_bytes < 2 << 30:
        ground.allocate(EXTENT)
    assert len(steps) < 100
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (EXTENT_BYTES, 64 * EXTENT_BYTES)


def test_a_block_larger_than_a_step_is_had_at_once() -> None:
    ground = Ground(1 << 36)
    ground.allocate(3)
    ground.allocate(200 * EXTENT + 1)
    ground.check()


def test_equal_requests_get_equal_blocks() -> None:
    def play() -> list[Any]:
        ground = Ground(CAPACITY)
        places = []
        for i in range(600):
            places.append(ground.allocate(1 + i * i % 977))
            if i % 3 == 2:
                ground.commit(places[-2:-1], places[-1:])
        return [*places, ground.heap.free_blocks(), ground.heap.quarantined()]

    assert play() == play()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3000), st.integers(1, 400)), max_size=60),
    st.lists(st.integers(1, 5000), min_size=1, max_size=20),
)
def test_a_fitting_free_block_is_found_if_there_is_one(steps, wanted) -> None:
    free = FreeBlocks()
    granules: set[int] = set()
    for adds, start, size in steps:
        block = set(range(start, start + size))
        if adds and not block & granules:
            free.add(start, size)
            granules |= block
        elif not adds and dict(free.items()).get(start):
            length = free.remove(start)
            granules -= set(range(start, start + length))
    blocks = dict(free.items())
    assert {g for start, size in blocks.items() for g in range(start, start + size)} == granules
    assert free.granules == len(granules)
    for size in [*wanted, *blocks.values(), *(size + 1 for size in blocks.values())]:
        found = free.find(size)
        assert (found is not None) == any(length >= size for length in blocks.values())
        assert found is None or blocks[found] >= size


def test_a_horizon_is_never_taken_back(ground: Ground) -> None:
    seen = []
    for _ in range(40):
        ground.commit([ground.allocate(EXTENT // 3)])
        seen.append(ground.words[HORIZON_WORD])
    assert seen == sorted(seen)
    assert 0 < seen[-1] < ground.clock.free_clock
