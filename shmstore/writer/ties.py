"""Records that are there as long as a process is: which are tied to which holder.

A tie names the insertion number of its record, which a record keeps while it lives and no other one
ever gets. So nobody who changes or deletes records has to know of ties: one whose record is gone is
stale, and swept when there are many. In the segment:

    table "", namespace "h"   holder -> [process id, start time]
    table "", namespace "t"   holder, then insertion number -> [table, namespace, key]

Writer process only; it stages and never commits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..codec import message_pack, message_unpack
from ..engine import Owner
from ..errors import CorruptSegment, InvalidArgument, ShmstoreError
from ..keys import Key
from ..processes import HOLDER_BYTES, process_of
from .border import Place
from .catalogue import walk

TABLE = ""
HOLDERS = "h"
NAMESPACE = "t"
SWEEP_LEAST = 256
"""With fewer ties it does not matter how many are stale."""
_NUMBER_BYTES = 8


class Tie(NamedTuple):
    """A record that is tied to a holder."""

    name: bytes
    """The key of the tie itself."""
    holder: bytes
    place: Place
    key: Key
    insertion: int


class Ties:
    """The ties in the segment that ``owner`` writes."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._sweep_at = SWEEP_LEAST

    def check(self, holder: bytes) -> None:
        """Raise InvalidArgument unless this is a holder."""
        if self._owner.find(TABLE, HOLDERS, holder) is None:
            pid, start = process_of(holder)
            raise InvalidArgument(
                f"nothing can be tied to process {pid}, begun at {start}: it has not said who it "
                f"is, or has ended"
            )

    def add(self, holder: bytes, place: Place, key: Key) -> None:
        """Tie a record, which the open batch has, to a holder. Errors: ``StoreFull``."""
        if self._owner.count(TABLE, NAMESPACE) >= self._sweep_at:
            self._sweep()
        found = self._owner.find(*place, key)
        assert found is not None
        name = holder + found.insertion.to_bytes(_NUMBER_BYTES, "big")
        self._owner.put(TABLE, NAMESPACE, name, message_pack([*place, key]))

    def of(self, holder: bytes) -> list[Tie]:
        """Return the ties of one holder. Costs a walk over those of all."""
        return [tie for tie in self.all() if tie.holder == holder]

    def all(self) -> Iterator[Tie]:
        """Yield all ties, oldest first. Errors: ``CorruptSegment``."""
        for item in walk(self._owner, Place(TABLE, NAMESPACE)):
            yield _parsed(item[0], item[1])

    def is_stale(self, tie: Tie) -> bool:
        """Tell whether the record that was tied is gone, whatever has its key now."""
        found = self._owner.find(*tie.place, tie.key)
        return found is None or found.insertion != tie.insertion

    def drop(self, tie: Tie) -> None:
        """Forget a tie; its record stays."""
        self._owner.remove(TABLE, NAMESPACE, tie.name)

    def _sweep(self) -> None:
        for tie in list(self.all()):
            if self.is_stale(tie):
                self.drop(tie)
        self._sweep_at = max(SWEEP_LEAST, 2 * self._owner.count(TABLE, NAMESPACE))


def _parsed(name: object, record: bytes) -> Tie:
    try:
        table, namespace, key = message_unpack(record)
    except (ShmstoreError, ValueError, TypeError):
        table = namespace = key = None
    if (
        type(name) is not bytes
        or len(name) != HOLDER_BYTES + _NUMBER_BYTES
        or type(table) is not str
        or type(namespace) is not str
        or type(key) not in (str, bytes)
    ):
        raise CorruptSegment(f"the record of tie {name!r} is damaged")
    insertion = int.from_bytes(name[HOLDER_BYTES:], "big")
    return Tie(name, name[:HOLDER_BYTES], Place(table, namespace), key, insertion)
