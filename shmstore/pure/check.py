"""Every invariant of a segment, walked and stated.

For tests, for the debug writer and for ``shmstore check``. The walk needs a segment that nobody
changes meanwhile: the writer between two batches, or a reader that finds the clock unmoved.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator

from ..layout import (
    CLASS_HEAD,
    COMMITTED_WORD,
    DEAD,
    DEPTH_SHIFT,
    EMPTY,
    EXTENT_END_WORD,
    GRANULE_BITS,
    GRANULE_BYTES,
    GRANULE_MASK,
    HEAP_START,
    KEY_BYTES_MAX,
    KIND_GHOST,
    NEXT_INSERTION_WORD,
    ROOT_WORD,
    SEGMENT_SLOTS,
    VACATED,
    WORD_BYTES,
)
from .index import directory_words, index_blocks, tag_of
from .lookup import Lookup
from .order import Node, Position
from .records import (
    Damaged,
    Entry,
    entry_checksum,
    load_entry,
    load_key,
    load_sort,
    split_list_name,
)
from .recovery import header_problem

INVARIANTS = (
    "the numbers of the header fit each other and the memory",
    "each directory word and its siblings name one index segment of a fitting depth",
    "each entry is found from its home word, under its tag, and once",
    "each entry belongs to a committed batch and carries its checksum",
    "each list has as many elements as its head says, in order, and each leads to its record",
    "each record is in the list of its table and namespace",
    "no two blocks overlap, and none reaches beyond the memory",
    "every granule is in use, free, or in quarantine (asked of the writer only)",
)
_PROBLEMS_MAX = 100


def check_segment(
    memory: mmap.mmap | memoryview, unused: Iterable[tuple[int, int]] | None = None
) -> list[str]:
    """Return what is wrong, in words; nothing if all is well. ``unused`` are the blocks that the
    writer says are free or in quarantine.

    It looks with its own eyes, whichever engine wrote the segment or asks.
    """
    lookup = Lookup(memory)
    data = memoryview(memory)
    words = data.cast("Q")
    try:
        return _problems(_Check(data, words, lookup), unused)
    finally:
        words.release()
        data.release()
        lookup.close()


def _problems(check: _Check, unused: Iterable[tuple[int, int]] | None) -> list[str]:
    try:
        check.run()
        check.blocks_are_disjoint(unused)
    except (Damaged, IndexError, ValueError) as error:
        check.problems.append(f"the walk ended at damage: {error}")
    return check.problems[:_PROBLEMS_MAX]


class _Check:
    def __init__(self, data: memoryview, words: memoryview, lookup: Lookup) -> None:
        self._data = data
        self._words = words
        self._lookup = lookup
        self._committed = words[COMMITTED_WORD]
        self.problems: list[str] = []
        self._blocks: list[tuple[int, int, str]] = []
        self._records: dict[tuple[int, int], int] = {}
        self._heads: list[Entry] = []
        self._hashes: dict[int, int] = {}
        self._nodes: set[int] = set()

    def run(self) -> None:
        problem = header_problem(self._words)
        if problem:
            self._say(problem)
        self._blocks += [(start, size, "the index") for start, size in index_blocks(self._words)]
        keys: set[tuple[int, int, bytes]] = set()
        for base, first, depth in self._segments():
            for slot in range(SEGMENT_SLOTS):
                word = self._words[base + slot]
                if word not in (EMPTY, VACATED):
                    entry = load_entry(self._words, word & GRANULE_MASK)
                    self._entry(entry)
                    self._place(entry, word, base, slot, first, depth)
                    key = load_key(self._data, entry.granule * 2, entry.shape)
                    identity = entry.scope, entry.shape.key_class, key
                    if identity in keys:
                        self._say(f"the key {key!r} is in the index twice")
                    keys.add(identity)
        listed = {record for head in self._heads for record in self._list(head)}
        for scope, insertion in self._records.keys() - listed:
            self._say(f"record {insertion} of scope {scope:#x} is in no list of its table")

    def _segments(self) -> Iterator[tuple[int, int, int]]:
        """Yield (base, first directory word, local depth) of each segment."""
        directory = directory_words(self._words)
        depth = self._words[ROOT_WORD] >> DEPTH_SHIFT
        at = 0
        while at < len(directory):
            local = directory[at] >> DEPTH_SHIFT
            span = 1 << max(depth - local, 0)
            if local > depth or at % span or set(directory[at : at + span]) != {directory[at]}:
                self._say(f"directory words {at} to {at + span - 1} do not name one segment")
            yield (directory[at] & GRANULE_MASK) * 2, at, local
            at += span

    def _entry(self, entry: Entry) -> None:
        where = f"the entry at {entry.granule * GRANULE_BYTES:#x}"
        size = entry.shape.granules
        if entry.granule * GRANULE_BYTES < HEAP_START or entry.shape.key_size > KEY_BYTES_MAX:
            raise Damaged(f"{where} is no entry")
        self._blocks.append((entry.granule, size, where))
        if (entry.granule + size) * GRANULE_BYTES > self._words[EXTENT_END_WORD]:
            raise Damaged(f"{where} reaches beyond the memory")
        if entry.checksum != entry_checksum(self._words, self._data, entry):
            self._say(f"{where} does not match its checksum")
        if entry.seq > self._committed:
            self._say(f"{where} is of batch {entry.seq}, beyond {self._committed}")
        if entry.prev & DEAD:
            if entry.prev ^ DEAD > self._committed:
                self._say(f"{where} is deleted by a batch beyond {self._committed}")
        elif entry.shape.key_class == CLASS_HEAD:
            self._heads.append(entry)
        elif not entry.shape.kind & KIND_GHOST:
            self._records[entry.scope, entry.insertion] = entry.granule
            if not 0 < entry.insertion < self._words[NEXT_INSERTION_WORD]:
                self._say(f"{where} has the insertion number {entry.insertion}")

    def _place(self, entry: Entry, word: int, base: int, slot: int, first: int, depth: int) -> None:
        where = f"the entry at {entry.granule * GRANULE_BYTES:#x}"
        word_hash = self._hashes[entry.granule] = self._lookup.entry_hash(entry.granule * 2)
        if word >> GRANULE_BITS != tag_of(word_hash):
            self._say(f"{where} stands under another tag")
        global_depth = self._words[ROOT_WORD] >> DEPTH_SHIFT
        if word_hash >> (64 - depth) != first >> (global_depth - depth):
            self._say(f"{where} is in another segment than its hash says")
        at = word_hash % SEGMENT_SLOTS
        while at != slot:
            if self._words[base + at] == EMPTY:
                self._say(f"{where} cannot be reached from its home word")
                return
            at = (at + 1) % SEGMENT_SLOTS

    def _list(self, head: Entry) -> list[tuple[int, int]]:
        """Check a list; return (scope, insertion) of its records if it is a whole table's."""
        name = load_key(self._data, head.granule * 2, head.shape)
        table, namespace, index = split_list_name(name)
        count, root = self._lookup.load_head(head.granule * 2)
        what = f"the list of {table!r} in {namespace!r}" + (f" at {index!r}" if index else "")
        scope = self._lookup.scope(table, namespace)
        elements = list(self._elements(root, what))
        positions = [position for position, _ in elements]
        if count != len(positions) or not count:
            self._say(f"{what} says {count} and has {len(positions)} elements")
        if sorted(set(positions)) != positions:
            self._say(f"{what} is out of order")
        for position, word_hash in elements:
            granule = self._records.get((scope, position[1]))
            if granule is None:
                self._say(f"{what} names record {position[1]}, which is not in the index")
                continue
            if word_hash != self._hashes[granule]:
                self._say(f"{what} looks for record {position[1]} at another word")
            shape = load_entry(self._words, granule).shape
            if (load_sort(self._data, granule * 2, shape) or 0) != position[0]:
                self._say(f"{what} has record {position[1]} at another place than it says")
        return [] if index else [(scope, insertion) for _, insertion in positions]

    def _elements(self, node: Node, what: str) -> Iterator[tuple[Position, int | Node]]:
        if node.level == 0:
            yield from zip(node.positions, node.children, strict=True)
            return
        for first, child in zip(node.positions, node.children, strict=True):
            assert isinstance(child, int)
            if child in self._nodes:
                raise Damaged(f"the node at granule {child} stands in two places")
            self._nodes.add(child)
            below = Node.load(self._words, child, node)
            self._blocks.append((child, below.granules, f"a node of {what}"))
            if below.positions[0] != first:
                self._say(f"{what} has a node that does not begin where its parent says")
            yield from self._elements(below, what)

    def blocks_are_disjoint(self, unused: Iterable[tuple[int, int]] | None) -> None:
        """Check that no two blocks overlap and, with ``unused``, that none is lost."""
        blocks = self._blocks + [(start, size, "unused memory") for start, size in unused or ()]
        end, owner = HEAP_START // GRANULE_BYTES, "the header"
        for start, size, what in sorted(blocks):
            if start < end:
                self._say(f"{what} and {owner} overlap at {start * GRANULE_BYTES:#x}")
            elif start > end and unused is not None:
                lost = (start - end) * GRANULE_BYTES
                self._say(f"{lost} bytes at {end * GRANULE_BYTES:#x} belong to nobody")
            end, owner = max(end, start + size), what
        limit = self._words[EXTENT_END_WORD] // GRANULE_BYTES
        if end > limit or (unused is not None and end != limit):
            self._say(f"blocks end at {end * GRANULE_BYTES:#x}, the memory at {limit * 16:#x}")

    def _say(self, problem: str) -> None:
        self.problems.append(problem)


assert WORD_BYTES * 2 == GRANULE_BYTES
