"""Taking over the segment of a dead writer.

What the dead writer committed stays; what it began is taken back: words that lead to entries of
a later batch, death marks of one, and a half-replaced index segment. All else that nothing leads
to is free. Every store here may be the last one before another kill: doing it all again from the
start ends in the same state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter

from ..errors import CorruptSegment
from ..layout import (
    ALIGNED_VALUE_BYTES_MIN,
    CLASS_BYTES,
    CLASS_HEAD,
    CLASS_PIN,
    CLASS_STR,
    COMMITTED_WORD,
    DEAD,
    DEPTH_SHIFT,
    ENTRY_HEADER_BYTES,
    EXTENT_END_WORD,
    FREE_CLOCK_WORD,
    GRANULE_BITS,
    GRANULE_BYTES,
    GRANULE_MASK,
    HEAP_START,
    HORIZON_WORD,
    INSERTION_MASK,
    KEY_SIZE_SHIFT,
    KIND_GHOST,
    KIND_MASK,
    KIND_SHIFT,
    KIND_SORTED,
    NEXT_INSERTION_WORD,
    PREV_FIELD,
    ROOT_WORD,
    SEGMENT_SLOTS,
    SHAPE_FIELD,
    SORT_WORD_BYTES,
    VACATED,
    WORD_BYTES,
)
from .clock import Clock
from .index import directory_words, index_blocks, segment_starts
from .lookup import Lookup
from .order import Node
from .records import Damaged, Entry, load_entry

_WORDS = GRANULE_BYTES // WORD_BYTES
_NUMBER_MAX = 1 << 62
_PLAIN_FIELDS = SHAPE_FIELD + 1
_PLAIN_HEADERS = {
    key_class | order: ENTRY_HEADER_BYTES + bool(order) * SORT_WORD_BYTES
    for key_class in (CLASS_STR, CLASS_BYTES)
    for order in (0, KIND_SORTED)
}
"""Bytes before the key's end, without the key, by the kind of a record."""


@dataclass
class Survey:
    """What a takeover found."""

    blocks: list[tuple[int, int]] = field(default_factory=list)
    """The (start, size) of every block in use, in granules."""
    dead: list[tuple[int, int, int]] = field(default_factory=list)
    """(start, size, word hash) of the deleted entries that are still in their words."""
    pins: list[tuple[int, int]] = field(default_factory=list)
    """(entry, pinned block) of each pin."""
    held: list[tuple[int, int]] = field(default_factory=list)
    """The (start, size) of the blocks in use to which nothing but pins leads."""
    ghosts: list[tuple[int, int]] = field(default_factory=list)
    """(start, word hash) of the ghosts, oldest first."""
    value_bytes_max: int = 0


def check_header(words: memoryview) -> None:
    """Check that the numbers of the header fit each other and the memory. Errors:
    ``CorruptSegment``."""
    problem = header_problem(words)
    if problem:
        raise CorruptSegment(f"the segment cannot be taken over: {problem}")


def header_problem(words: memoryview) -> str | None:
    """Return what is wrong with the numbers of the header, or None."""
    if words[HORIZON_WORD] > words[FREE_CLOCK_WORD]:
        return "the horizon is ahead of the free clock"
    if max(words[FREE_CLOCK_WORD], words[COMMITTED_WORD]) > _NUMBER_MAX:
        return "the free clock or the committed sequence is beyond all that can have happened"
    if not 0 < words[NEXT_INSERTION_WORD] <= INSERTION_MASK + 1:
        return f"the next insertion number is {words[NEXT_INSERTION_WORD]}"
    end = words[EXTENT_END_WORD]
    if not HEAP_START <= end <= len(words) * WORD_BYTES or end % GRANULE_BYTES:
        return f"the memory ends at {end:#x}"
    return None


def recover(words: memoryview, lookup: Lookup) -> Survey:
    """Take back what was not committed; return what is in use. Errors: ``CorruptSegment``."""
    try:
        return _Recovery(words, lookup).run()
    except (Damaged, IndexError) as error:
        raise CorruptSegment(f"the segment cannot be taken over: {error}") from error


