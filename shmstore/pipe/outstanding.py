"""Requests that have no answer yet: the future of each, and the book of all. No I/O here."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from itertools import chain
from threading import Event
from typing import Any, Protocol

from .. import protocol
from ..errors import InvalidArgument, RequestTimeout, ShmstoreError

BYTES_MAX = 4 << 20
"""Beyond so many bytes without an answer the next request has to wait."""


class Waits(Protocol):
    """Who receives answers while somebody waits for one."""

    timeout: float

    def wait(self, answer: Answer, deadline: float, limit: float) -> None:
        """Return when ``answer`` is settled, by its arrival or else by an error at the deadline."""


class Answer:
    """The future of one request."""

    # Most of what can be said of one is never said: so it stands here, and costs a request nothing.
    sent: float | None = None
    """When it was first given to a connection, on the monotonic clock."""
    wake: Event | None = None
    """Set when the answer is there, and when a waiting thread is to receive for all."""
    waiters = 0
    ready = False
    """What done() tells."""
    _result: Any = None
    _error: ShmstoreError | None = None

    def __init__(self, waits: Waits, request_id: int, operation: str, frame: bytes) -> None:
        self.id = request_id
        self.operation = operation
        self.frame = frame
        """What is sent, and sent again; empty once there is an answer."""
        self._waits = waits

    def done(self) -> bool:
        """Tell whether result() returns, or raises, without waiting."""
        return self.ready

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer; return it, or raise the error that it carries.

        RequestTimeout after ``timeout`` seconds (those of the client if None), WriterUnavailable
        if the server ends. Each further call returns or raises the same.
        """
        if not self.ready:
            limit = self._waits.timeout if timeout is None else check_timeout(timeout)
            self._waits.wait(self, time.monotonic() + limit, limit)
        if self._error is not None:
            raise self._error
        return self._result

    def settle(self, result: Any, error: ShmstoreError | None) -> None:
        """Make the outcome known to whoever waits for it."""
        self._result = result
        if error is not None:
            self._error = error
        self.ready = True
        self.frame = b""
        if self.wake is not None:
            self.wake.set()


class Outstanding:
    """The requests of one client, as the writer knows it, that have no answer; oldest first."""

    def __init__(self) -> None:
        self.client_id = os.urandom(protocol.CLIENT_ID_BYTES)
        self._answers: dict[int, Answer] = {}
        self._waits: dict[int, Answer] = {}
        self._next_id = 1
        self._next_wait_id = protocol.WAIT_ID_MIN
        self.oldest_id = 1
        """No request before this one is without an answer."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def is_empty(self) -> bool:
        """Whether there are neither requests nor waits."""
        return not self._answers and not self._waits

    def oldest_if_full(self) -> Answer | None:
        """Return the request without whose answer no more may be sent; None if there is room."""
        answers = self._answers
        if not answers:
            self.oldest_id = self._next_id
            return None
        oldest_id = self.oldest_id
        while oldest_id not in answers:
            oldest_id += 1
        self.oldest_id = oldest_id
        room = self._next_id - oldest_id < protocol.IN_FLIGHT_MAX and self._bytes < BYTES_MAX
        return None if room else answers[oldest_id]

    def add(self, waits: Waits, operation: str, arguments: list[Any]) -> Answer:
        """Note a new request, for which oldest_if_full() found room.

        RecordTooLarge or InvalidArgument if it cannot be sent.
        """
        request_id = self._next_id
        frame = protocol.frame_request(request_id, self.oldest_id, operation, arguments)
        answer = Answer(waits, request_id, operation, frame)
        self._next_id = request_id + 1
        self._bytes += len(frame)
        self._answers[request_id] = answer
        return answer

    def add_wait(self, waits: Waits, arguments: list[Any]) -> Answer:
        """Note a wait for a change, which may last for ever: it needs no room, and takes none.

        RecordTooLarge or InvalidArgument if it cannot be sent.
        """
        wait_id = self._next_wait_id
        frame = protocol.frame_request(wait_id, wait_id, "wait", arguments)
        self._next_wait_id = wait_id + 1
        answer = self._waits[wait_id] = Answer(waits, wait_id, "wait", frame)
        return answer

    def settle(self, request_id: int, result: Any, error: ShmstoreError | None) -> None:
        """Make the outcome of a request known, unless nobody waits for it any more."""
        answer = self._answers.pop(request_id, None)
        if answer is not None:
            self._bytes -= len(answer.frame)
            answer.settle(result, error)
        elif request_id in self._waits:
            self._waits.pop(request_id).settle(result, error)

    def settle_requests(self, error: ShmstoreError) -> None:
        """End all requests but waits with ``error``. To the writer, what follows is another
        client."""
        self.client_id = os.urandom(protocol.CLIENT_ID_BYTES)
        answers, self._answers, self._bytes = self._answers, {}, 0
        for answer in answers.values():
            answer.settle(None, error)

    def settle_all(self, error: ShmstoreError) -> None:
        """End all requests with ``error``, as settle_requests(), and all waits."""
        self.settle_requests(error)
        waits, self._waits = self._waits, {}
        for wait in waits.values():
            wait.settle(None, error)

    def awaited(self) -> Answer | None:
        """Return the oldest request that a sleeping thread waits for."""
        answers = chain(self._answers.values(), self._waits.values())
        return next((answer for answer in answers if answer.waiters), None)

    def to_resend(self, now: float) -> Iterator[Answer]:
        """Yield all requests and waits, but those the writer may have done and forgotten: these
        time out."""
        forgotten = now - protocol.SESSION_SECONDS
        for answer in list(self._answers.values()):
            old = answer.sent is not None and answer.sent < forgotten
            if not old or answer.operation not in protocol.MUTATIONS:
                yield answer
                continue
            error = RequestTimeout(
                f"the writer ended before it answered {answer.operation}, and that was too long "
                f"ago to ask again: it was applied once or not at all",
                operation=answer.operation,
                sent=True,
            )
            self.settle(answer.id, None, error)
        yield from list(self._waits.values())

    def last_words(self) -> bytes:
        """Return the frame with which the client leaves."""
        return protocol.frame_request(self._next_id, self._next_id, "bye", [])

    def leave_to_parent(self, error: ShmstoreError) -> None:
        """In a forked child: end all requests, without touching the locks of lost threads."""
        for answer in chain(self._answers.values(), self._waits.values()):
            answer.wake = None
        self.settle_all(error)


def check_timeout(timeout: float | None) -> float:
    """Return ``timeout`` in seconds; None is no limit. InvalidArgument unless it is positive."""
    if timeout is None:
        return math.inf
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and timeout > 0:
        return float(timeout)
    raise InvalidArgument(
        f"timeout {timeout!r}: give a positive number of seconds, or None for no limit"
    )
