"""The index: from a hash to the word that leads to an entry.

Segments of 512 words under a directory (extendible hashing, Fagin et al. 1979), linear probing
inside a segment. An entry never moves to another word of its segment: deletion leaves the word
vacated, so a reader that meets an empty word knows that the key is absent. A segment that fills
is split into two new ones, which changes nothing a reader can tell; no other write ever waits.

Readers use ``find``. ``Index`` is the writer's: it stages words until ``publish``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from ..errors import CorruptSegment, StoreFull
from ..layout import (
    DEPTH_MAX,
    DEPTH_SHIFT,
    EMPTY,
    GRANULE_BITS,
    GRANULE_BYTES,
    GRANULE_MASK,
    ROOT_WORD,
    SEGMENT_BYTES,
    SEGMENT_SLOT_BITS,
    SEGMENT_SLOTS,
    SEGMENT_USED_MAX,
    TAG_MASK,
    VACATED,
    WORD_BYTES,
)
from .heap import Heap
from .records import Damaged

_SLOT_MASK = SEGMENT_SLOTS - 1
_SEGMENT_GRANULES = SEGMENT_BYTES // GRANULE_BYTES
_WORDS = GRANULE_BYTES // WORD_BYTES

Matches = Callable[[int], bool]
_Staging = tuple[int, int, int | None]
"""(hash, committed word, staged word)."""


def tag_of(word_hash: int) -> int:
    """Return the bits of the hash that an index word carries."""
    return word_hash >> SEGMENT_SLOT_BITS & TAG_MASK


def segment_at(words: memoryview, word_hash: int) -> int:
    """Return the word at which the segment for this hash begins."""
    root = words[ROOT_WORD]
    directory = (root & GRANULE_MASK) * _WORDS
    # Shifted this way a damaged depth leads out of the memory, which has a name.
    word = words[directory + (word_hash << (root >> DEPTH_SHIFT) >> 64)]
    return int(word & GRANULE_MASK) * _WORDS


def candidates(words: memoryview, word_hash: int) -> Iterator[int]:
    """Yield the entries (as word indexes) that may be the one of this hash: the reader's probe."""
    base = segment_at(words, word_hash)
    tag = word_hash >> SEGMENT_SLOT_BITS & TAG_MASK
    slot = word_hash & _SLOT_MASK
    for _ in range(SEGMENT_SLOTS):
        word = words[base + slot]
        if word == EMPTY:
            return
        if word >> GRANULE_BITS == tag and word != VACATED:
            yield (word & GRANULE_MASK) * _WORDS
        slot = slot + 1 & _SLOT_MASK


def directory_words(words: memoryview) -> list[int]:
    """Return the directory. Errors: ``Damaged``."""
    root = words[ROOT_WORD]
    start, depth = (root & GRANULE_MASK) * _WORDS, root >> DEPTH_SHIFT
    if depth > DEPTH_MAX or start + (1 << depth) > len(words):
        raise Damaged(f"the root names a directory of depth {depth} at granule {start // _WORDS}")
    directory: list[int] = words[start : start + (1 << depth)].tolist()
    return directory


def segment_starts(words: memoryview) -> list[int]:
    """Return the words at which the segments begin, each once, in order of the hashes."""
    return list(dict.fromkeys((word & GRANULE_MASK) * _WORDS for word in directory_words(words)))


