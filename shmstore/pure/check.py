"""Every invariant of a segment, walked and stated.

For tests, for the debug writer and for ``shmstore check``. The walk needs a segment that nobody
changes meanwhile: the writer between two batches, or a reader that finds the clock unmoved. No
damage makes it endless: it stops where blocks are larger together than the memory.

Its twin is ``native/check.h``: the same problems, in the same words and order.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator

from ..layout import (
    CLASS_HEAD,
    CLASS_PIN,
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
    "each pin names a record, be it replaced or deleted since, and that is whole",
    "no two blocks overlap, and none reaches beyond the memory",
    "every granule is in use, free, or in quarantine (asked of the writer only)",
)
_PROBLEMS_MAX = 100
_SHOWN_BYTES_MAX = 40
_OF_INDEX, _OF_ENTRY, _UNUSED, _HEADER = range(4)
"""Whose a block is; any other number is the granule of a list's head, and the block a node."""


def check_segment(
    memory: mmap.mmap | memoryview, unused: Iterable[tuple[int, int]] | None = None
) -> list[str]:
    """Return what is wrong, in words; nothing if all is well. ``unused`` are the blocks that the
    writer says are free or in quarantine."""
    data = memoryview(memory)
    if data.nbytes < HEAP_START or data.nbytes % GRANULE_BYTES:
        data.release()
        return ["the memory has not the size of a segment"]
    lookup = Lookup(memory)
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
    except Damaged as error:
        check.problems.append(f"the walk ended at damage: {error}")
    return check.problems[:_PROBLEMS_MAX]


def _shown(name: bytes) -> str:
    """Return the beginning of a name, quoted, in letters that both engines have."""
    letters = (
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in name[:_SHOWN_BYTES_MAX]
    )
    return f"'{''.join(letters)}'" + ("..." if len(name) > _SHOWN_BYTES_MAX else "")


