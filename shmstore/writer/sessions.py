"""Exactly once: what the writer remembers of each client, in the segment and across its own death.

A session holds the answers its client may not have received yet. It is written in the same commit
as the mutations it speaks of, so a new writer finds both or neither, and answers from it what is
sent again. Writer process only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from ..codec import message_pack, message_unpack
from ..engine import Owner
from ..errors import CorruptSegment, ShmstoreError
from ..protocol import CLIENT_ID_BYTES, SESSION_SECONDS

TABLE = ""
NAMESPACE = "s"


class Numbered(Protocol):
    """What a session must know of a request."""

    @property
    def id(self) -> int: ...

    @property
    def oldest(self) -> int: ...


class Session:
    """One client's requests: the highest id that was applied, and the answers still remembered."""

    __slots__ = ("answers", "client_id", "seen", "stored")

    def __init__(self, client_id: bytes, stored: bool = False) -> None:
        self.client_id = client_id
        self.stored = stored
        """Whether the segment has a record of it."""
        self.seen = 0
        self.answers: dict[int, bytes] = {}

    def remember(self, request: Numbered, answer: bytes) -> None:
        """Keep the answer until the client says it is not waiting for it any more."""
        answers = self.answers
        while answers:
            first = next(iter(answers))
            if first >= request.oldest:
                break
            del answers[first]
        answers[request.id] = answer

    def retract(self, request: Numbered) -> None:
        """Forget an answer that was never given."""
        self.answers.pop(request.id, None)

    def packed(self) -> bytes:
        """Return the session as its record in the segment."""
        # Ids are remembered as they grow, so the last one is the highest.
        return message_pack([next(reversed(self.answers), self.seen), self.answers])

    @classmethod
    def unpacked(cls, client_id: object, record: bytes) -> Session:
        """Return the session that a record holds; CorruptSegment if it holds none."""
        try:
            seen, answers = message_unpack(record)
        except (ShmstoreError, ValueError, TypeError):
            seen = answers = None
        if (
            type(client_id) is not bytes
            or len(client_id) != CLIENT_ID_BYTES
            or type(seen) is not int
            or type(answers) is not dict
            or not all(type(request_id) is int for request_id in answers)
            or not all(type(answer) is bytes for answer in answers.values())
        ):
            raise CorruptSegment(f"the record of session {client_id!r} is damaged")
        session = cls(client_id, stored=True)
        session.seen, session.answers = seen, dict(sorted(answers.items()))
        return session


class Sessions:
    """The sessions of all clients: the connected, and for a while those of the writer before."""

    def __init__(self, owner: Owner, now: Callable[[], float]) -> None:
        """Find the sessions of the writer before. Errors: ``CorruptSegment``."""
        self._owner = owner
        self._now = now
        self._sessions = {session.client_id: session for session in _load(owner)}
        self._inherited = frozenset(self._sessions)
        """Who was connected to the writer before, and may still wait for an answer of it."""
        self._absent = dict.fromkeys(self._sessions)
        """Those of them who are not connected to this one."""
        self._forget_at = now() + SESSION_SECONDS
        # In order, as all the writer does: equal requests give equal segments.
        self._forgotten: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def attach(self, client_id: bytes) -> Session:
        """Return the session of a client that has connected, a new one if there is none."""
        session = self._sessions.get(client_id)
        if session is None:
            session = Session(client_id, stored=client_id in self._forgotten)
            self._sessions[client_id] = session
            self._forgotten.pop(client_id, None)
        self._absent.pop(client_id, None)
        return session

    def hang_up(self, session: Session) -> None:
        """Note that a connection ended: nobody comes back to it, but clients that may not have
        got through to this writer yet, and that wait for an answer of the one before."""
        if session.client_id in self._inherited and self._now() < self._forget_at:
            self._absent[session.client_id] = None
        else:
            self.forget(session)

    def forget(self, session: Session) -> None:
        """Note that the client has left for good; ``sweep`` removes its record."""
        del self._sessions[session.client_id]
        self._absent.pop(session.client_id, None)
        if session.stored:
            self._forgotten[session.client_id] = None

    def stage(self, session: Session) -> None:
        """Put the session's record into the open batch. Errors: ``StoreFull``."""
        self._owner.put(TABLE, NAMESPACE, session.client_id, session.packed())
        session.stored = True

    def due_seconds(self) -> float | None:
        """Return in how many seconds ``sweep`` is to be called; None if there is no reason."""
        if self._forgotten:
            return 0.0
        return max(0.0, self._forget_at - self._now()) if self._absent else None

    def sweep(self) -> None:
        """Commit the removal of the sessions that are over; the open batch must be empty."""
        if self._absent and self._now() >= self._forget_at:
            for client_id in list(self._absent):
                self.forget(self._sessions[client_id])
        forgotten, self._forgotten = self._forgotten, {}
        try:
            for client_id in forgotten:
                self._owner.remove(TABLE, NAMESPACE, client_id)
            self._owner.commit()
        except ShmstoreError:
            # The records stay for the next writer to find and to forget.
            self._owner.abort()


def _load(owner: Owner) -> Iterator[Session]:
    for key, record, _, _ in owner.chunk(TABLE, NAMESPACE, b"", None, None, False):
        yield Session.unpacked(key, record)
