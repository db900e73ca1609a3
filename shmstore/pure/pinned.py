"""Which blocks are pinned, and which of them live by that alone: the writer's private notes.

A pin is an entry of the index, so that it is committed, taken back and found again as any other;
``Pins`` writes it. A block that is given up while a pin names it is *held*: it goes to the
quarantine with the batch in which its last pin goes. Sizes and places are in granules.
"""

from __future__ import annotations


class Pinned:
    """Pins as they are committed, and what the open batch changes; each call costs a few
    operations."""

    def __init__(self) -> None:
        self.entries: dict[int, int] = {}
        """The pinned block by the entry of the pin, of all pins that are committed."""
        self.counts: dict[int, int] = {}
        """Their number by the pinned block."""
        self.held: dict[int, int] = {}
        """Size by start of the blocks to which nothing but pins leads."""
        self._added: dict[int, int] = {}
        self._removed: dict[int, int] = {}
        self._differences: dict[int, int] = {}

    def adopt(self, pins: list[tuple[int, int]], held: list[tuple[int, int]]) -> None:
        """Take over the (entry, pinned block) and the held (start, size) that were found."""
        for entry, granule in pins:
            self._count(entry, granule)
        self.held.update(held)

    # The open batch

    def add(self, entry: int, granule: int) -> None:
        """Note a pin that the open batch has written."""
        self._added[entry] = granule
        self._differences[granule] = self._differences.get(granule, 0) + 1

    def remove(self, entry: int, granule: int) -> None:
        """Note a pin that the open batch has deleted."""
        if self._added.pop(entry, None) is None:
            self._removed[entry] = granule
        self._differences[granule] = self._differences.get(granule, 0) - 1

    def in_batch(self, granule: int) -> bool:
        """Tell whether a block is pinned as the open batch has it."""
        return self.counts.get(granule, 0) + self._differences.get(granule, 0) > 0

    def commit(self) -> list[tuple[int, int]]:
        """Count the batch in; return the held (start, size) that nobody pins any more."""
        for entry, granule in self._added.items():
            self._count(entry, granule)
        released: list[tuple[int, int]] = []
        for entry, granule in self._removed.items():
            del self.entries[entry]
            self.counts[granule] -= 1
            if not self.counts[granule]:
                del self.counts[granule]
                if granule in self.held:
                    released.append((granule, self.held.pop(granule)))
        self.abort()
        return released

    def abort(self) -> None:
        """Forget the batch."""
        self._added.clear()
        self._removed.clear()
        self._differences.clear()

    # Blocks that are given up

    def keeps(self, start: int, size: int) -> bool:
        """Hold a block, to which nothing leads any more, if a committed pin names it; tell
        whether one does."""
        if start not in self.counts:
            return False
        self.held[start] = size
        return True

    def _count(self, entry: int, granule: int) -> None:
        self.entries[entry] = granule
        self.counts[granule] = self.counts.get(granule, 0) + 1