class _Recovery:
    def __init__(self, words: memoryview, lookup: Lookup) -> None:
        self._words = words
        self._lookup = lookup
        self._committed = Clock(words).committed
        self._limit = words[EXTENT_END_WORD] // GRANULE_BYTES
        self._next_insertion = words[NEXT_INSERTION_WORD]
        self._survey = Survey()
        self._nodes: set[int] = set()
        self._ghosts: list[tuple[int, int, int]] = []

    def run(self) -> Survey:
        _mend_directory(self._words)
        for base in segment_starts(self._words):
            for address in range(base, base + SEGMENT_SLOTS):
                word = self._words[address]
                if word > VACATED and not self._note_plain(word & GRANULE_MASK):
                    self._take_back(address)
                    word = self._words[address]
                    if word > VACATED:
                        self._note(load_entry(self._words, word & GRANULE_MASK))
        if self._survey.pins:
            self._note_pinned()
        self._survey.blocks += index_blocks(self._words)
        self._check_blocks()
        self._survey.ghosts = [(start, word_hash) for _, start, word_hash in sorted(self._ghosts)]
        return self._survey

    def _note_plain(self, granule: int) -> bool:
        """Note a committed, living record of modest size, as most are; False for what may not be
        one, which has to be looked at closely."""
        at = granule * _WORDS
        fields = self._words[at : at + _PLAIN_FIELDS].tolist()
        if len(fields) < _PLAIN_FIELDS:
            return False
        sizes, seq, prev, shape = fields
        value_size = sizes & 0xFFFFFFFF
        header_bytes = _PLAIN_HEADERS.get(shape >> KIND_SHIFT & KIND_MASK)
        if header_bytes is None or value_size >= ALIGNED_VALUE_BYTES_MIN:
            return False
        size = -(-(header_bytes + (shape >> KEY_SIZE_SHIFT) + value_size) // GRANULE_BYTES)
        if (
            seq > self._committed
            or prev & DEAD
            or granule + size > self._limit
            or not 0 < shape & INSERTION_MASK < self._next_insertion
        ):
            return False
        self._survey.blocks.append((granule, size))
        self._survey.value_bytes_max = max(self._survey.value_bytes_max, value_size)
        return True

    def _take_back(self, address: int) -> None:
        """Give a word back what it held when the last batch was committed."""
        word = self._words[address]
        if word <= VACATED:
            return
        entry = load_entry(self._words, word & GRANULE_MASK)
        if entry.seq > self._committed:
            if entry.seq > self._committed + 1 or entry.prev & DEAD:
                raise Damaged(f"the entry at granule {entry.granule} is of no batch there was")
            tag = word >> GRANULE_BITS << GRANULE_BITS
            self._words[address] = entry.prev if entry.prev <= VACATED else tag | entry.prev
            if entry.prev <= VACATED:
                return
            entry = load_entry(self._words, entry.prev)
            if entry.seq > self._committed:
                raise Damaged(f"the entry at granule {entry.granule} is as new as its successor")
        if entry.prev & DEAD and entry.prev ^ DEAD > self._committed:
            # The version this entry replaced is long out of reach of every reader.
            self._words[entry.granule * _WORDS + PREV_FIELD] = 0

    def _note(self, entry: Entry) -> None:
        size = entry.shape.granules
        if entry.granule + size > self._limit:
            raise Damaged(f"the entry at granule {entry.granule} reaches beyond the memory")
        if not entry.shape.is_known:
            raise Damaged(f"the entry at granule {entry.granule} is of no kind there is")
        self._survey.blocks.append((entry.granule, size))
        self._survey.value_bytes_max = max(self._survey.value_bytes_max, entry.shape.value_size)
        if entry.prev & DEAD:
            word_hash = self._lookup.entry_hash(entry.granule * _WORDS)
            self._survey.dead.append((entry.granule, size, word_hash))
        elif entry.shape.kind & KIND_GHOST:
            word_hash = self._lookup.entry_hash(entry.granule * _WORDS)
            self._ghosts.append((entry.seq, entry.granule, word_hash))
        elif entry.shape.key_class == CLASS_HEAD:
            _, root = self._lookup.load_head(entry.granule * _WORDS)
            self._note_nodes(root)
        elif entry.shape.key_class == CLASS_PIN:
            _, granule = self._lookup.load_pin(entry.granule * _WORDS)
            self._survey.pins.append((entry.granule, granule))
        elif not 0 < entry.insertion < self._next_insertion:
            raise Damaged(f"the entry at granule {entry.granule} was never inserted")

    def _note_nodes(self, node: Node) -> None:
        if not node.level:
            return
        for child in node.children:
            assert isinstance(child, int)
            if child in self._nodes:
                raise Damaged(f"the node at granule {child} stands in two places")
            self._nodes.add(child)
            below = Node.load(self._words, child, node)
            self._survey.blocks.append((child, below.granules))
            self._note_nodes(below)

    def _note_pinned(self) -> None:
        """Note the blocks to which nothing but pins leads."""
        pinned = dict.fromkeys(granule for _, granule in self._survey.pins)
        reached = {start for start, _ in self._survey.blocks if start in pinned}
        for granule in pinned:
            entry = load_entry(self._words, granule)
            if (
                not entry.shape.is_record
                or granule in self._nodes
                or entry.seq > self._committed
                or (entry.prev & DEAD and entry.prev ^ DEAD > self._committed)
                or not 0 < entry.insertion < self._next_insertion
            ):
                raise Damaged(f"a pin names granule {granule}, where no record is")
            if granule not in reached:
                self._survey.held.append((granule, entry.shape.granules))
        self._survey.blocks += self._survey.held

    def _check_blocks(self) -> None:
        """Two blocks that overlap would let one be overwritten by what is taken for free."""
        end = HEAP_START // GRANULE_BYTES
        self._survey.blocks.sort(key=itemgetter(0))
        for start, size in self._survey.blocks:
            if start < end:
                raise Damaged(f"two blocks overlap at granule {start}")
            end = start + size
        if end > self._limit:
            raise Damaged(f"a block ends at granule {end}, the memory at {self._limit}")


def _mend_directory(words: memoryview) -> None:
    """Undo a replacement of an index segment that was cut off: until every directory word of the
    old one is stored, the old one, which has the smaller depth, says the same and governs.

    A segment that stands in two places is damage: each of them would give up its block."""
    root, count = words[ROOT_WORD], len(directory_words(words))
    start, depth = (root & GRANULE_MASK) * _WORDS, root >> DEPTH_SHIFT
    met: set[int] = set()
    at = 0
    while at < count:
        first, span = _span(words[start + at], at, depth)
        inside = words[start + first : start + first + span].tolist()
        governing = min(inside, key=lambda word: word >> DEPTH_SHIFT)
        first, span = _span(governing, at, depth)
        if governing & GRANULE_MASK in met:
            raise Damaged(f"directory word {at} names a segment that others name, too")
        met.add(governing & GRANULE_MASK)
        for i in range(first, first + span):
            if words[start + i] != governing:
                words[start + i] = governing
        at = first + span


def _span(word: int, at: int, depth: int) -> tuple[int, int]:
    """Return (first, count) of the directory words that a segment named at ``at`` fills."""
    local = word >> DEPTH_SHIFT
    if local > depth:
        raise Damaged(f"a directory word names depth {local} under a directory of depth {depth}")
    span = 1 << (depth - local)
    return at & -span, span
