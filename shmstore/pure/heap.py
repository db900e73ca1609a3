"""The memory of the segment: free blocks, growth, and the quarantine of blocks just given up.

Private to the writer and rebuilt at takeover from what the index reaches, so that a killed
writer leaves nothing to repair. Sizes and places are in granules.

The first blocks of a segment are the *reserve*, for batches that only delete. It is a place and
not a number: on a full store all that is free lies in pieces too small for the node of a list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ..errors import StoreFull
from ..layout import (
    EXTEND_BYTES_MAX,
    EXTENT_BYTES,
    EXTENT_END_WORD,
    GRANULE_BYTES,
    HEAP_START,
    QUARANTINE_BYTES,
    QUARANTINE_DIVISOR,
    RELEASES_PER_ALLOCATION_MAX,
    RESERVE_BYTES_MAX,
    RESERVE_DIVISOR,
)
from .clock import Clock
from .free import FreeBlocks
from .pinned import Pinned

_EXTENT = EXTENT_BYTES // GRANULE_BYTES
_BURIALS = 256
_SETTLEMENTS = 1024
_IDLE_EXTENTS = 8

Extend = Callable[[int, int], None]
Purge = Callable[[int, int], bool]


class Retired(NamedTuple):
    """A block that readers may be looking at, or a deleted entry that still lies in its word."""

    stamp: int
    start: int
    size: int
    word_hash: int
    """For a deleted entry the hash that leads to its word."""


class Heap:
    """The allocator.

    ``purge(start, word_hash)`` is called for each deleted entry whose time has come: it empties
    the word, or returns False if the open batch stands on it.
    """

    def __init__(
        self,
        words: memoryview,
        clock: Clock,
        capacity: int,
        extend: Extend,
        release: Extend,
        purge: Purge,
    ) -> None:
        self._words = words
        self._clock = clock
        self._limit = capacity // GRANULE_BYTES
        self._extend = extend
        self._release = release
        self._purge = purge
        self._end = words[EXTENT_END_WORD] // GRANULE_BYTES
        self._free = FreeBlocks()
        self._reserve = FreeBlocks()
        self.pinned = Pinned()
        """What is not given up, though nothing but a pin may lead to it."""
        reserve_end = min(RESERVE_BYTES_MAX, HEAP_START + capacity // RESERVE_DIVISOR)
        self._reserve_end = reserve_end // GRANULE_BYTES
        self._returned: set[int] = set()
        self._idle_seen = 0
        self._denied = ""
        self._quarantine: deque[Retired] = deque()
        self._dead: deque[Retired] = deque()
        self._deferred: list[Retired] = []
        self._pending: list[tuple[int, int]] = []
        self._hold_bytes_min = min(QUARANTINE_BYTES, capacity // QUARANTINE_DIVISOR)
        self.hold_bytes = self._hold_bytes_min
        """What stays in quarantine while there is room."""
        self.quarantine_granules = 0
        self.growing = False
        """Whether the open batch has taken a block that was not for a deletion."""

    # Allocation

    def allocate(self, size: int, reserved: bool = False) -> int:
        """Return the granule of a block of ``size`` granules that may be overwritten.

        ``reserved`` lets the block come from the reserve, if it must and the batch is not
        ``growing``. Costs a few operations, whatever the size. Errors: ``StoreFull``, with
        nothing taken.
        """
        self._release_surplus()
        if not (reserved or self._spares_deletions(size)):
            raise self._full(size)
        while (start := self._take(size)) is None:
            if not (self._grow(size) or self._release_some()):
                if self.growing or not reserved:
                    raise self._full(size)
                return self._take_reserved(size)
        self.growing = self.growing or not reserved
        return start

    def free(self, start: int, size: int) -> None:
        """Give back a block that no reader can reach; it merges with its free neighbours."""
        (self._reserve if start < self._reserve_end else self._free).add(start, size)

    def _take(self, size: int) -> int | None:
        start = self._free.find(size)
        if start is None or not self._make_real(start, size):
            return None
        self._free.cut(start, size)
        return start

    def _take_reserved(self, size: int) -> int:
        start = self._reserve.find(size)
        if start is None:
            raise self._full(size)
        self._reserve.cut(start, size)
        return start

    def _spares_deletions(self, size: int) -> bool:
        """Tell whether a record leaves half of the reserve, or as much as all of it in one piece,
        to deletions; what deletions have written there lives until it is written again."""
        reserve = self._reserve_end - HEAP_START // GRANULE_BYTES
        wanted = size + reserve
        while self._reserve.granules < reserve // 2:
            if self._free.find(wanted) is not None or self._limit - self._end >= wanted:
                break
            if not self._release_some():
                return False
        return True

    # Growth, and giving memory back to the system

    @property
    def free_granules(self) -> int:
        """Granules that may be overwritten."""
        return self._free.granules + self._reserve.granules

    @property
    def used_granules(self) -> int:
        """Granules in use by what is committed or staged."""
        return self._end - self.free_granules - self.quarantine_granules - self._header

    @property
    def capacity_bytes(self) -> int:
        return self._limit * GRANULE_BYTES

    @property
    def real_bytes(self) -> int:
        """Bytes of memory the segment takes from the system."""
        return self._end * GRANULE_BYTES - len(self._returned) * EXTENT_BYTES

    @property
    def _header(self) -> int:
        return HEAP_START // GRANULE_BYTES if self._end else 0

    def _grow(self, size: int) -> bool:
        """Make the next extents real; False if the capacity or the system's memory is used up."""
        wanted = min(max(EXTENT_BYTES, self._end * GRANULE_BYTES // 8), EXTEND_BYTES_MAX)
        granules = max(wanted // GRANULE_BYTES, size + self._end % _EXTENT)
        end = min(-(-(self._end + granules) // _EXTENT) * _EXTENT, self._limit)
        if end - self._end < 1:
            return False
        try:
            self._extend(self._end * GRANULE_BYTES, (end - self._end) * GRANULE_BYTES)
        except OSError as error:
            # What the system refuses now it may grant later; until then this is the end.
            self._denied = str(error)
            return False
        self._denied = ""
        start = max(self._end, HEAP_START // GRANULE_BYTES)
        self._end = end
        self._words[EXTENT_END_WORD] = end * GRANULE_BYTES
        self._add(start, end)
        return True

    def _add(self, start: int, end: int) -> None:
        """Add free memory that may begin in the reserve and end beyond it."""
        border = min(max(start, self._reserve_end), end)
        for first, last in ((start, border), (border, end)):
            if first < last:
                self.free(first, last - first)

    def _make_real(self, start: int, size: int) -> bool:
        """Ask the system again for returned extents that a block touches."""
        if not self._returned:
            return True
        for extent in range(start // _EXTENT, (start + size - 1) // _EXTENT + 1):
            if extent in self._returned:
                try:
                    self._extend(extent * EXTENT_BYTES, EXTENT_BYTES)
                except OSError:
                    return False
                self._returned.remove(extent)
        return True

    def give_back(self) -> None:
        """Return whole free extents to the system, if more lies idle than is in use.

        Safe because a block becomes free only after the horizon has passed its stamp: whoever
        still reads there meets zeros, and is turned away.
        """
        idle = self.free_granules - len(self._returned) * _EXTENT
        self._idle_seen = min(self._idle_seen, idle)
        # A look at all free blocks is worth it only when much has become free since the last.
        if idle - self._idle_seen < _IDLE_EXTENTS * _EXTENT or idle < self.used_granules:
            return
        for start, size in self._free.items():
            first, last = -(-start // _EXTENT), (start + size) // _EXTENT
            for extent in range(first, last):
                if extent not in self._returned:
                    self._release(extent * EXTENT_BYTES, EXTENT_BYTES)
                    self._returned.add(extent)
        self._idle_seen = self.free_granules - len(self._returned) * _EXTENT

    # Quarantine

    def retire(self, start: int, size: int) -> None:
        """Put up a block, which nothing leads to any more, for the next stamp."""
        self.quarantine_granules += size
        self._pending.append((start, size))

    def stamp(self, replaced: list[tuple[int, int]], dead: list[tuple[int, int, int]]) -> None:
        """Step 5, after a commit: stamp the (start, size) blocks it replaced or unpinned and the
        (start, size, word hash) entries it deleted, and put them into the quarantine."""
        for start, size in self.pinned.commit():
            self.retire(start, size)
        for start, size in replaced:
            if not self.pinned.keeps(start, size):
                self.retire(start, size)
        stamp = self._stamp_pending()
        for start, size, word_hash in dead:
            self.quarantine_granules += size
            self._dead.append(Retired(stamp, start, size, word_hash))
        self._dead.extend(self._deferred)
        self._deferred.clear()

    def settle(self) -> bool:
        """Make some of the quarantine free; return whether there is more of it."""
        self.hold_bytes = self._hold_bytes_min
        self._dead.extend(self._deferred)
        self._deferred.clear()
        for _ in range(_SETTLEMENTS):
            if not self._release_some():
                self.give_back()
                return False
        return True

    def _stamp_pending(self) -> int:
        stamp = self._clock.retire()
        self._quarantine.extend(Retired(stamp, start, size, 0) for start, size in self._pending)
        self._pending.clear()
        return stamp

    def _release_surplus(self) -> None:
        for _ in range(RELEASES_PER_ALLOCATION_MAX):
            if self.quarantine_granules * GRANULE_BYTES <= self.hold_bytes:
                return
            if self._dead and (
                not self._quarantine or self._dead[0].stamp <= self._quarantine[0].stamp
            ):
                self._bury()
            elif self._quarantine:
                self._release_oldest()
            else:
                return

    def _release_some(self) -> bool:
        """Make something of the quarantine free, whatever it should hold; False if it is empty."""
        if not self._quarantine:
            for _ in range(min(len(self._dead), _BURIALS)):
                self._bury()
            if self._pending:
                self._stamp_pending()
        if not self._quarantine:
            return False
        self._release_oldest()
        return True

    def _release_oldest(self) -> None:
        """Step 1 for the oldest block."""
        stamp, start, size, _ = self._quarantine.popleft()
        self._clock.reuse(stamp)
        self.quarantine_granules -= size
        self.free(start, size)

    def _bury(self) -> None:
        """Step 1 for the word of the oldest deleted entry; its block waits for another stamp,
        as a reader may just have come from the word."""
        dead = self._dead.popleft()
        self._clock.reuse(dead.stamp)
        if not self._purge(dead.start, dead.word_hash):
            self._deferred.append(dead)
        elif self.pinned.keeps(dead.start, dead.size):
            self.quarantine_granules -= dead.size
        else:
            self._pending.append((dead.start, dead.size))

    # Takeover and reports

    def adopt(self, blocks: list[tuple[int, int]]) -> None:
        """Take all memory but the given (start, size) blocks as free, some perhaps returned.

        The caller has raised the horizon past every reader that may be looking at it.
        """
        at = HEAP_START // GRANULE_BYTES
        for start, size in [*sorted(blocks), (self._end, 0)]:
            if start > at:
                self._add(at, start)
                self._returned.update(range(-(-at // _EXTENT), start // _EXTENT))
            at = start + size

    def free_blocks(self) -> list[tuple[int, int]]:
        """All free blocks as (start, size), by place."""
        return self._reserve.items() + self._free.items()

    def quarantined(self) -> list[tuple[int, int]]:
        """All blocks, as (start, size), that wait for the horizon and that nothing leads to."""
        return self._pending + [(block.start, block.size) for block in self._quarantine]

    def deleted(self) -> list[Retired]:
        """The deleted entries whose words have not been emptied yet, as far as is known here."""
        return [*self._dead, *self._deferred]

    def _full(self, size: int) -> StoreFull:
        capacity, used = self.capacity_bytes, self.used_granules * GRANULE_BYTES
        cause = f" (the system gives no more memory: {self._denied})" if self._denied else ""
        return StoreFull(
            f"the store is full: {size * GRANULE_BYTES:,} bytes more do not fit, {used:,} of "
            f"{capacity:,} are in use{cause}; delete records or start it with a larger capacity=",
            requested=size * GRANULE_BYTES,
            used=used,
            capacity=capacity,
        )