class _Check:
    def __init__(self, data: memoryview, words: memoryview, lookup: Lookup) -> None:
        self._data = data
        self._words = words
        self._lookup = lookup
        self._committed = words[COMMITTED_WORD]
        self._limit = min(words[EXTENT_END_WORD], data.nbytes)
        self._left = data.nbytes // GRANULE_BYTES
        self.problems: list[str] = []
        self._blocks: list[tuple[int, int, int]] = []
        self._records: dict[tuple[int, int], int] = {}
        self._listed: set[tuple[int, int]] = set()
        self._heads: list[Entry] = []
        self._pins: list[Entry] = []
        self._hashes: dict[int, int] = {}
        self._nodes: set[int] = set()
        self._held: set[int] = set()

    def run(self) -> None:
        problem = header_problem(self._words)
        if problem:
            self._say(problem)
        for start, size in index_blocks(self._words):
            self._block(start, size, _OF_INDEX)
        for base, first, depth in self._segments():
            self._segment(base, first, depth)
        for head in self._heads:
            self._list(head)
        for scope, insertion in self._records:
            if (scope, insertion) not in self._listed:
                self._say(f"record {insertion} of scope {scope:#x} is in no list of its table")
        for pin in self._pins:
            self._pin(pin)

    def _block(self, start: int, size: int, owner: int) -> None:
        """Note a block. All together are no larger than the memory, so the walk ends in time."""
        self._left -= size
        if self._left < 0:
            raise Damaged("the blocks are larger together than the memory")
        self._blocks.append((start, size, owner))

    def _segments(self) -> Iterator[tuple[int, int, int]]:
        """Yield (base, first directory word, local depth) of each segment."""
        directory = directory_words(self._words)
        depth = self._words[ROOT_WORD] >> DEPTH_SHIFT
        met: set[int] = set()
        at = 0
        while at < len(directory):
            local, granule = directory[at] >> DEPTH_SHIFT, directory[at] & GRANULE_MASK
            span = 1 << max(depth - local, 0)
            if local > depth or at % span or set(directory[at : at + span]) != {directory[at]}:
                self._say(f"directory words {at} to {at + span - 1} do not name one segment")
            if granule in met:
                self._say(f"directory word {at} names a segment that others name, too")
            else:
                met.add(granule)
                yield granule * 2, at, min(local, depth)
            at += span

    def _segment(self, base: int, first: int, depth: int) -> None:
        if base + SEGMENT_SLOTS > len(self._words):
            raise Damaged("an index segment reaches out of the memory")
        # Equal keys have equal hashes: they are in one segment, or not where their hashes say.
        keys: dict[tuple[int, int, bytes], int] = {}
        for slot in range(SEGMENT_SLOTS):
            word = self._words[base + slot]
            if word > VACATED:
                entry = load_entry(self._words, word & GRANULE_MASK)
                self._entry(entry)
                self._place(entry, word, base, slot, first, depth)
                key = load_key(self._data, entry.granule * 2, entry.shape)
                identity = entry.scope, entry.shape.key_class, key
                if identity in keys:
                    other = keys[identity] * GRANULE_BYTES
                    self._say(f"{_at(entry)} has the key of the one at {other:#x}")
                else:
                    keys[identity] = entry.granule

    def _entry(self, entry: Entry) -> None:
        self._body(entry)
        if entry.prev & DEAD:
            return
        if entry.shape.key_class == CLASS_HEAD:
            self._heads.append(entry)
        elif entry.shape.key_class == CLASS_PIN:
            self._pins.append(entry)
        elif not entry.shape.kind & KIND_GHOST:
            self._insertion(entry)
            other = self._records.setdefault((entry.scope, entry.insertion), entry.granule)
            if other != entry.granule:
                self._say(f"{_at(entry)} has the place in its list of the one at {other * 16:#x}")

    def _body(self, entry: Entry) -> None:
        where, size = _at(entry), entry.shape.granules
        if entry.granule * GRANULE_BYTES < HEAP_START or entry.shape.key_size > KEY_BYTES_MAX:
            raise Damaged(f"{where} is no entry")
        if (entry.granule + size) * GRANULE_BYTES > self._limit:
            raise Damaged(f"{where} reaches beyond the memory")
        if not entry.shape.is_known:
            raise Damaged(f"{where} is of no kind there is")
        self._block(entry.granule, size, _OF_ENTRY)
        if entry.checksum != entry_checksum(self._words, self._data, entry):
            self._say(f"{where} does not match its checksum")
        if entry.seq > self._committed:
            self._say(f"{where} is of batch {entry.seq}, beyond {self._committed}")
        if entry.prev & DEAD and entry.prev ^ DEAD > self._committed:
            self._say(f"{where} is deleted by a batch beyond {self._committed}")

    def _insertion(self, entry: Entry) -> None:
        if not 0 < entry.insertion < self._words[NEXT_INSERTION_WORD]:
            self._say(f"{_at(entry)} has the insertion number {entry.insertion}")

    def _place(self, entry: Entry, word: int, base: int, slot: int, first: int, depth: int) -> None:
        where = _at(entry)
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

    def _list(self, head: Entry) -> None:
        what = self._name_of(head.granule)
        name = load_key(self._data, head.granule * 2, head.shape)
        _, _, index = split_list_name(name)
        if self._lookup.list_hash(name) != head.scope:
            self._say(f"{what} has another hash than its name")
        scope = self._lookup.list_hash(name[: len(name) - len(index)])
        count, root = self._lookup.load_head(head.granule * 2)
        elements = list(self._elements(root, head.granule))
        positions = [position for position, _ in elements]
        if count != len(positions) or not count:
            self._say(f"{what} says {count} and has {len(positions)} elements")
        if sorted(set(positions)) != positions:
            self._say(f"{what} is out of order")
        for position, word_hash in elements:
            self._element(what, scope, position, word_hash)
        if not index:
            self._listed.update((scope, insertion) for _, insertion in positions)

    def _element(self, what: str, scope: int, position: Position, word_hash: int | Node) -> None:
        sort, insertion = position
        granule = self._records.get((scope, insertion))
        if granule is None:
            self._say(f"{what} names record {insertion}, which is not in the index")
            return
        if word_hash != self._hashes[granule]:
            self._say(f"{what} looks for record {insertion} at another word")
        shape = load_entry(self._words, granule).shape
        if (load_sort(self._data, granule * 2, shape) or 0) != sort:
            self._say(f"{what} has record {insertion} at another place than it says")

    def _elements(self, node: Node, head: int) -> Iterator[tuple[Position, int | Node]]:
        if node.level == 0:
            yield from zip(node.positions, node.children, strict=True)
            return
        for first, child in zip(node.positions, node.children, strict=True):
            assert isinstance(child, int)
            if child in self._nodes:
                raise Damaged(f"the node at granule {child} stands in two places")
            self._nodes.add(child)
            below = Node.load(self._words, child, node)
            self._block(child, below.granules, head)
            if below.positions[0] != first:
                self._say(
                    f"{self._name_of(head)} has a node that does not begin where its parent says"
                )
            yield from self._elements(below, head)

    def _pin(self, pin: Entry) -> None:
        _, granule = self._lookup.load_pin(pin.granule * 2)
        entry = load_entry(self._words, granule)
        if granule not in self._hashes and granule not in self._held:
            self._held.add(granule)
            self._body(entry)
            self._insertion(entry)
        if not entry.shape.is_record:
            self._say(f"{_at(pin)} pins {_at(entry)}, which is no record")

    def blocks_are_disjoint(self, unused: Iterable[tuple[int, int]] | None) -> None:
        """Check that no two blocks overlap and, with ``unused``, that none is lost."""
        blocks = self._blocks + [(start, size, _UNUSED) for start, size in unused or ()]
        last = 0, HEAP_START // GRANULE_BYTES, _HEADER
        end = last[1]
        for block in sorted(blocks):
            start, size, _ = block
            if start < end:
                names = f"{self._name_of_block(block)} and {self._name_of_block(last)}"
                self._say(f"{names} overlap at {start * GRANULE_BYTES:#x}")
            elif start > end and unused is not None:
                lost = (start - end) * GRANULE_BYTES
                self._say(f"{lost} bytes at {end * GRANULE_BYTES:#x} belong to nobody")
            end, last = max(end, start + size), block
        limit = self._words[EXTENT_END_WORD] // GRANULE_BYTES
        if end > limit or (unused is not None and end != limit):
            self._say(f"blocks end at {end * GRANULE_BYTES:#x}, the memory at {limit * 16:#x}")

    def _name_of(self, head: int) -> str:
        """Return what to call the list with this head. Errors: ``Damaged``."""
        entry = load_entry(self._words, head)
        name = load_key(self._data, head * 2, entry.shape)
        table, namespace, index = split_list_name(name)
        words = f"the list of {_shown(table)} in {_shown(namespace)}"
        return words + (f" at {_shown(index)}" if index else "")

    def _name_of_block(self, block: tuple[int, int, int]) -> str:
        start, _, owner = block
        names = {
            _OF_INDEX: "the index",
            _OF_ENTRY: f"the entry at {start * GRANULE_BYTES:#x}",
            _UNUSED: "unused memory",
            _HEADER: "the header",
        }
        return names[owner] if owner in names else f"a node of {self._name_of(owner)}"

    def _say(self, problem: str) -> None:
        self.problems.append(problem)


def _at(entry: Entry) -> str:
    return f"the entry at {entry.granule * GRANULE_BYTES:#x}"


assert WORD_BYTES * 2 == GRANULE_BYTES
