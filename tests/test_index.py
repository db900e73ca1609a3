"""The index against a dict: every key is found from its hash, by the writer and by readers."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shmstore.errors import CorruptSegment, StoreFull
from shmstore.layout import (
    DEPTH_MAX,
    DEPTH_SHIFT,
    EMPTY,
    GRANULE_MASK,
    ROOT_WORD,
    SEGMENT_SLOT_BITS,
    SEGMENT_SLOTS,
    SEGMENT_USED_MAX,
    VACATED,
)
from shmstore.pure import index as index_module
from shmstore.pure.index import (
    Index,
    candidates,
    directory_words,
    index_blocks,
    segment_at,
    segment_starts,
)
from tests.segments import StoreCounter

MEMORY_WORDS = 1 << 19
HEAP_FIRST = 64


class Bump:
    """Gives out memory once; notes what is given up."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self.next = HEAP_FIRST
        self.left = MEMORY_WORDS // 2 - HEAP_FIRST
        self.retired: dict[tuple[int, int], list[int]] = {}
        """What was in the blocks that nothing leads to any more."""
        self.freed: list[tuple[int, int]] = []

    def allocate(self, size: int, reserved: bool = False) -> int:
        if self.left < size:
            raise StoreFull("no more")
        self.left -= size
        start, self.next = self.next, self.next + size
        return start

    def retire(self, start: int, size: int) -> None:
        self.retired[start, size] = self.content(start, size)

    def content(self, start: int, size: int) -> list[int]:
        words: list[int] = self._words[start * 2 : (start + size) * 2].tolist()
        return words

    def free(self, start: int, size: int) -> None:
        self.freed.append((start, size))


