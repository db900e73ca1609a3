"""The pins of a segment: entries that say which process looks at which block.

A pin is found by its holder and the block, in no list and under no table. It is written, deleted
and taken back as a record is; ``Pinned`` notes what follows from it for the block.
"""

from __future__ import annotations

from ..layout import CLASS_PIN, GRANULE_BYTES, GRANULE_MASK, WORD_BYTES
from .lookup import Lookup
from .records import load_entry
from .staging import Staging

_WORDS = GRANULE_BYTES // WORD_BYTES


class Pins:
    """Pins by holder and block, in the open batch and as they are committed."""

    def __init__(self, words: memoryview, lookup: Lookup, staging: Staging) -> None:
        self._words = words
        self._lookup = lookup
        self._staging = staging
        self._pinned = staging.heap.pinned

    def add(self, holder: bytes, granule: int) -> None:
        """Pin a record's block, if the holder has not done so before. Errors: ``StoreFull`` only
        if not even the reserve is left."""
        staging, lead = self._staging, self._staging.pin_lead(holder, granule)
        if staging.find(lead) is None:
            # A record can be looked at in a full store.
            place = staging.allocate(lead, CLASS_PIN, 0, reserved=True)
            staging.write(place, lead, CLASS_PIN, 0, None, b"")
            self._pinned.add(place.granule, granule)

    def share(self, holder: bytes, granule: int) -> bool:
        """Pin a block that somebody pins; False if nobody does. Errors: as ``add``."""
        if not (0 < granule <= GRANULE_MASK and self._pinned.in_batch(granule)):
            return False
        self.add(holder, granule)
        return True

    def remove(self, holder: bytes, granule: int) -> bool:
        """Delete a pin; return whether it was there."""
        if not 0 < granule <= GRANULE_MASK:
            return False
        lead = self._staging.pin_lead(holder, granule)
        entry = self._staging.find(lead)
        if entry is None:
            return False
        self._staging.kill(lead, entry)
        self._pinned.remove(entry.granule, granule)
        return True

    def committed(self) -> list[tuple[bytes, int, int]]:
        """Return (holder, granule, bytes of the value) of each committed pin, in order."""
        pins = []
        for entry, granule in self._pinned.entries.items():
            holder, _ = self._lookup.load_pin(entry * _WORDS)
            pins.append((holder, granule, load_entry(self._words, granule).shape.value_size))
        return sorted(pins)

    def statistics(self) -> dict[str, int]:
        """Return their number, and the bytes of what is pinned and of what is held."""
        pinned, held = self._pinned.counts, self._pinned.held
        blocks = sum(load_entry(self._words, granule).shape.granules for granule in pinned)
        return {
            "pins": len(self._pinned.entries),
            "pinned_bytes": blocks * GRANULE_BYTES,
            "held_bytes": sum(held.values()) * GRANULE_BYTES,
        }
