"""Group commit: requests of many clients staged as one batch, published at once, then answered.

Plain requests are staged by the engine from their bytes, all others by the operations. A request
that fails before it staged anything leaves the batch as it is. Whatever else goes wrong takes the
batch apart: it is aborted, and its requests are applied again one at a time, so that none succeeds
by half and none fails for another's sake. No input or output; writer process only.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from ..engine import Owner
from ..errors import ProtocolError, ShmstoreError
from ..protocol import IN_FLIGHT_MAX, Request, build_answer, build_error, parse_request
from .operations import Operations
from .sessions import NAMESPACE, TABLE, Session, Sessions
from .trouble import presentable

REQUESTS_MAX = 512
ANSWER_BYTES_MAX = 1 << 20
"""A batch whose answers are larger ends."""
ALONE = frozenset({"transaction", "clear", "clear_all", "declare", "delete_where", "popitem"})
"""Operations whose keys are not known beforehand, or too many: each is a batch of its own."""
_KEYS_IN_LIST = "delete_many"
_KEYS_IN_PAIRS = "put_many"
_KEY = 2


class Client(Protocol):
    """Who is to be answered."""

    @property
    def session(self) -> Session:
        """The session the requests belong to."""

    def deliver(self, answer: bytes) -> None:
        """Take an answer; must not fail."""


class _Plain(NamedTuple):
    """A request that the engine staged from its bytes."""

    id: int
    oldest: int
    message: bytes | bytearray


class _Entry(NamedTuple):
    client: Client
    request: Request | _Plain
    answer: bytes


class Batch:
    """The open batch, and the way from a request to its answer."""

    def __init__(self, owner: Owner, operations: Operations, sessions: Sessions) -> None:
        self.committed = 0
        """Batches that were committed."""
        self._owner = owner
        self._operations = operations
        self._sessions = sessions
        self._entries: list[_Entry] = []
        self._answer_bytes = 0

    def add(self, client: Client, request: Request) -> None:
        """Apply a mutation; its answer is delivered when the batch is committed, maybe now.

        A request that was applied before is not applied again: it gets the answer it had.
        ProtocolError if it was received by the client already.
        """
        session = client.session
        if request.id <= session.seen:
            self._answer_again(client, request)
            return
        alone = request.operation in ALONE
        if self._entries and (alone or self._touches(request)):
            self.commit()
        session.seen = request.id
        self._stage(client, request)
        if alone or self._is_full():
            self.commit()

    def run(self, client: Client, message: bytes | bytearray) -> str | None:
        """Apply, commit and answer one request, if the engine can do all that from its bytes.

        Return its operation; None if nothing was done, and ``add`` must. The batch must be empty:
        this is for a client that waits alone.
        """
        session = client.session
        done = self._owner.run(
            message,
            TABLE,
            NAMESPACE,
            session.client_id,
            session.answers,
            session.seen,
            IN_FLIGHT_MAX,
        )
        if done is None:
            return None
        answer, session.answers, session.seen, operation, changed = done
        if changed:
            session.stored = True
            self.committed += 1
        client.deliver(answer)
        return operation

    def add_plain(
        self, client: Client, messages: deque[bytes | bytearray], count_max: int
    ) -> list[str]:
        """Stage the first messages from their bytes, while the engine can; return their operations.

        At most ``count_max`` are taken off ``messages``. The first one that is odd, fails, or was
        sent before stays there, for ``add``.
        """
        session = client.session
        operations: list[str] = []
        while messages and len(operations) < count_max:
            room = min(count_max - len(operations), REQUESTS_MAX - len(self._entries))
            staged, outcome = self._owner.stage(messages, room, session.seen, IN_FLIGHT_MAX)
            for request_id, oldest, operation, answer in staged:
                plain = _Plain(request_id, oldest, messages.popleft())
                self._entries.append(_Entry(client, plain, answer))
                self._answer_bytes += len(answer)
                operations.append(operation)
            if staged:
                session.seen = staged[-1][0]
            if outcome == "half done":
                self._separate()
                break
            if outcome == "blocked" or self._is_full():
                self.commit()
            elif outcome == "general":
                break
        return operations

    def commit(self) -> None:
        """Publish what is staged, and deliver the answers."""
        entries = self._entries
        if not entries:
            return
        self._entries, self._answer_bytes = [], 0
        try:
            self._publish(entries)
        except ShmstoreError as error:
            self._undo(entries)
            if len(entries) > 1:
                self._one_by_one(entries)
            else:
                client, request, _ = entries[0]
                client.deliver(build_error(request.id, error))
            return
        for client, _, answer in entries:
            client.deliver(answer)

    def _is_full(self) -> bool:
        return len(self._entries) >= REQUESTS_MAX or self._answer_bytes > ANSWER_BYTES_MAX

    def _publish(self, entries: list[_Entry]) -> None:
        for client, request, answer in entries:
            client.session.remember(request, answer)
        if not self._owner.staged:
            return
        for session in {client.session: None for client, _, _ in entries}:
            self._sessions.stage(session)
        self._owner.commit()
        self.committed += 1

    def _undo(self, entries: list[_Entry]) -> None:
        self._owner.abort()
        for client, request, _ in entries:
            client.session.retract(request)

    def _one_by_one(self, entries: list[_Entry]) -> None:
        for client, request, _ in entries:
            whole = request if isinstance(request, Request) else parse_request(request.message)
            self._stage(client, whole)
            self.commit()

    def _stage(self, client: Client, request: Request) -> None:
        """Apply a request to the open batch, and add the answer it will have."""
        before = self._owner.changes
        try:
            result = self._operations.apply(request.operation, request.arguments)
            answer = build_answer(request.id, result)
        except Exception as error:
            if self._owner.changes != before:
                self._separate()
            answer = build_error(request.id, presentable(error, request.operation))
        self._entries.append(_Entry(client, request, answer))
        self._answer_bytes += len(answer)

    def _separate(self) -> None:
        """Take a half-done request out of the batch: what came before it is committed."""
        entries, self._entries, self._answer_bytes = self._entries, [], 0
        self._owner.abort()
        self._one_by_one(entries)

    def _touches(self, request: Request) -> bool:
        """Tell whether a key of the request is staged: its next version needs the next batch."""
        arguments = request.arguments
        try:
            table, namespace, named = arguments[0], arguments[1], arguments[_KEY]
            keys = [named]
            if request.operation == _KEYS_IN_LIST:
                keys = named
            elif request.operation == _KEYS_IN_PAIRS:
                keys = [key for key, _ in named]
            return any(self._owner.touched(table, namespace, key) for key in keys)
        except Exception:  # not arguments of this operation, which will say so
            return False

    def _answer_again(self, client: Client, request: Request) -> None:
        answer = client.session.answers.get(request.id)
        if answer is None:
            raise ProtocolError(f"request {request.id} was sent before, and its answer received")
        client.deliver(answer)