def index_blocks(words: memoryview) -> list[tuple[int, int]]:
    """Return the (start, size) blocks of directory and segments, in granules."""
    root = words[ROOT_WORD]
    directory = root & GRANULE_MASK, _directory_granules(root >> DEPTH_SHIFT)
    segments = ((base // _WORDS, _SEGMENT_GRANULES) for base in segment_starts(words))
    return [directory, *segments]


class Index:
    """The writer's side: finds, stages, publishes and splits. ``rehash`` gives the hash of an
    entry's key from the entry's word index."""

    def __init__(self, words: memoryview, heap: Heap, rehash: Callable[[int], int]) -> None:
        self._words = words
        self._heap = heap
        self._rehash = rehash
        self._staged: dict[int, int] = {}
        self._fresh: dict[int, int] = {}
        self._used: dict[int, int] = {}

    def create(self) -> None:
        """Lay out an empty index: one segment, a directory of one word."""
        segment, directory = self._heap.allocate(_SEGMENT_GRANULES), self._heap.allocate(1)
        self._fill(segment * _WORDS, [EMPTY] * SEGMENT_SLOTS)
        self._used[segment * _WORDS] = 0
        self._words[directory * _WORDS] = segment
        self._words[ROOT_WORD] = directory

    def adopt(self) -> None:
        """Count anew the words in use, after a takeover."""
        for base in segment_starts(self._words):
            words = self._words[base : base + SEGMENT_SLOTS].tolist()
            self._used[base] = SEGMENT_SLOTS - words.count(EMPTY)

    # Staging

    def word(self, address: int) -> int:
        """The word at ``address`` as the open batch sees it."""
        staged = self._staged.get(address)
        return int(self._words[address]) if staged is None else staged

    def committed_word(self, address: int) -> int:
        """The word at ``address`` as readers find it."""
        return int(self._words[address])

    def is_staged(self, address: int) -> bool:
        return address in self._staged

    def locate(self, word_hash: int, matches: Matches) -> tuple[int, bool]:
        """Return (address, True) of the word whose entry ``matches``, or (address, False) of
        the word a new entry would take; the batch's own words are seen. The index may split."""
        while True:
            base = segment_at(self._words, word_hash)
            found, free = self._probe(base, word_hash, matches)
            if found is not None:
                return found, True
            if free is not None and self._takes(base, free):
                return free, False
            self._make_room(word_hash)

    def find(self, word_hash: int, matches: Matches) -> int | None:
        """Return the address of the word whose entry ``matches``, or None."""
        return self._probe(segment_at(self._words, word_hash), word_hash, matches)[0]

    def find_committed(self, word_hash: int, granule: int) -> int | None:
        """Return the address of the word by which readers come to the entry at ``granule``."""
        base, slot = segment_at(self._words, word_hash), word_hash & _SLOT_MASK
        wanted = tag_of(word_hash) << GRANULE_BITS | granule
        for _ in range(SEGMENT_SLOTS):
            word = self._words[base + slot]
            if word == wanted:
                return base + slot
            if word == EMPTY:
                return None
            slot = slot + 1 & _SLOT_MASK
        return None

    def stage(self, address: int, granule: int, word_hash: int) -> None:
        """Let the word lead to the entry at ``granule`` from the next commit on."""
        if self.word(address) == EMPTY:
            base = segment_at(self._words, word_hash)
            self._used[base] += 1
            self._fresh[address] = base
        self._staged[address] = tag_of(word_hash) << GRANULE_BITS | granule

    def unstage(self, address: int) -> None:
        """Withdraw the batch's word; what was probed past it stays reachable."""
        if self._words[address] == EMPTY:
            self._staged[address] = VACATED
        else:
            del self._staged[address]

    def publish(self) -> None:
        """Step 3: store the staged words."""
        for address, word in self._staged.items():
            self._words[address] = word
        self._staged.clear()
        self._fresh.clear()

    def abort(self) -> None:
        """Forget the staged words."""
        for base in self._fresh.values():
            self._used[base] -= 1
        self._staged.clear()
        self._fresh.clear()

    def vacate(self, address: int, word_hash: int) -> None:
        """Take an entry out of its word for good; the horizon has passed its deletion.

        Before an empty word a vacated one serves no probe, so it and those behind become empty.
        """
        base = segment_at(self._words, word_hash)
        slot = address - base
        if self.word(base + (slot + 1 & _SLOT_MASK)) != EMPTY:
            self._words[address] = VACATED
            return
        for _ in range(SEGMENT_SLOTS):
            self._words[base + slot] = EMPTY
            self._used[base] -= 1
            slot = slot - 1 & _SLOT_MASK
            if self._words[base + slot] != VACATED or base + slot in self._staged:
                return

    def _probe(self, base: int, word_hash: int, matches: Matches) -> tuple[int | None, int | None]:
        tag, slot, free = tag_of(word_hash), word_hash & _SLOT_MASK, None
        for _ in range(SEGMENT_SLOTS):
            address = base + slot
            word = self.word(address)
            if word == EMPTY:
                return None, address if free is None else free
            if word == VACATED:
                free = address if free is None else free
            elif word >> GRANULE_BITS == tag and matches((word & GRANULE_MASK) * _WORDS):
                return address, free
            slot = slot + 1 & _SLOT_MASK
        return None, free

    def _takes(self, base: int, free: int) -> bool:
        return self.word(free) == VACATED or self._used[base] < SEGMENT_USED_MAX

    # Growth

    def _make_room(self, word_hash: int) -> None:
        """Split the segment of this hash, or rebuild it if mostly vacated words fill it.

        All memory is taken before the entries are looked at: an allocation may vacate words.
        """
        base, depth = segment_at(self._words, word_hash), self._local_depth(word_hash)
        splits = len(self._entries(base)) > SEGMENT_USED_MAX // 2
        if splits and depth == self._words[ROOT_WORD] >> DEPTH_SHIFT:
            self._double()
        new = self._allocate_segments(2 if splits else 1)
        parts: list[list[_Staging]] = [[] for _ in new]
        for entry in self._entries(base):
            parts[entry[0] >> (63 - depth) & 1 if splits else 0].append(entry)
        self._replace(word_hash, base, depth, new, parts)

    def _allocate_segments(self, count: int) -> list[int]:
        new: list[int] = []
        try:
            for _ in range(count):
                new.append(self._heap.allocate(_SEGMENT_GRANULES, reserved=True))
        except StoreFull:
            for granule in new:
                self._heap.free(granule, _SEGMENT_GRANULES)
            raise
        return new

    def _entries(self, base: int) -> list[_Staging]:
        """All entries of a segment, the committed ones first: a word taken back at a takeover
        must not break the probe of a committed one."""
        entries: list[_Staging] = []
        for address in range(base, base + SEGMENT_SLOTS):
            committed, staged = self._words[address], self._staged.get(address)
            word = committed if staged is None else staged
            if word not in (EMPTY, VACATED):
                word_hash = self._rehash((word & GRANULE_MASK) * _WORDS)
                entries.append((word_hash, committed, staged))
        return sorted(entries, key=lambda entry: entry[1] in (EMPTY, VACATED))

    def _replace(
        self, word_hash: int, old: int, depth: int, new: list[int], parts: list[list[_Staging]]
    ) -> None:
        """Put one or two new segments, given as granules, in the place of an old one."""
        for address in range(old, old + SEGMENT_SLOTS):
            self._staged.pop(address, None)
            self._fresh.pop(address, None)
        for granule, entries in zip(new, parts, strict=True):
            self._build(granule * _WORDS, entries)
        self._redirect(word_hash, depth, new)
        del self._used[old]
        self._heap.retire(old // _WORDS, _SEGMENT_GRANULES)

    def _build(self, base: int, entries: list[_Staging]) -> None:
        words = [EMPTY] * SEGMENT_SLOTS
        taken = [False] * SEGMENT_SLOTS
        for word_hash, committed, staged in entries:
            slot = word_hash & _SLOT_MASK
            while taken[slot]:
                slot = slot + 1 & _SLOT_MASK
            taken[slot] = True
            if committed != VACATED:
                words[slot] = committed
            if staged is not None:
                self._staged[base + slot] = staged
                if words[slot] == EMPTY:
                    self._fresh[base + slot] = base
        self._fill(base, words)
        self._used[base] = len(entries)

    def _redirect(self, word_hash: int, depth: int, new: list[int]) -> None:
        """Store the directory words of a replaced segment, which readers follow at once. A
        takeover in the middle goes back to the old segment, which says the same."""
        root = self._words[ROOT_WORD]
        global_depth = root >> DEPTH_SHIFT
        span = 1 << (global_depth - depth)
        first = (word_hash >> (64 - global_depth)) & -span
        directory = (root & GRANULE_MASK) * _WORDS
        new_depth = depth + len(new) - 1
        for i in range(span):
            granule = new[i * len(new) // span]
            self._words[directory + first + i] = new_depth << DEPTH_SHIFT | granule

    def _double(self) -> None:
        """Give the directory twice its words; the same segments, each named twice."""
        root = self._words[ROOT_WORD]
        depth = root >> DEPTH_SHIFT
        if depth == DEPTH_MAX:
            raise CorruptSegment("the index cannot grow: its hashes are all alike")
        granule = self._heap.allocate(_directory_granules(depth + 1), reserved=True)
        doubled = [word for word in directory_words(self._words) for _ in range(2)]
        self._fill(granule * _WORDS, doubled)
        self._words[ROOT_WORD] = (depth + 1) << DEPTH_SHIFT | granule
        self._heap.retire(root & GRANULE_MASK, _directory_granules(depth))

    def _local_depth(self, word_hash: int) -> int:
        root = self._words[ROOT_WORD]
        at = (root & GRANULE_MASK) * _WORDS + (word_hash >> (64 - (root >> DEPTH_SHIFT)))
        return int(self._words[at] >> DEPTH_SHIFT)

    def _fill(self, base: int, words: list[int]) -> None:
        self._words[base : base + len(words)] = memoryview(array("Q", words))


def _directory_granules(depth: int) -> int:
    return max(1, (1 << depth) // _WORDS)
