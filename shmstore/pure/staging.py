"""The open batch: entries written into blocks that nothing leads to, and words to publish.

It knows keys and entries; what a table or a list is, it does not. Until ``publish`` and the
commit that follows nothing of it can be reached, and ``abort`` costs no store that matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..layout import (
    CLASS_HEAD,
    CLASS_PIN,
    DEAD,
    GRANULE_BYTES,
    GRANULE_MASK,
    KIND_GHOST,
    PIN_SCOPE,
    PREV_FIELD,
    VACATED,
    WORD_BYTES,
)
from .clock import Clock
from .heap import Extend, Heap
from .index import Index
from .lookup import Key, Lookup
from .records import Entry, Shape, load_entry, load_key, pin_key, store_entry

_WORDS = GRANULE_BYTES // WORD_BYTES


class Lead(NamedTuple):
    """What leads to an entry: the hash of its word, and what tells it from its neighbours."""

    word_hash: int
    scope: int
    key_class: int
    encoded: bytes


class Place(NamedTuple):
    """Where an entry goes: its block, the address of its word, and what the word leads to."""

    granule: int
    address: int
    old: Entry | None
    """A living record, head or ghost of the same key."""


class Staging:
    """Entries and words of the open batch, over the heap and the index."""

    def __init__(
        self,
        data: memoryview,
        words: memoryview,
        lookup: Lookup,
        clock: Clock,
        extend: Extend,
        release: Extend,
    ) -> None:
        self._data = data
        self._words = words
        self._lookup = lookup
        self._clock = clock
        self.heap = Heap(words, clock, len(data), extend, release, self._purge)
        self.index = Index(words, self.heap, lookup.entry_hash)
        self.begin()

    def begin(self) -> None:
        """Start an empty batch."""
        self.heap.growing = False
        self.changes = 0
        """Steps staged; a failure that leaves it as it was has left nothing half done."""
        self.touched: set[Lead] = set()
        self.written: dict[int, int] = {}
        """Size by start of the blocks this batch has taken."""
        self.replaced: dict[int, int] = {}
        """Size by start of the blocks, committed or pinned, that nothing will lead to."""
        self._dead: dict[int, tuple[int, int, int]] = {}

    # Finding

    def record_lead(self, scope: int, key: Key) -> Lead:
        """Return what leads to a record."""
        word_hash, key_class, encoded = self._lookup.hash_key(scope, key)
        return Lead(word_hash, scope, key_class, encoded)

    def head_lead(self, name: bytes) -> Lead:
        """Return what leads to the head of a list."""
        scope = self._lookup.list_hash(name)
        return Lead(scope, scope, CLASS_HEAD, name)

    def pin_lead(self, holder: bytes, granule: int) -> Lead:
        """Return what leads to the pin by which a holder keeps a block."""
        key = pin_key(holder, granule)
        return Lead(self._lookup.pin_hash(key), PIN_SCOPE, CLASS_PIN, key)

    def lead_of(self, entry: Entry, word_hash: int) -> Lead:
        """Return what leads to an entry at hand."""
        encoded = load_key(self._data, entry.granule * _WORDS, entry.shape)
        return Lead(word_hash, entry.scope, entry.shape.key_class, encoded)

    def find(self, lead: Lead) -> Entry | None:
        """Return the living record or head, or None."""
        address = self.index.find(lead.word_hash, self._matcher(lead))
        if address is None:
            return None
        entry = load_entry(self._words, self.index.word(address) & GRANULE_MASK)
        return None if self._is_dead(entry) or entry.shape.kind & KIND_GHOST else entry

    def find_listed(self, word_hash: int, scope: int, insertion: int) -> Entry:
        """Return the record that a list element stands for."""

        def is_it(entry: int) -> bool:
            found = load_entry(self._words, entry // _WORDS)
            return found.scope == scope and found.insertion == insertion

        address = self.index.find(word_hash, is_it)
        assert address is not None, "a list names a record that is not in the index"
        return load_entry(self._words, self.index.word(address) & GRANULE_MASK)

    # Staging

    def allocate(self, lead: Lead, kind: int, value_bytes: int, reserved: bool) -> Place:
        """Take a block for an entry, then find its word: an allocation may vacate words, and so
        comes first. Errors: ``StoreFull``."""
        size = Shape(len(lead.encoded), kind, value_bytes).granules
        granule = self.heap.allocate(size, reserved)
        self.changes += 1
        self.written[granule] = size
        address, found = self.index.locate(lead.word_hash, self._matcher(lead))
        if not found:
            return Place(granule, address, None)
        entry = load_entry(self._words, self.index.word(address) & GRANULE_MASK)
        return Place(granule, address, None if self._is_dead(entry) else entry)

    def write(
        self, place: Place, lead: Lead, kind: int, insertion: int, sort: int | None, value: bytes
    ) -> None:
        """Write the entry, stage its word, and note what becomes of the entry before it."""
        granule, address, _ = place
        before = self.index.committed_word(address)
        # A word that was vacated must become so again if the batch is taken back.
        prev = before if before <= VACATED else before & GRANULE_MASK
        sequence, shape = self._clock.committed + 1, Shape(len(lead.encoded), kind, len(value))
        entry = Entry(granule, sequence, prev, insertion, lead.scope, shape, 0)
        store_entry(self._data, entry, lead.encoded, sort, value)
        staged = self.index.word(address) & GRANULE_MASK
        self.index.stage(address, granule, lead.word_hash)
        if staged in self.written:
            self._discard(staged)
        elif prev > VACATED and not self._words[prev * _WORDS + PREV_FIELD] & DEAD:
            self._dead.pop(prev, None)
            self.replaced[prev] = load_entry(self._words, prev).shape.granules

    def kill(self, lead: Lead, old: Entry) -> None:
        """Stage the deletion of a living entry or ghost; no memory is needed."""
        self.changes += 1
        if old.granule not in self.written:
            self._dead[old.granule] = old.granule, old.shape.granules, lead.word_hash
            return
        address = self.index.find(lead.word_hash, self._matcher(lead))
        assert address is not None
        self.index.unstage(address)
        self._discard(old.granule)
        before = self.index.committed_word(address) & GRANULE_MASK
        if before in self.replaced:
            # The batch had replaced a committed entry, which is now deleted instead.
            self._dead[before] = before, self.replaced.pop(before), lead.word_hash

    # Ending

    def publish(self) -> None:
        """Steps 2 to 5: mark the dead, store the words, commit, retire what was replaced."""
        sequence = self._clock.committed + 1
        self._bury(sequence)
        self.index.publish()
        self._clock.commit(sequence)
        self.heap.stamp(list(self.replaced.items()), list(self._dead.values()))
        self.begin()

    def abort(self) -> None:
        """Drop the batch."""
        self.index.abort()
        self.heap.pinned.abort()
        for start, size in reversed(self.written.items()):
            self.heap.free(start, size)
        self.begin()

    def unused_blocks(self) -> list[tuple[int, int]]:
        """All blocks, as (start, size), that are free or wait for the horizon."""
        blocks = self.heap.free_blocks() + self.heap.quarantined()
        for dead in self.heap.deleted():
            emptied = self.index.find_committed(dead.word_hash, dead.start) is None
            if emptied and dead.start not in self.heap.pinned.counts:
                blocks.append((dead.start, dead.size))
        return blocks

    def _bury(self, sequence: int) -> None:
        """Mark the deleted entries, each over its ``prev``: a reader that began before the entry
        was written, and so needs that pointer, finds the mark and begins again."""
        for granule in self._dead:
            self._words[granule * _WORDS + PREV_FIELD] = DEAD | sequence

    def _purge(self, granule: int, word_hash: int) -> bool:
        """Empty the word of a deleted entry, if the entry is still in it."""
        address = self.index.find_committed(word_hash, granule)
        if address is None:
            return True
        if self.index.is_staged(address):
            return False
        self.index.vacate(address, word_hash)
        return True

    def _discard(self, granule: int) -> None:
        """Free a block of the open batch, which no reader can know, unless the batch pins it."""
        if self.heap.pinned.in_batch(granule):
            self.replaced[granule] = self.written[granule]
        else:
            self.heap.free(granule, self.written.pop(granule))

    def _is_dead(self, entry: Entry) -> bool:
        return bool(entry.prev & DEAD) or entry.granule in self._dead

    def _matcher(self, lead: Lead) -> Callable[[int], bool]:
        matches, scope, key_class, encoded = (self._lookup.matches, *lead[1:])
        return lambda entry: matches(entry, scope, key_class, encoded)
