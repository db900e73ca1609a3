"""The write side: what the one writer process does to the segment.

Everything is staged first: entries are written into blocks that nothing leads to, words and
lists wait in private memory. ``commit`` publishes them in the order of the protocol; ``abort``
drops them. A writer killed in between has published nothing that its successor cannot take back.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from ..errors import StoreFull
from ..layout import (
    CAPACITY_WORD,
    CLASS_HEAD,
    DEAD,
    EXTENT_END_WORD,
    FORMAT_VERSION,
    GHOST_BYTES,
    GHOST_DIVISOR,
    GHOSTS_MAX,
    GRANULE_BYTES,
    GRANULE_MASK,
    KIND_GHOST,
    KIND_SORTED,
    MAGIC,
    MAGIC_WORD,
    NEXT_INSERTION_WORD,
    PREV_FIELD,
    QUARANTINE_BYTES_MIN,
    SECRET_WORD,
    SECRET_WORDS,
    SEGMENT_ID_WORD,
    VACATED,
    VERSION_WORD,
    WORD_BYTES,
)
from .check import check_segment
from .clock import Clock
from .heap import Extend, Heap
from .index import Index, segment_starts
from .order import OrderList, Position, walk
from .reader import Item, Key, Reader
from .records import (
    Entry,
    Shape,
    created_of,
    list_name,
    load_entry,
    load_sort,
    load_value,
    sort_word,
    store_entry,
)
from .recovery import recover

_WORDS = GRANULE_BYTES // WORD_BYTES


class Found(NamedTuple):
    """A record as the open batch sees it."""

    version: int
    value: bytes
    insertion: int
    created: int | None


class _Key(NamedTuple):
    """What leads to an entry."""

    word_hash: int
    scope: int
    key_class: int
    encoded: bytes


class Owner:
    """The owner of a segment; one process, one thread. Readers see its batches at ``commit``."""

    def __init__(self, memory: mmap.mmap, extend: Extend, release: Extend) -> None:
        """Attach to a formatted segment; use ``create`` or ``take_over``."""
        self.reader = Reader(memory)
        self._data = memoryview(memory)
        self._words = self._data.cast("Q")
        self._clock = Clock(self._words)
        capacity = self.reader.capacity
        self._heap = Heap(self._words, self._clock, capacity, extend, release, self._purge)
        self._index = Index(self._words, self._heap, self.reader.entry_hash)
        self._next_insertion: int = self._words[NEXT_INSERTION_WORD]
        self._ghosts: deque[tuple[int, int]] = deque()
        self._ghosts_max = min(GHOSTS_MAX, capacity // GHOST_DIVISOR // GHOST_BYTES)
        self._clear_batch()

    @classmethod
    def create(cls, memory: mmap.mmap, extend: Extend, release: Extend) -> Owner:
        """Lay out a zeroed segment. Errors: ``StoreFull`` if not even that fits."""
        words = memoryview(memory).cast("Q")
        words[VERSION_WORD] = FORMAT_VERSION
        words[CAPACITY_WORD] = len(memory)
        random = memoryview(os.urandom(16 + SECRET_WORDS * WORD_BYTES)).cast("Q")
        words[SEGMENT_ID_WORD : SEGMENT_ID_WORD + 2] = random[:2]
        words[SECRET_WORD : SECRET_WORD + SECRET_WORDS] = random[2:]
        words[NEXT_INSERTION_WORD] = 1
        words[EXTENT_END_WORD] = 0
        clock = Clock(words)
        heap = Heap(words, clock, len(memory), extend, release, lambda start, word_hash: True)
        Index(words, heap, lambda entry: 0).create()
        # The magic comes last: a writer killed before it leaves an unformatted segment.
        words[MAGIC_WORD] = MAGIC
        return cls.take_over(memory, extend, release)

    @classmethod
    def take_over(cls, memory: mmap.mmap, extend: Extend, release: Extend) -> Owner:
        """Continue the work of a dead writer; may itself be killed and done again.

        Costs a walk over the index. Errors: ``CorruptSegment``, ``FormatMismatch``.
        """
        owner = cls(memory, extend, release)
        # Before: a death mark taken back leaves no way to older versions. After: blocks that only
        # the dead writer's words led to are free. Either way older readers begin again.
        try:
            owner._turn_away_readers()
            survey = recover(owner._words, owner.reader)
        except BaseException:
            owner.close()
            raise
        owner._turn_away_readers()
        owner._index.adopt()
        owner._heap.adopt(survey.blocks)
        owner._heap.stamp([], survey.dead)
        owner._ghosts.extend(survey.ghosts)
        owner._hold(survey.value_bytes_max)
        return owner

    def close(self) -> None:
        """Let go of the memory."""
        self.reader.close()
        self._words.release()
        self._data.release()

    @property
    def committed(self) -> int:
        """The sequence number of the last batch."""
        return self._clock.committed

    @property
    def staged(self) -> bool:
        """Whether the open batch holds anything."""
        return self.changes > 0

    # Reading what the open batch sees

    def find(self, table: str, namespace: str, key: Key) -> Found | None:
        """Return a record, or None."""
        granule = self._find(self._key(table, namespace, key))
        return None if granule is None else self._load(granule)

    def touched(self, table: str, namespace: str, key: Key) -> bool:
        """Tell whether the open batch has put or removed this key."""
        return self._key(table, namespace, key) in self._touched

    def count(self, table: str, namespace: str, index: bytes = b"") -> int:
        """Return the number of records of a list."""
        open_list = self._lists.get(list_name(table, namespace, index))
        if open_list is not None:
            return open_list.count
        return self.reader.count(table, namespace, index)

    def chunk(
        self,
        table: str,
        namespace: str,
        index: bytes,
        position: list[int] | None,
        limit: int | None,
        newest_first: bool,
    ) -> list[Item]:
        """As ``Reader.chunk``, on the open batch."""
        name = list_name(table, namespace, index)
        order = self._lists.get(name) or self._open(name)
        if order is None:
            return []
        beyond = None
        if position is not None:
            beyond = sort_word(position[0]) if order.root.width == 3 else 0, position[1]
        scope = self.reader.scope(table, namespace)
        elements = walk(order.root, order.load, beyond, newest_first)
        return [
            self.reader.load_item(self._listed(word_hash, scope, place[1]) * _WORDS)
            for place, word_hash in islice(elements, limit)
        ]

    # Staging

    def put(
        self,
        table: str,
        namespace: str,
        key: Key,
        value: bytes,
        created: int | None = None,
        old_indexes: Sequence[bytes] = (),
        new_indexes: Sequence[bytes] = (),
    ) -> tuple[int, bool]:
        """Insert or replace a record; return (version, whether it was inserted).

        A record keeps its insertion number while it lives. ``created`` must be given for all
        records of a (table, namespace) or for none. Errors: ``StoreFull``, ``InvalidKey``.
        """
        key_ = self._key(table, namespace, key)
        sort = None if created is None else sort_word(created)
        kind = key_.key_class | (0 if sort is None else KIND_SORTED)
        # The system's own records must be written even when all that is left is the reserve.
        granule, address, old = self._allocate(key_, kind, len(value), reserved=table == "")
        was = self._position(old) if old and not old.shape.kind & KIND_GHOST else None
        insertion = was[1] if was else self._next_insertion
        self._write(granule, address, key_, kind, insertion, sort, value)
        self._next_insertion += was is None
        self._touched.add(key_)
        self._hold(len(value))
        now, width = (sort or 0, insertion), 2 if sort is None else 3
        self._relist(table, namespace, key_.word_hash, width, was, now, old_indexes, new_indexes)
        return self.committed + 1, was is None

    def remove(
        self,
        table: str,
        namespace: str,
        key: Key,
        old_indexes: Sequence[bytes] = (),
        ghost: bool = False,
    ) -> bool:
        """Delete a record; return whether it was there. With ``ghost`` it leaves its position
        behind, as long as there is room, for cursors that name it. Errors: ``StoreFull`` only
        if not even the reserve is left."""
        key_ = self._key(table, namespace, key)
        granule = self._find(key_)
        if granule is None:
            return False
        old = load_entry(self._words, granule)
        position = self._position(old)
        self._relist(table, namespace, key_.word_hash, 2, position, None, old_indexes, ())
        self._touched.add(key_)
        if ghost and self._ghosts_max:
            self._leave_ghost(key_, old)
        else:
            self._kill(key_, old)
        return True

    def clear(self, table: str, namespace: str, indexes: Sequence[bytes]) -> int:
        """Delete all records of a (table, namespace) and drop its lists; return their number.

        Takes no memory, and leaves no ghosts.
        """
        name = list_name(table, namespace)
        order = self._lists.get(name) or self._open(name)
        if order is None:
            return 0
        count, scope = order.count, self.reader.scope(table, namespace)
        for position, word_hash in walk(order.root, order.load, None, False):
            old = load_entry(self._words, self._listed(word_hash, scope, position[1]))
            key = self._key_of(old, word_hash)
            self._touched.add(key)
            self._kill(key, old)
        for index in (b"", *indexes):
            self._change(list_name(table, namespace, index), 2).drop()
        return count

    def commit(self) -> int:
        """Publish the batch; return its sequence number, which is the version of what it wrote.

        Errors: ``StoreFull``, with the batch aborted and everything as before.
        """
        if not self.changes:
            return self.committed
        sequence = self.committed + 1
        try:
            self._evict_ghosts()
            self._seal_lists()
        except BaseException:
            self.abort()
            raise
        self._words[NEXT_INSERTION_WORD] = self._next_insertion
        self._bury(sequence)
        self._index.publish()
        self._clock.commit(sequence)
        self._heap.stamp(self._replaced, list(self._dead.values()))
        self._ghosts.extend(self._new_ghosts)
        self._clear_batch()
        self._heap.give_back()
        return sequence

    def abort(self) -> None:
        """Drop the batch."""
        self._index.abort()
        for start, size in reversed(self._written.items()):
            self._heap.free(start, size)
        self._next_insertion = self._words[NEXT_INSERTION_WORD]
        self._clear_batch()

    def statistics(self) -> dict[str, Any]:
        """Return figures of the memory, in bytes and counts."""
        heap = self._heap
        return {
            **self.reader.info(),
            "used": heap.used_granules * GRANULE_BYTES,
            "free": heap.free_granules * GRANULE_BYTES,
            "quarantine": heap.quarantine_granules * GRANULE_BYTES,
            "real": heap.real_bytes,
            "index_segments": len(segment_starts(self._words)),
            "ghosts": len(self._ghosts),
        }

    def check(self) -> list[str]:
        """Return what is wrong with the committed segment; nothing, if all is well.

        Walks everything. The open batch must be empty.
        """
        blocks = self._heap.free_blocks() + self._heap.quarantined()
        for dead in self._heap.deleted():
            if self._index.find_committed(dead.word_hash, dead.start) is None:
                blocks.append((dead.start, dead.size))
        return check_segment(self._data, self._words, self.reader, blocks)

    # Entries

    def _clear_batch(self) -> None:
        self.changes = 0
        """Steps staged in the open batch; it tells a clean failure from a half-done one."""
        self._lists: dict[bytes, OrderList] = {}
        self._touched: set[_Key] = set()
        self._written: dict[int, int] = {}
        self._replaced: list[tuple[int, int]] = []
        self._dead: dict[int, tuple[int, int, int]] = {}
        self._new_ghosts: list[tuple[int, int]] = []

    def _key(self, table: str, namespace: str, key: Key) -> _Key:
        scope = self.reader.scope(table, namespace)
        word_hash, key_class, encoded = self.reader.hash_key(scope, key)
        return _Key(word_hash, scope, key_class, encoded)

    def _key_of(self, entry: Entry, word_hash: int) -> _Key:
        start = entry.granule * GRANULE_BYTES + 40
        encoded = bytes(self._data[start : start + entry.shape.key_size])
        return _Key(word_hash, entry.scope, entry.shape.key_class, encoded)

    def _matches(self, key: _Key) -> Any:
        matches, scope, key_class, encoded = (self.reader.matches, *key[1:])
        return lambda entry: matches(entry, scope, key_class, encoded)

    def _find(self, key: _Key) -> int | None:
        """Return the granule of the living record of this key, or None."""
        address = self._index.find(key.word_hash, self._matches(key))
        if address is None:
            return None
        granule = self._index.word(address) & GRANULE_MASK
        entry = load_entry(self._words, granule)
        dead = entry.prev & DEAD or granule in self._dead or entry.shape.kind & KIND_GHOST
        return None if dead else granule

    def _load(self, granule: int) -> Found:
        entry = load_entry(self._words, granule)
        value = load_value(self._words, self._data, granule * _WORDS)
        sort = load_sort(self._data, granule * _WORDS, entry.shape)
        created = None if sort is None else created_of(sort)
        return Found(entry.seq, value, entry.insertion, created)

    def _place(self, key: _Key) -> tuple[int, Entry | None]:
        """Return the address of the word for a key, and the living entry or ghost in it."""
        address, found = self._index.locate(key.word_hash, self._matches(key))
        if not found:
            return address, None
        entry = load_entry(self._words, self._index.word(address) & GRANULE_MASK)
        dead = entry.prev & DEAD or entry.granule in self._dead
        return address, None if dead else entry

    def _allocate(
        self, key: _Key, kind: int, value_bytes: int, reserved: bool
    ) -> tuple[int, int, Entry | None]:
        """Return a block for an entry, the address of its word, and what ``_place`` finds there.

        In this order, as an allocation may vacate words.
        """
        size = Shape(len(key.encoded), kind, value_bytes).granules
        granule = self._heap.allocate(size, reserved)
        self.changes += 1
        self._written[granule] = size
        return granule, *self._place(key)

    def _write(
        self,
        granule: int,
        address: int,
        key: _Key,
        kind: int,
        insertion: int,
        sort: int | None,
        value: bytes,
    ) -> None:
        """Write an entry, stage its word, and note what becomes of the entry before it."""
        before = self._index.committed_word(address)
        # A word that was vacated must become so again if the batch is taken back.
        prev = before if before <= VACATED else before & GRANULE_MASK
        sequence, shape = self.committed + 1, Shape(len(key.encoded), kind, len(value))
        store_entry(
            self._data,
            granule,
            sequence,
            prev,
            insertion,
            key.scope,
            shape,
            key.encoded,
            sort,
            value,
        )
        staged = self._index.word(address) & GRANULE_MASK
        self._index.stage(address, granule, key.word_hash)
        if staged in self._written:
            self._discard(staged)
        elif prev > VACATED and not self._words[prev * _WORDS + PREV_FIELD] & DEAD:
            self._dead.pop(prev, None)
            self._replaced.append((prev, load_entry(self._words, prev).shape.granules))

    def _kill(self, key: _Key, old: Entry) -> None:
        """Stage the deletion of a living entry or ghost: no memory is needed."""
        self.changes += 1
        if old.granule not in self._written:
            self._dead[old.granule] = old.granule, old.shape.granules, key.word_hash
            return
        address = self._index.find(key.word_hash, self._matches(key))
        assert address is not None
        self._index.unstage(address)
        self._discard(old.granule)
        before = self._index.committed_word(address)
        if before > VACATED:
            # The batch had replaced a committed entry, which is now deleted instead.
            entry = load_entry(self._words, before & GRANULE_MASK)
            if not entry.prev & DEAD:
                self._replaced.remove((entry.granule, entry.shape.granules))
                self._dead[entry.granule] = entry.granule, entry.shape.granules, key.word_hash

    def _discard(self, granule: int) -> None:
        """Free a block of the open batch, which no reader can know."""
        self._heap.free(granule, self._written.pop(granule))

    def _turn_away_readers(self) -> None:
        """Let every reader that has begun begin again."""
        self._clock.reuse(self._clock.retire())

    def _bury(self, sequence: int) -> None:
        """Mark the deleted entries, each over its ``prev``: a reader that began before the entry
        was written, and so needs that pointer, finds the mark and begins again."""
        for granule in self._dead:
            self._words[granule * _WORDS + PREV_FIELD] = DEAD | sequence

    def _purge(self, granule: int, word_hash: int) -> bool:
        """Empty the word of a deleted entry, if the entry is still in it."""
        address = self._index.find_committed(word_hash, granule)
        if address is None:
            return True
        if self._index.is_staged(address):
            return False
        self._index.vacate(address, word_hash)
        return True

    # Ghosts

    def _leave_ghost(self, key: _Key, old: Entry) -> None:
        """Put in the place of a record an entry that keeps its position only; or, when memory is
        short, nothing."""
        sort = load_sort(self._data, old.granule * _WORDS, old.shape)
        kind = old.shape.kind | KIND_GHOST
        try:
            granule, address, _ = self._allocate(key, kind, 0, reserved=True)
        except StoreFull:
            self._kill(key, old)
            return
        self._write(granule, address, key, kind, old.insertion, sort, b"")
        self._new_ghosts.append((granule, key.word_hash))

    def _evict_ghosts(self) -> None:
        """Delete the oldest ghosts beyond their number."""
        while len(self._ghosts) + len(self._new_ghosts) > self._ghosts_max and self._ghosts:
            granule, word_hash = self._ghosts.popleft()
            address = self._index.find_committed(word_hash, granule)
            if address is not None and not self._index.is_staged(address):
                old = load_entry(self._words, granule)
                if old.shape.kind & KIND_GHOST and not old.prev & DEAD:
                    self._kill(self._key_of(old, word_hash), old)

    # Lists

    def _position(self, entry: Entry) -> Position:
        sort = load_sort(self._data, entry.granule * _WORDS, entry.shape)
        return sort or 0, entry.insertion

    def _listed(self, word_hash: int, scope: int, insertion: int) -> int:
        """Return the granule of the record a list element stands for, in the open batch."""

        def is_it(entry: int) -> bool:
            found = load_entry(self._words, entry // _WORDS)
            return found.scope == scope and found.insertion == insertion

        address = self._index.find(word_hash, is_it)
        assert address is not None, "a list names a record that is not in the index"
        return self._index.word(address) & GRANULE_MASK

    def _relist(
        self,
        table: str,
        namespace: str,
        word_hash: int,
        width: int,
        was: Position | None,
        now: Position | None,
        old_indexes: Sequence[bytes],
        new_indexes: Sequence[bytes],
    ) -> None:
        """Move a record from its old place in its lists to its new one."""
        before = [(index, was) for index in (b"", *old_indexes)] if was else []
        after = [(index, now) for index in (b"", *new_indexes)] if now else []
        for index, position in before:
            if (index, position) not in after:
                self._change(list_name(table, namespace, index), width).remove(position)
        for index, position in after:
            if (index, position) not in before:
                order = self._change(list_name(table, namespace, index), width)
                order.insert(position, word_hash)

    def _change(self, name: bytes, width: int) -> OrderList:
        """Return a list for the batch to change."""
        self.changes += 1
        order = self._lists.get(name)
        if order is None:
            order = self._open(name) or OrderList.empty(self._words, width)
            self._lists[name] = order
        elif not order.count:
            order.root.width = width
        return order

    def _open(self, name: bytes) -> OrderList | None:
        granule = self._find(self._head_key(name))
        if granule is None:
            return None
        count, root = self.reader.load_head(granule * _WORDS)
        return OrderList(self._words, root, count)

    def _head_key(self, name: bytes) -> _Key:
        scope = self.reader.list_hash(name)
        return _Key(scope, scope, CLASS_HEAD, name)

    def _seal_lists(self) -> None:
        """Write the changed lists and their heads."""
        for name, order in self._lists.items():
            key = self._head_key(name)
            self._replaced += order.replaced
            if not order.count:
                granule = self._find(key)
                if granule is not None:
                    self._kill(key, load_entry(self._words, granule))
                continue
            written: list[tuple[int, int]] = []
            try:
                root = order.seal(self._heap, written)
            finally:
                self._written.update(written)
            value = array("Q", [order.count, *root]).tobytes()
            granule, address, _ = self._allocate(key, CLASS_HEAD, len(value), reserved=True)
            self._write(granule, address, key, CLASS_HEAD, 0, None, value)

    def _hold(self, value_bytes: int) -> None:
        """Let the quarantine hold twice the largest value, so that readers can copy it."""
        hold = max(QUARANTINE_BYTES_MIN, 2 * value_bytes)
        self._heap.hold_bytes = max(self._heap.hold_bytes, hold)
