"""Taking over the segment of a dead writer.

What the dead writer committed stays; what it began is taken back: words that lead to entries of
a later batch, death marks of one, and a half-replaced index segment. All else that nothing leads
to is free. Every store here may be the last one before another kill: doing it all again from the
start ends in the same state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import CorruptSegment
from ..layout import (
    CLASS_HEAD,
    DEAD,
    DEPTH_SHIFT,
    EXTENT_END_WORD,
    GRANULE_BITS,
    GRANULE_BYTES,
    GRANULE_MASK,
    KIND_GHOST,
    PREV_FIELD,
    ROOT_WORD,
    SEGMENT_SLOTS,
    VACATED,
    WORD_BYTES,
)
from .clock import Clock
from .index import index_blocks, segment_starts
from .lookup import Lookup
from .order import Node
from .records import Damaged, Entry, load_entry

_WORDS = GRANULE_BYTES // WORD_BYTES


@dataclass
class Survey:
    """What a takeover found."""

    blocks: list[tuple[int, int]] = field(default_factory=list)
    """The (start, size) of every block in use, in granules."""
    dead: list[tuple[int, int, int]] = field(default_factory=list)
    """(start, size, word hash) of the deleted entries that are still in their words."""
    ghosts: list[tuple[int, int]] = field(default_factory=list)
    """(start, word hash) of the ghosts, oldest first."""
    value_bytes_max: int = 0


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
        self._survey = Survey()
        self._ghosts: list[tuple[int, int, int]] = []

    def run(self) -> Survey:
        _mend_directory(self._words)
        for base in segment_starts(self._words):
            for address in range(base, base + SEGMENT_SLOTS):
                self._take_back(address)
                word = self._words[address]
                if word > VACATED:
                    self._note(load_entry(self._words, word & GRANULE_MASK))
        self._survey.blocks += index_blocks(self._words)
        self._survey.ghosts = [(start, word_hash) for _, start, word_hash in sorted(self._ghosts)]
        return self._survey

    def _take_back(self, address: int) -> None:
        """Give a word back what it held when the last batch was committed."""
        word = self._words[address]
        while word > VACATED:
            entry = load_entry(self._words, word & GRANULE_MASK)
            if entry.seq <= self._committed:
                break
            if entry.prev & DEAD:
                raise Damaged(f"an uncommitted entry at granule {entry.granule} is marked deleted")
            word = entry.prev
            if word > VACATED:
                word |= self._words[address] >> GRANULE_BITS << GRANULE_BITS
        if word != self._words[address]:
            self._words[address] = word
        if word > VACATED and entry.prev & DEAD and entry.prev ^ DEAD > self._committed:
            # The version this entry replaced is long out of reach of every reader.
            self._words[entry.granule * _WORDS + PREV_FIELD] = 0

    def _note(self, entry: Entry) -> None:
        size = entry.shape.granules
        if entry.granule + size > self._limit:
            raise Damaged(f"the entry at granule {entry.granule} reaches beyond the memory")
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

    def _note_nodes(self, node: Node) -> None:
        if not node.level:
            return
        for child in node.children:
            assert isinstance(child, int)
            below = Node.load(self._words, child, node)
            self._survey.blocks.append((child, below.granules))
            self._note_nodes(below)


def _mend_directory(words: memoryview) -> None:
    """Undo a replacement of an index segment that was cut off: until every directory word of the
    old one is stored, the old one, which has the smaller depth, says the same and governs."""
    root = words[ROOT_WORD]
    start, depth = (root & GRANULE_MASK) * _WORDS, root >> DEPTH_SHIFT
    at = 0
    while at < 1 << depth:
        first, span = _span(words[start + at], at, depth)
        inside = words[start + first : start + first + span].tolist()
        governing = min(inside, key=lambda word: word >> DEPTH_SHIFT)
        first, span = _span(governing, at, depth)
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
