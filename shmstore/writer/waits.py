"""Who waits for a record to change: told after the commit that changes it, by nobody's polling.

A wait belongs to a connection and ends with it; who stops waiting says so. While nobody waits all
of this costs a commit nothing, else a lookup per record that is waited for. Writer process only.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ..engine import Owner
from ..errors import LimitReached
from ..keys import Key
from ..protocol import WAITS_MAX, build_answer
from .border import Place


class Waiter(Protocol):
    """A connection over which somebody waits."""

    def deliver(self, answer: bytes) -> None:
        """Take an answer; must not fail."""


Peer = TypeVar("Peer", bound=Waiter)
_Record = tuple[int, Key]
"""A record's scope and key."""


class Waits(Generic[Peer]):
    """All waits for records of the segment that ``owner`` writes."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._records: dict[_Record, dict[tuple[Peer, int], int]] = {}
        """What is waited for: by whom, under which id, while it has which version."""
        self._waiters: dict[Peer, dict[int, _Record]] = {}
        self._seen = 0
        """The commit after which all were looked at."""

    def __len__(self) -> int:
        return sum(map(len, self._waiters.values()))

    def begin(self, peer: Peer, wait_id: int, place: Place, key: Key, version: int) -> int | None:
        """Return the version of a record if it is another one, 0 if there is no record; else None,
        and the peer will be told.

        Waiting again under the same id replaces the wait. Errors: ``LimitReached``.
        """
        record = self._owner.reader.scope(*place), key
        current = self._version(record)
        if current != version:
            return current
        self.end(peer, wait_id)
        mine = self._waiters.setdefault(peer, {})
        if len(mine) >= WAITS_MAX:
            raise LimitReached(
                f"this client waits for {WAITS_MAX} records already: wait for fewer at a time",
                limit=WAITS_MAX,
            )
        mine[wait_id] = record
        self._records.setdefault(record, {})[peer, wait_id] = version
        return None

    def end(self, peer: Peer, wait_id: int) -> None:
        """Forget a wait, if there is one of this id."""
        mine = self._waiters.get(peer, {})
        record = mine.pop(wait_id, None)
        if record is None:
            return
        if not mine:
            del self._waiters[peer]
        others = self._records[record]
        del others[peer, wait_id]
        if not others:
            del self._records[record]

    def end_all(self, peer: Peer) -> None:
        """Forget all waits of a connection."""
        for wait_id in list(self._waiters.get(peer, ())):
            self.end(peer, wait_id)

    def wake(self) -> list[Peer]:
        """Tell those whose record is another one now; return whom. All must be committed."""
        if not self._records or self._owner.committed == self._seen:
            return []
        self._seen = self._owner.committed
        woken: dict[Peer, None] = {}
        for record, waits in list(self._records.items()):
            current = self._version(record)
            for (peer, wait_id), version in list(waits.items()):
                if version != current:
                    self.end(peer, wait_id)
                    peer.deliver(build_answer(wait_id, current))
                    woken[peer] = None
        return list(woken)

    def _version(self, record: _Record) -> int:
        return self._owner.reader.version(*record) or 0
