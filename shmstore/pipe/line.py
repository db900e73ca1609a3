"""Who receives the answers of all threads of a process, and connects again when the writer died.

Of the threads that wait for answers one, the leader, receives for all; when it has its own answer
the next one leads. The leader also reconnects when the writer was restarted, and resends what has
no answer: the writer knows what it has done, so nothing is done twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import TIMEOUT_MAX, Event, Lock, get_ident
from time import monotonic, sleep
from typing import Any

from ..errors import ProtocolError, RequestTimeout, ShmstoreError
from ..runtime import OWN_TROUBLE
from .attachment import Attachment
from .connection import Connection, interrupted, open_connection
from .courier import Courier
from .outstanding import Answer, Outstanding

RECONNECT_PAUSE_SECONDS = 0.005
"""Pause when a writer died while it was being greeted."""


class Line:
    """The connection of a process to a server, with the requests on it and who waits for them.

    ``limit`` is always the number of seconds that led to a deadline, for messages.
    """

    def __init__(self, address: str, segment_id: bytes | None) -> None:
        self.closed = False
        self._attachment = Attachment(address, segment_id)
        self._start_over()

    def _start_over(self) -> None:
        self._lock = Lock()
        """Guards all that follows; never held during a wait."""
        self._outstanding = Outstanding()
        self._connection: Connection | None = None
        self._leader: int | None = None
        """The thread that receives for all."""
        self._followers = 0
        """Threads that sleep until they have their answer or are to lead."""
        self._courier = Courier(self._lock)

    def _have_rest_sent(self, connection: Connection) -> None:
        """Have what the socket did not take sent by another thread, as the leader may be receiving
        for long."""
        if connection.unsent and self._leader not in (None, get_ident()):
            self._courier.expect(connection)

    def _flush(self) -> None:
        try:
            if self._connection is not None:
                self._connection.flush()
                self._have_rest_sent(self._connection)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Hang up after an interruption: what went out or came in is unknown.

        Those who wait for changes go on, over the next connection.
        """
        connection = self._connection
        if connection is not None:
            connection.torn = True  # first: the rest may fail, too, where there is no memory
        self._part()
        self._outstanding.settle_requests(interrupted())

    def _hang_up(self, error: ShmstoreError) -> None:
        """End the connection, and all requests and waits with ``error``."""
        self._part()
        self._outstanding.settle_all(error)

    def _part(self) -> None:
        connection = self._connection
        if connection is not None:
            if self._leader in (None, get_ident()):
                connection.close()
                self._connection = None
            else:
                connection.shut_down()  # the leader may be using its descriptor, and will close it

    # Waiting.

    def wait(self, answer: Answer, deadline: float, limit: float) -> None:
        """Wait until ``answer`` is settled; settle it with RequestTimeout at the deadline."""
        if not self._wait(answer, deadline):
            self._expire(answer, limit)

    def _wait(self, answer: Answer, deadline: float) -> bool:
        """Wait until ``answer`` is settled, as the leader if there is none; False if too long."""
        me = get_ident()
        while True:
            with self._lock:
                if answer.ready:
                    return True
                leading = self._leader is None or self._leader == me
                if leading:
                    self._leader = me
                else:
                    wake = answer.wake = answer.wake or Event()
                    wake.clear()
                    answer.waiters += 1
                    self._followers += 1
                    self._flush()
            if leading:
                try:
                    return self._lead(answer, deadline)
                finally:
                    self._step_down()
            if not self._follow(answer, wake, deadline):
                return answer.ready

    def _follow(self, answer: Answer, wake: Event, deadline: float) -> bool:
        """Sleep until ``answer`` is settled or its thread is to lead; False if too long."""
        woken = False
        try:
            seconds = deadline - monotonic()
            woken = seconds > 0 and wake.wait(min(seconds, TIMEOUT_MAX))
        finally:
            with self._lock:
                answer.waiters -= 1
                self._followers -= 1
                if not woken and self._leader is None:
                    self._call_next()  # it may have been this thread's turn to lead
        return woken

    def _step_down(self) -> None:
        with self._lock:
            self._leader = None
            if self.closed:
                self._drop_connection()
                self._attachment.close()
            if self._followers:
                self._call_next()
        if self._courier.awake and self._outstanding.is_empty:
            self._courier.dismiss()

    def _call_next(self) -> None:
        answer = self._outstanding.awaited()
        if answer is not None and answer.wake is not None:
            answer.wake.set()

    def _expire(self, answer: Answer, limit: float) -> None:
        with self._lock:
            if not answer.ready:
                self._give_up(answer, limit)

    def _give_up(self, answer: Answer, limit: float) -> None:
        connection = self._connection
        unsent = answer.sent is None or (
            connection is not None and connection.withdraw(answer.id, answer.frame)
        )
        outcome = "it was not sent" if unsent else "it is applied once or not at all"
        error = RequestTimeout(
            f"the writer did not answer {answer.operation} within {limit:g} s: {outcome}",
            operation=answer.operation,
            seconds=limit,
            sent=not unsent,
        )
        self._outstanding.settle(answer.id, None, error)

    # What the leader does. It holds no lock while it waits.

    def _lead(self, answer: Answer, deadline: float) -> bool:
        """Receive for all until ``answer`` is settled; False if that takes too long."""
        while not answer.ready:
            seconds = deadline - monotonic()
            if seconds <= 0:
                return False
            try:
                connection = self._connection
                if connection is None:
                    self._connect(deadline)
                else:
                    answers = connection.receive(seconds)
                    with self._lock:
                        self._deliver(answers)
                    connection.lost = False
            except TimeoutError:
                return False
            except ConnectionError:
                with self._lock:
                    self._drop_connection()
            except ShmstoreError as error:
                with self._lock:
                    self._hang_up(error)
            except BaseException:
                with self._lock:
                    self._abandon()
                raise
        return True

    def _deliver(self, answers: Iterable[tuple[int, Any, ShmstoreError | None]]) -> None:
        for request_id, result, error in answers:
            if request_id == 0:
                raise error or ProtocolError("the server answered what nobody asked")
            self._outstanding.settle(request_id, result, error)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self, deadline: float) -> None:
        """Connect, attach and send what has no answer; settle that if nobody listens any more."""
        try:
            connection = open_connection(
                self._attachment.address, deadline - monotonic(), self._lock
            )
        except (TimeoutError, ShmstoreError):
            raise
        except OSError as error:
            if error.errno in OWN_TROUBLE:
                raise
            gone = self._attachment.gone(error.strerror or str(error))
            with self._lock:
                self._hang_up(gone)
            return
        client_id = self._outstanding.client_id
        try:
            self._attachment.accept(connection.greet(client_id, deadline - monotonic()))
        except ShmstoreError as error:  # also WriterUnavailable: no reason to connect again
            connection.close()
            with self._lock:
                self._hang_up(error)
            return
        except BaseException as error:
            connection.close()
            if isinstance(error, ConnectionError):
                sleep(RECONNECT_PAUSE_SECONDS)
            raise
        with self._lock:
            self._connection = connection
            now = monotonic()
            for answer in self._outstanding.to_resend(now):
                if answer.sent is None:
                    answer.sent = now
                connection.send(answer.id, answer.frame)
