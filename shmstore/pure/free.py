"""Free blocks by size: two-level segregated lists (TLSF, Masmano et al. 2004).

Exact sizes below 1 KiB, sixteen classes to each doubling above; neighbours merge; of a class the
block last freed is found first. All of it is deterministic, because two engines must place the
same operations in the same blocks. Sizes and places are in granules.
"""

from __future__ import annotations

_EXACT_SIZES = 64
_CLASS_BITS = 4
_CLASSES = _EXACT_SIZES + (40 << _CLASS_BITS)


class FreeBlocks:
    """The blocks of a segment that may be overwritten; each call costs a few operations."""

    def __init__(self) -> None:
        self.granules = 0
        """Their size together."""
        self._classes: list[dict[int, int]] = [{} for _ in range(_CLASSES)]
        self._occupied = 0
        self._size_at: dict[int, int] = {}
        self._start_at_end: dict[int, int] = {}

    def items(self) -> list[tuple[int, int]]:
        """All blocks as (start, size), by place."""
        return sorted(self._size_at.items())

    def add(self, start: int, size: int) -> None:
        """Add a block; it merges with its neighbours."""
        before = self._start_at_end.get(start)
        if before is not None:
            size += self.remove(before)
            start = before
        if start + size in self._size_at:
            size += self.remove(start + size)
        chosen = _class_of(size)
        self._classes[chosen][start] = size
        self._occupied |= 1 << chosen
        self._size_at[start] = size
        self._start_at_end[start + size] = start
        self.granules += size

    def remove(self, start: int) -> int:
        """Take the block at ``start`` out; return its size."""
        size = self._size_at.pop(start)
        del self._start_at_end[start + size]
        chosen = _class_of(size)
        del self._classes[chosen][start]
        if not self._classes[chosen]:
            self._occupied ^= 1 << chosen
        self.granules -= size
        return size

    def cut(self, start: int, size: int) -> None:
        """Take the first granules of the block at ``start`` out; the rest stays."""
        block = self.remove(start)
        if block > size:
            self.add(start + size, block - size)

    def find(self, size: int) -> int | None:
        """Return the start of a block that fits: one of the smallest class whose blocks all do,
        or else one of the size's own class."""
        least = _class_of(size + _class_width(size) - 1)
        fitting = self._occupied >> least
        if fitting:
            lowest = (fitting & -fitting).bit_length() - 1
            return next(reversed(self._classes[least + lowest]))
        own = self._classes[_class_of(size)]
        return next((start for start, block in own.items() if block >= size), None)


def _class_of(size: int) -> int:
    if size < _EXACT_SIZES:
        return size
    top = size.bit_length() - 1
    return _EXACT_SIZES + ((top - 6) << _CLASS_BITS) + (size >> (top - _CLASS_BITS) & 15)


def _class_width(size: int) -> int:
    return 1 if size < _EXACT_SIZES else 1 << (size.bit_length() - 1 - _CLASS_BITS)
