"""The write side: what the one writer process does to the segment.

Everything is staged first. ``commit`` publishes it in the order of the protocol; ``abort`` drops
it. A writer killed in between has published nothing that its successor cannot take back.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import CorruptSegment, StoreFull
from ..layout import (
    CAPACITY_WORD,
    DEAD,
    EXTENT_END_WORD,
    FORMAT_VERSION,
    GHOST_BYTES,
    GHOST_DIVISOR,
    GHOSTS_MAX,
    GRANULE_BYTES,
    INSERTION_MASK,
    KIND_GHOST,
    KIND_SORTED,
    MAGIC,
    MAGIC_WORD,
    NEXT_INSERTION_WORD,
    SECRET_WORD,
    SECRET_WORDS,
    SEGMENT_ID_WORD,
    VERSION_WORD,
    WORD_BYTES,
)
from .check import check_segment
from .clock import Clock
from .heap import Extend, Heap
from .index import Index, segment_starts
from .lists import Lists
from .lookup import Item, Key
from .order import Position
from .pins import Pins
from .reader import Reader
from .records import (
    Entry,
    created_of,
    holder_name,
    list_name,
    load_entry,
    load_sort,
    load_value,
    sort_word,
)
from .recovery import check_header, recover
from .staging import Lead, Staging

_WORDS = GRANULE_BYTES // WORD_BYTES


class Found(NamedTuple):
    """A record as the open batch sees it."""

    version: int
    value: bytes
    insertion: int
    created: int | None


class Owner:
    """The owner of a segment; one process, one thread. Readers see its batches at ``commit``."""

    def __init__(self, memory: mmap.mmap, extend: Extend, release: Extend) -> None:
        """Attach to a formatted segment; use ``create`` or ``take_over``."""
        self.reader = Reader(memory)
        self._memory = memory
        self._data = memoryview(memory)
        self._words = self._data.cast("Q")
        self._clock = Clock(self._words)
        capacity = self.reader.capacity
        self._staging = Staging(self._data, self._words, self.reader, self._clock, extend, release)
        self._lists = Lists(self._words, self.reader, self._staging)
        self._pins = Pins(self._words, self.reader, self._staging)
        self._next_insertion: int = self._words[NEXT_INSERTION_WORD]
        self._ghosts: deque[tuple[int, int]] = deque()
        self._ghosts_max = min(GHOSTS_MAX, capacity // GHOST_DIVISOR // GHOST_BYTES)
        self._new_ghosts: list[tuple[int, int]] = []

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
            check_header(owner._words)
            owner._turn_away_readers()
            survey = recover(owner._words, owner.reader)
            owner._check_purges(survey.dead)
        except BaseException:
            owner.close()
            raise
        owner._turn_away_readers()
        owner._staging.index.adopt()
        owner._staging.heap.adopt(survey.blocks)
        owner._staging.heap.pinned.adopt(survey.pins, survey.held)
        owner._staging.heap.stamp([], survey.dead)
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
    def changes(self) -> int:
        """Steps staged in the open batch; it tells a clean failure from a half-done one."""
        return self._staging.changes

    @property
    def staged(self) -> bool:
        """Whether the open batch holds anything."""
        return self.changes > 0

    # Reading what the open batch sees

    def find(self, table: str, namespace: str, key: Key) -> Found | None:
        """Return a record, or None."""
        entry = self._staging.find(self._lead(table, namespace, key))
        if entry is None:
            return None
        value = load_value(self._words, self._data, entry.granule * _WORDS)
        sort = load_sort(self._data, entry.granule * _WORDS, entry.shape)
        return Found(entry.seq, value, entry.insertion, None if sort is None else created_of(sort))

    def touched(self, table: str, namespace: str, key: Key) -> bool:
        """Tell whether the open batch has put or removed this key."""
        return self._lead(table, namespace, key) in self._staging.touched

    def count(self, table: str, namespace: str, index: bytes = b"") -> int:
        """Return the number of records of a list."""
        return self._lists.count(list_name(table, namespace, index))

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
        name, scope = list_name(table, namespace, index), self.reader.scope(table, namespace)
        entries = self._lists.entries(name, scope, position, limit, newest_first)
        return [self.reader.load_item(entry.granule * _WORDS) for entry in entries]

    # Staging

    def stage(
        self, messages: Sequence[bytes | bytearray], count_max: int, seen: int, in_flight_max: int
    ) -> tuple[list[tuple[int, int, str, bytes]], str]:
        """Stage the first of some requests from their bytes; return (id, oldest, operation,
        answer) of each, and what the next one needs.

        That is "general" treatment; or that the batch ends first, as it holds a key of it
        ("blocked"); or that it is taken apart, as the request failed "half done"; or nothing:
        "done". This engine leaves all to the operations; the native one stages what is plain and
        cannot fail but for room: its ids lie above ``seen``.
        """
        return [], "general"

    def run(
        self,
        message: bytes | bytearray,
        table: str,
        namespace: str,
        client_id: bytes,
        answers: dict[int, bytes],
        seen: int,
        in_flight_max: int,
    ) -> tuple[bytes, dict[int, bytes], int, str, bool] | None:
        """Stage one request, put the record of its session into that place, and commit; return
        (answer, the session's answers, id, operation, whether anything changed).

        None if it must go another way, as in this engine all do. The open batch must be empty.
        """
        return None

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
        if self._next_insertion > INSERTION_MASK:
            raise StoreFull(
                f"all {INSERTION_MASK:,} insertion numbers of this store are used up; start another"
            )
        lead = self._lead(table, namespace, key)
        sort = None if created is None else sort_word(created)
        kind = lead.key_class | (0 if sort is None else KIND_SORTED)
        # The system's own records must be written even when all that is left is the reserve.
        place = self._staging.allocate(lead, kind, len(value), reserved=table == "")
        old = place.old
        was = None if old is None or old.shape.kind & KIND_GHOST else self._position(old)
        insertion = was[1] if was else self._next_insertion
        self._staging.write(place, lead, kind, insertion, sort, value)
        self._staging.touched.add(lead)
        self._next_insertion += was is None
        self._hold(len(value))
        now, width = (sort or 0, insertion), 2 if sort is None else 3
        self._lists.move(
            table, namespace, lead.word_hash, width, was, now, old_indexes, new_indexes
        )
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
        lead = self._lead(table, namespace, key)
        old = self._staging.find(lead)
        if old is None:
            return False
        was = self._position(old)
        self._lists.move(table, namespace, lead.word_hash, 2, was, None, old_indexes, ())
        self._staging.touched.add(lead)
        if not (ghost and self._leave_ghost(lead, old)):
            self._staging.kill(lead, old)
        return True

    def reindex(
        self,
        table: str,
        namespace: str,
        key: Key,
        old_indexes: Sequence[bytes],
        new_indexes: Sequence[bytes],
    ) -> None:
        """Put a record that is there into other lists; it keeps its version."""
        lead = self._lead(table, namespace, key)
        entry = self._staging.find(lead)
        assert entry is not None
        place = self._position(entry)
        width = 3 if entry.shape.kind & KIND_SORTED else 2
        self._lists.move(
            table, namespace, lead.word_hash, width, place, place, old_indexes, new_indexes
        )

    def clear(self, table: str, namespace: str, indexes: Sequence[bytes]) -> int:
        """Delete all records of a (table, namespace) and drop its lists; return their number.

        Takes no memory, and leaves no ghosts.
        """
        name, scope = list_name(table, namespace), self.reader.scope(table, namespace)
        count = self._lists.count(name)
        for old in self._lists.entries(name, scope, None, None, False):
            lead = self._staging.lead_of(old, self.reader.entry_hash(old.granule * _WORDS))
            self._staging.touched.add(lead)
            self._staging.kill(lead, old)
        if count:
            for index in (b"", *indexes):
                self._lists.drop(list_name(table, namespace, index))
        return count

    def pin(
        self, holder: bytes, table: str, namespace: str, key: Key
    ) -> tuple[int, int, int, int] | None:
        """Pin the value of a record as the open batch has it; return (granule, offset of the
        value, its size, version), or None if there is no record.

        Once committed it lies there unchanged until the holder's pin is taken away, whatever
        becomes of the record. A holder pins a value once, however often it asks. Errors:
        ``StoreFull`` only if not even the reserve is left; ``InvalidKey``.
        """
        name = holder_name(holder)
        entry = self._staging.find(self._lead(table, namespace, key))
        if entry is None:
            return None
        self._pins.add(name, entry.granule)
        start = entry.shape.value_start(entry.granule * GRANULE_BYTES)
        return entry.granule, start, entry.shape.value_size, entry.seq

    def share_pin(self, holder: bytes, granule: int) -> bool:
        """Pin, for one more holder, the value at a granule that somebody pins; False if nobody
        does. Errors: as ``pin``."""
        return self._pins.share(holder_name(holder), granule)

    def unpin(self, holder: bytes, granule: int) -> bool:
        """Take a pin away; return whether it was there. No memory is needed. Errors:
        ``InvalidKey``."""
        return self._pins.remove(holder_name(holder), granule)

    def pins(self) -> list[tuple[bytes, int, int]]:
        """Return (holder, granule, bytes of the value) of all committed pins, in order."""
        return self._pins.committed()

    def commit(self) -> int:
        """Publish the batch; return its sequence number, which is the version of what it wrote.

        Errors: ``StoreFull``, with the batch aborted and everything as before.
        """
        if not self.changes:
            return self.committed
        try:
            self._evict_ghosts()
            self._lists.seal()
        except BaseException:
            self.abort()
            raise
        self._words[NEXT_INSERTION_WORD] = self._next_insertion
        self._staging.publish()
        self._lists.begin()
        self._ghosts.extend(self._new_ghosts)
        self._new_ghosts.clear()
        self._staging.heap.give_back()
        return self.committed

    def abort(self) -> None:
        """Drop the batch."""
        self._staging.abort()
        self._lists.begin()
        self._new_ghosts.clear()
        self._next_insertion = self._words[NEXT_INSERTION_WORD]

    def settle(self) -> bool:
        """Give up some of what is held back for readers, and idle memory to the system; return
        whether there is more to give.

        For a writer that has nothing else to do: a reader that is still reading something
        deleted before begins again. The open batch must be empty.
        """
        return self._staging.heap.settle()

    def statistics(self) -> dict[str, Any]:
        """Return figures of the memory, in bytes and counts."""
        heap = self._staging.heap
        return {
            **self.reader.info(),
            "used": heap.used_granules * GRANULE_BYTES,
            "free": heap.free_granules * GRANULE_BYTES,
            "quarantine": heap.quarantine_granules * GRANULE_BYTES,
            "real": heap.real_bytes,
            "index_segments": len(segment_starts(self._words)),
            "ghosts": len(self._ghosts),
            **self._pins.statistics(),
        }

    def check(self) -> list[str]:
        """Return what is wrong with the committed segment; nothing, if all is well.

        Walks everything. The open batch must be empty.
        """
        return check_segment(self._memory, self._staging.unused_blocks())

    def _lead(self, table: str, namespace: str, key: Key) -> Lead:
        return self._staging.record_lead(self.reader.scope(table, namespace), key)

    def _position(self, entry: Entry) -> Position:
        sort = load_sort(self._data, entry.granule * _WORDS, entry.shape)
        return sort or 0, entry.insertion

    def _leave_ghost(self, lead: Lead, old: Entry) -> bool:
        """Put in the place of a record an entry that keeps its position only, if it fits."""
        if len(self._new_ghosts) >= self._ghosts_max:
            return False
        sort = load_sort(self._data, old.granule * _WORDS, old.shape)
        kind = old.shape.kind | KIND_GHOST
        try:
            place = self._staging.allocate(lead, kind, 0, reserved=True)
        except StoreFull:
            return False
        self._staging.write(place, lead, kind, old.insertion, sort, b"")
        self._new_ghosts.append((place.granule, lead.word_hash))
        return True

    def _evict_ghosts(self) -> None:
        """Delete the oldest ghosts beyond their number."""
        index = self._staging.index
        while len(self._ghosts) + len(self._new_ghosts) > self._ghosts_max and self._ghosts:
            granule, word_hash = self._ghosts.popleft()
            address = index.find_committed(word_hash, granule)
            if address is not None and not index.is_staged(address):
                old = load_entry(self._words, granule)
                if old.shape.kind & KIND_GHOST and not old.prev & DEAD:
                    self._staging.kill(self._staging.lead_of(old, word_hash), old)

    def _check_purges(self, dead: list[tuple[int, int, int]]) -> None:
        """Check that each deleted entry can be taken out of its word: one that is missed would be
        free, and its word still lead there."""
        for granule, _, word_hash in dead:
            if self._staging.index.find_committed(word_hash, granule) is None:
                raise CorruptSegment(
                    f"the segment cannot be taken over: the deleted entry at granule {granule} is "
                    "not where its hash leads"
                )

    def _turn_away_readers(self) -> None:
        """Let every reader that has begun begin again."""
        self._clock.reuse(self._clock.retire())

    def _hold(self, value_bytes: int) -> None:
        """Let the quarantine hold twice the largest value, so that readers can copy it."""
        heap = self._staging.heap
        heap.hold_bytes = max(heap.hold_bytes, 2 * value_bytes)