class Words:
    """An index of keys that are hashes themselves; entries are numbers that stand for granules."""

    def __init__(self) -> None:
        self.words = memoryview(array("Q", bytes(MEMORY_WORDS * 8)))
        self.heap = Bump(self.words)
        self.hash_of: dict[int, int] = {}
        """The hash by the granule of an entry."""
        self.committed: dict[int, int] = {}
        """The granule by the hash, as readers see it."""
        self.staged: dict[int, int] = {}
        """The same for the open batch."""
        self.dead: dict[int, int] = {}
        """The granule by the hash of the deleted entries that are still in their words."""
        self.places: dict[int, tuple[int, int]] = {}
        self._next = 1 << 20
        self.index = self.new_index()
        self.index.create()

    def new_index(self) -> Index:
        return Index(self.words, self.heap, lambda entry: self.hash_of[entry // 2])  # type: ignore[arg-type]

    def matches(self, word_hash: int) -> Callable[[int], bool]:
        return lambda entry: self.hash_of[entry // 2] == word_hash

    @property
    def living(self) -> dict[int, int]:
        return {**self.committed, **self.staged}

    # What a writer does

    def put(self, word_hash: int) -> None:
        granule, self._next = self._next, self._next + 1
        address, found = self.index.locate(word_hash, self.matches(word_hash))
        assert found == (word_hash in self.living or word_hash in self.dead)
        self.hash_of[granule] = word_hash
        self.index.stage(address, granule, word_hash)
        self.staged[word_hash] = granule

    def put_all(self, word_hashes: Iterable[int]) -> None:
        for word_hash in word_hashes:
            self.put(word_hash)

    def take_back(self, word_hash: int) -> None:
        """Withdraw what the open batch has put."""
        address = self.index.find(word_hash, self.matches(word_hash))
        assert address is not None
        self.index.unstage(address)
        del self.staged[word_hash]

    def publish(self) -> None:
        self.index.publish()
        self.committed.update(self.staged)
        for word_hash in self.staged:
            self.dead.pop(word_hash, None)
        self.staged.clear()

    def abort(self) -> None:
        self.index.abort()
        self.staged.clear()

    def kill(self, word_hash: int) -> None:
        """Delete a committed entry; its word leads to it until ``vacate``."""
        self.dead[word_hash] = self.committed.pop(word_hash)

    def vacate(self, word_hash: int) -> None:
        granule = self.dead[word_hash]
        address = self.index.find_committed(word_hash, granule)
        assert address is not None
        if not self.index.is_staged(address):
            self.index.vacate(address, word_hash)
            del self.dead[word_hash]

    def take_over(self) -> None:
        assert not self.staged
        self.index = self.new_index()
        self.index.adopt()

    # What must hold

    def check_readers(self) -> None:
        """Readers find all that is committed, under its own hash only."""
        for word_hash, granule in some([*self.committed.items(), *self.dead.items()]):
            found = list(candidates(self.words, word_hash))
            assert [entry // 2 for entry in found if self.matches(word_hash)(entry)] == [granule]

    def check(self) -> None:
        self.check_readers()
        for word_hash in some([*(self.staged.keys() - self.committed.keys() - self.dead.keys())]):
            assert not any(map(self.matches(word_hash), candidates(self.words, word_hash)))
        for word_hash, granule in some([*{**self.dead, **self.living}.items()]):
            address = self.index.find(word_hash, self.matches(word_hash))
            assert address is not None
            assert self.index.word(address) & GRANULE_MASK == granule
            self.check_place(word_hash, address)
        self.check_directory()
        if not self.index._staged:
            counted = self.new_index()
            counted.adopt()
            assert counted._used == self.index._used, "the words in use were miscounted"

        self.places = {
            word_hash: place
            for word_hash, place in self.places.items()
            if word_hash in self.living or word_hash in self.dead
        }

    def check_place(self, word_hash: int, address: int) -> None:
        """A key does not move within its segment while it lives."""
        place = segment_at(self.words, word_hash), address
        known = self.places.get(word_hash)
        assert known is None or known == place or known[0] != place[0]
        self.places[word_hash] = place

    def check_directory(self) -> None:
        depth = self.words[ROOT_WORD] >> DEPTH_SHIFT
        directory = directory_words(self.words)
        assert len(directory) == 1 << depth
        at = 0
        while at < len(directory):
            span = 1 << (depth - (directory[at] >> DEPTH_SHIFT))
            assert at % span == 0
            assert len(set(directory[at : at + span])) == 1
            at += span
        blocks = index_blocks(self.words)
        assert (
            len({start for start, _ in blocks})
            == len(blocks)
            == len(segment_starts(self.words)) + 1
        )
        given_up = [*self.heap.retired, *self.heap.freed]
        assert not {start for start, _ in blocks} & {start for start, _ in given_up}
        for block, content in self.heap.retired.items():
            assert self.heap.content(*block) == content, "what was given up is written to"


def some(many: list[Any]) -> list[Any]:
    """A few hundred of the keys, the latest among them, so that large indexes can be looked at
    often."""
    return many if len(many) <= 300 else many[:: len(many) // 150] + many[-100:]


tops = st.sampled_from([0, 1, 2, 3, 0x55, 0x80, 0xFE, 0xFF])
slots = st.sampled_from([0, 1, 2, 255, 256, 509, 510, 511]) | st.integers(0, 511)
hashes = st.builds(
    lambda top, tag, slot: top << 56 | tag << SEGMENT_SLOT_BITS | slot,
    tops,
    st.integers(0, 2) | st.integers(0, (1 << 28) - 1),
    slots,
)


class IndexMachine(RuleBasedStateMachine):
    """Everything the writer does to its index, in any order."""

    words: Words

    @initialize(seed=st.integers(0, 99), size=st.sampled_from([0, 0, 430, 900]))
    def begin(self, seed: int, size: int) -> None:
        self.words = Words()
        self.rng = random.Random(seed)
        self.put_many(size, narrow=False)
        self.words.publish()

    def put_many(self, size: int, narrow: bool) -> None:
        for _ in range(size):
            word_hash = self.rng.getrandbits(64)
            if narrow:
                word_hash &= ~(7 << SEGMENT_SLOT_BITS - 3)
            self.words.put(word_hash)

    def draw(self, data: st.DataObject, keys: dict[int, int], most: int = 8) -> list[int]:
        if not keys:
            return []
        chosen = st.lists(st.sampled_from(sorted(keys)), max_size=most, unique=True)
        return data.draw(chosen)

    @rule(word_hashes=st.lists(hashes, max_size=6))
    def put(self, word_hashes: list[int]) -> None:
        for word_hash in word_hashes:
            self.words.put(word_hash)

    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        for word_hash in self.draw(data, {**self.words.living, **self.words.dead}):
            self.words.put(word_hash)

    @rule(size=st.sampled_from([30, 100, 450]), narrow=st.booleans())
    def put_many_new_ones(self, size: int, narrow: bool) -> None:
        if len(self.words.living) < 3000:
            self.put_many(size, narrow)

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        for word_hash in self.draw(data, self.words.staged):
            self.words.take_back(word_hash)

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        not_staged = {h: g for h, g in self.words.committed.items() if h not in self.words.staged}
        for word_hash in self.draw(data, not_staged):
            self.words.kill(word_hash)

    @rule(share=st.sampled_from([0.3, 0.95, 1.0]))
    def kill_many(self, share: float) -> None:
        for word_hash in sorted(self.words.committed.keys() - self.words.staged.keys()):
            if self.rng.random() < share:
                self.words.kill(word_hash)

    @rule(data=st.data())
    def vacate(self, data: st.DataObject) -> None:
        for word_hash in self.draw(data, self.words.dead):
            self.words.vacate(word_hash)

    @rule()
    def vacate_all(self) -> None:
        for word_hash in self.rng.sample(sorted(self.words.dead), len(self.words.dead)):
            self.words.vacate(word_hash)

    @rule()
    def publish(self) -> None:
        self.words.publish()

    @rule()
    def abort(self) -> None:
        self.words.abort()

    @precondition(lambda self: not self.words.staged)
    @rule()
    def take_over(self) -> None:
        self.words.take_over()

    @invariant()
    def every_key_is_found(self) -> None:
        self.words.check()


def test_the_index_as_its_model_says() -> None:
    run_state_machine_as_test(
        IndexMachine, settings=settings(max_examples=30, stateful_step_count=25, deadline=None)
    )


@pytest.fixture
def words() -> Words:
    return Words()


def spread(seed: int, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.getrandbits(64) for _ in range(count)]


def test_readers_find_every_key_before_every_store_of_a_split(words: Words) -> None:
    """No state in between is without a committed key, and none shows a staged one."""
    words.put_all(spread(1, SEGMENT_USED_MAX * 2 - 10))
    words.publish()
    segments = len(segment_starts(words.words))
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        words.check_readers()
        assert not any(
            any(map(words.matches(word_hash), candidates(words.words, word_hash)))
            for word_hash in list(words.staged)[-5:]
        )

    words.index._words = StoreCounter(words.words, look)  # type: ignore[assignment]
    new = spread(2, 1500)
    words.put_all(new)
    assert len(segment_starts(words.words)) > segments
    assert looks > 20
    words.index._words = words.words
    words.publish()
    words.check()


@pytest.mark.parametrize("ends", ["publish", "abort"])
def test_a_batch_that_splits_segments_can_end_both_ways(words: Words, ends: str) -> None:
    first, second = spread(3, 300), spread(4, 2000)
    words.put_all(first)
    words.publish()
    for word_hash in [*second, *first[:50]]:
        words.put(word_hash)
    words.publish() if ends == "publish" else words.abort()
    words.check()
    expected = {*first, *second} if ends == "publish" else set(first)
    assert set(words.committed) == expected
    if ends == "abort":
        for word_hash in second:
            assert words.index.find(word_hash, words.matches(word_hash)) is None
    words.take_over()
    words.check()


@pytest.mark.parametrize("count", [1500, 6000])
def test_a_large_part_of_the_directory_may_lead_to_one_segment(words: Words, count: int) -> None:
    """Where most hashes are alike, the rest share a segment, until they need several."""
    alike = [word_hash >> 5 for word_hash in spread(8, count)]
    words.put_all(alike)
    words.publish()
    depth = words.words[ROOT_WORD] >> DEPTH_SHIFT
    locals_ = [word >> DEPTH_SHIFT for word in directory_words(words.words)]
    assert depth - locals_[-1] >= 5
    words.put_all(spread(9, count))
    words.check()
    words.publish()
    words.check()
    assert max(depth, 6) <= words.words[ROOT_WORD] >> DEPTH_SHIFT <= depth + 1


def test_keys_that_come_and_go_need_no_more_room(words: Words) -> None:
    for round_number in range(20):
        now = spread(round_number, 150)
        for word_hash in now:
            words.put(word_hash)
        words.publish()
        for word_hash in now:
            words.kill(word_hash)
            words.vacate(word_hash)
        words.check()
    assert len(segment_starts(words.words)) == 1
    assert words.words[ROOT_WORD] >> DEPTH_SHIFT == 0
    assert not words.heap.retired


def test_a_segment_filled_by_vacated_words_is_rebuilt_not_split(words: Words) -> None:
    """They cannot become empty, as a living key stands behind all of them."""
    run = [tag << SEGMENT_SLOT_BITS for tag in range(SEGMENT_USED_MAX)]
    words.put_all(run)
    words.publish()
    for word_hash in run[1:-1]:
        words.kill(word_hash)
        words.vacate(word_hash)
    words.check()
    words.put(run[5])
    assert not words.heap.retired, "a vacated word can be used without more room"
    words.put(470)
    assert len(segment_starts(words.words)) == len(words.heap.retired) == 1
    assert words.words[ROOT_WORD] >> DEPTH_SHIFT == 0
    words.publish()
    words.check()
    base = segment_at(words.words, 0)
    in_use = SEGMENT_SLOTS - words.words[base : base + SEGMENT_SLOTS].tolist().count(EMPTY)
    assert in_use == 4


def test_words_before_an_empty_one_become_empty_again(words: Words) -> None:
    """Runs of vacated words would make every probe past them long."""
    home = 509
    run = [tag << SEGMENT_SLOT_BITS | home for tag in range(6)]
    words.put_all(run)
    words.publish()
    base = segment_at(words.words, home)

    def slots_in_use() -> list[int]:
        found = words.words[base : base + SEGMENT_SLOTS].tolist()
        return [word for word in found[home:] + found[:home] if word != EMPTY]

    assert len(slots_in_use()) == 6
    for word_hash in (*run[1:3], run[4]):
        words.kill(word_hash)
        words.vacate(word_hash)
    assert [word == VACATED for word in slots_in_use()] == [False, True, True, False, True, False]
    words.check()
    words.kill(run[5])
    words.vacate(run[5])
    assert [word == VACATED for word in slots_in_use()] == [False, True, True, False]
    words.kill(run[3])
    words.vacate(run[3])
    assert len(slots_in_use()) == 1
    words.check()
    words.put(run[2])
    assert words.index.find(run[2], words.matches(run[2])) == base + 510


def test_a_vacated_word_is_taken_again_before_an_empty_one(words: Words) -> None:
    run = [tag << SEGMENT_SLOT_BITS | 7 for tag in range(4)]
    words.put_all(run[:3])
    words.publish()
    address = words.index.find(run[1], words.matches(run[1]))
    assert address is not None
    words.kill(run[1])
    words.vacate(run[1])
    words.put(run[3])
    assert words.index.find(run[3], words.matches(run[3])) == address
    words.abort()
    assert words.words[address] == VACATED
    words.check()


def test_the_first_of_several_vacated_words_is_taken(words: Words) -> None:
    run = [tag << SEGMENT_SLOT_BITS | 7 for tag in range(6)]
    words.put_all(run)
    words.publish()
    first = words.index.find(run[1], words.matches(run[1]))
    for word_hash in run[1:4]:
        words.kill(word_hash)
        words.vacate(word_hash)
    words.put(run[3])
    assert words.index.find(run[3], words.matches(run[3])) == first


def test_a_word_the_open_batch_will_fill_is_not_emptied_with_its_neighbours(words: Words) -> None:
    run = [tag << SEGMENT_SLOT_BITS | 7 for tag in range(4)]
    words.put_all(run[:3])
    words.publish()
    words.kill(run[1])
    words.vacate(run[1])
    words.put(run[3])
    words.kill(run[2])
    words.vacate(run[2])
    words.check()
    words.publish()
    words.check()


def test_equal_tags_are_told_apart_by_the_entry(words: Words) -> None:
    """28 bits of tag do not tell all hashes apart: what the entry says decides."""
    alike = [high << 37 | 5 << SEGMENT_SLOT_BITS | 3 for high in range(20)]
    words.put_all(alike)
    words.publish()
    words.check()
    assert len(list(candidates(words.words, alike[0]))) == len(alike)


@pytest.mark.parametrize("slot", [0, SEGMENT_SLOTS - 1])
def test_probes_go_round_the_end_of_a_segment(words: Words, slot: int) -> None:
    for tag in range(100):
        words.put(tag << SEGMENT_SLOT_BITS | slot)
    words.publish()
    words.check()


def test_a_miss_in_a_segment_without_an_empty_word_ends(words: Words) -> None:
    base = segment_at(words.words, 0)
    for slot in range(SEGMENT_SLOTS):
        words.words[base + slot] = VACATED
    assert list(candidates(words.words, 77)) == []
    assert words.index.find(77, words.matches(77)) is None
    assert words.index.find_committed(77, 5) is None


def test_hashes_all_alike_are_refused_in_the_end(words: Words) -> None:
    """As many as a segment has, and no more than the directory may have bits."""
    alike = [high << SEGMENT_SLOT_BITS for high in range(SEGMENT_SLOTS)]
    with pytest.raises((CorruptSegment, StoreFull)):
        words.put_all(alike)
    depth = words.words[ROOT_WORD] >> DEPTH_SHIFT
    assert depth <= DEPTH_MAX
    words.abort()
    words.check()


def test_a_directory_has_no_more_words_than_the_format_allows(
    words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "DEPTH_MAX", 3)
    alike = [high << SEGMENT_SLOT_BITS for high in range(SEGMENT_SLOTS)]
    with pytest.raises(CorruptSegment, match="cannot grow"):
        words.put_all(alike)
    assert words.words[ROOT_WORD] >> DEPTH_SHIFT == 3
    words.abort()
    words.check()


def test_a_split_without_memory_changes_nothing(words: Words) -> None:
    words.put_all(spread(5, SEGMENT_USED_MAX - 1))
    words.publish()
    before = words.words.tolist()
    for left in (0, 1, 257):
        words.heap.left = left
        with pytest.raises(StoreFull):
            words.put_all(spread(6, 50))
        words.abort()
        words.check()
        depth = words.words[ROOT_WORD] >> DEPTH_SHIFT
        assert (words.words.tolist() == before) == (depth == 0)
    assert words.heap.freed, "half of what a split needs is given back"


def test_the_directory_grows_only_when_it_must(words: Words) -> None:
    """Ten thousand keys in two dozen segments, each at least half as full as it may be."""
    keys = spread(7, 10_000)
    words.put_all(keys)
    words.publish()
    starts = segment_starts(words.words)
    assert 10_000 // SEGMENT_USED_MAX <= len(starts) <= 10_000 // (SEGMENT_USED_MAX // 2) + 1
    for word_hash in keys[::100]:
        assert words.committed[word_hash] in [e // 2 for e in candidates(words.words, word_hash)]
