"""A process's end of the pipe: requests, answers, reconnection; safe in threads and after a fork.

Any thread may send; who receives, the line decides. A child process inherits the mapped memory and
nothing else: it opens a connection of its own when it first needs one.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import Any
from weakref import WeakSet

from .. import processes
from ..engine import Reader
from ..errors import (
    ProcessUnseen,
    ProtocolError,
    ReadStalled,
    RequestTimeout,
    ShmstoreError,
    WriterUnavailable,
)
from ..keys import shown
from ..protocol import frame_request
from .line import Line
from .outstanding import Answer, check_timeout

BUSY_REQUESTS = 16
"""With so many requests on their way the writer has enough to do: more may be kept for a moment."""
KEPT_BYTES_MAX = 4096
"""A longer request gains nothing by being sent together with others."""


class Pipe(Line):
    """Requests to the server at ``address``, and reads of its memory; attached at first use.

    Any thread may use it, and after a fork parent and child both may; signal handlers may not.
    ``segment_id`` demands one segment: StoreNotFound if the server has another.
    """

    def __init__(
        self, address: str, timeout: float | None = None, segment_id: bytes | None = None
    ) -> None:
        self.timeout = check_timeout(timeout)
        super().__init__(address, segment_id)
        _pipes.add(self)

    def _start_over(self) -> None:
        super()._start_over()
        self._holder: bytes | None = None

    @property
    def address(self) -> str:
        """The path of the server's socket."""
        return self._attachment.address

    @property
    def segment_id(self) -> bytes | None:
        """The one segment this pipe is for; None before it was attached."""
        return self._attachment.segment_id

    @property
    def reader(self) -> Reader:
        """The reader of the mapped memory; the first use in a process connects to the server.

        It outlives the writer, and the server. Raises what call() does, and StoreNotFound.
        """
        while (reader := self._attachment.reader) is None:
            self.call("ping", [])
        return reader

    def read(self, method: str, *arguments: Any) -> Any:
        """Call a method of the reader; ask the writer if the reader is overtaken on every try."""
        try:
            return getattr(self.reader, method)(*arguments)
        except ReadStalled:
            return self.call("read", [method, list(arguments)])

    def call(self, operation: str, arguments: list[Any], timeout: float | None = None) -> Any:
        """Have the writer do something and return its result; raise its error.

        RequestTimeout when that takes longer than ``timeout`` seconds (those of the pipe if None):
        the writer may still do it, once, or not. WriterUnavailable if the server has ended.
        """
        limit = self.timeout if timeout is None else check_timeout(timeout)
        deadline = monotonic() + limit
        answer = self._post(operation, arguments, deadline, limit)
        if not self._wait(answer, deadline):
            self._expire(answer, limit)
        return answer.result()

    def submit(self, operation: str, arguments: list[Any]) -> Answer:
        """Send a request, and wait for nothing but room where too many are on their way.

        Behind many others it may be kept for some milliseconds, to be sent together with the next.
        RequestTimeout if too many stay on their way for as long as the pipe's timeout.
        """
        return self._post(operation, arguments, monotonic() + self.timeout, self.timeout, True)

    def wait_changed(self, arguments: list[Any], timeout: float | None) -> Any:
        """Have the writer say when a record changes; return what it says.

        RequestTimeout after ``timeout`` seconds, None is no limit; LimitReached if this client
        waits for too many records; WriterUnavailable if the server has ended.
        """
        limit = check_timeout(timeout)
        deadline = monotonic() + limit
        wait = None
        try:
            with self._lock:
                wait = self._begin_wait(arguments)
            if self._wait(wait, deadline):
                return wait.result()
        finally:
            if wait is not None and not wait.ready:
                with self._lock:
                    self._end_wait(wait)
        raise RequestTimeout(
            f"no change of {shown(arguments[2])} in table {shown(arguments[0])} within {limit:g} s",
            operation="wait",
            seconds=limit,
        )

    def open_window(self, offset: int, size: int) -> tuple[Any, int]:
        """Map some bytes of the memory; return what exports them, and where they begin in it.

        ProtocolError if there are no such bytes, LimitReached if this process cannot map more.
        """
        with self._lock:
            if self.closed:
                raise _closed_error()
            return self._attachment.open_window(offset, size)

    def holder(self) -> bytes:
        """Return what stands for this process in the store; ask the writer to watch it first.

        Raises ProcessUnseen, and what call() does.
        """
        if self._holder is None:
            sight = processes.look()
            if sight is None:
                raise ProcessUnseen("/proc does not show this process, so nothing can be held")
            holder = self.call("hold", [sight.start])
            if type(holder) is not bytes:
                raise ProtocolError(f"the writer's answer makes no sense: {shown(holder)}")
            self._holder = holder
        return self._holder

    def close(self) -> None:
        """Hang up and let go of the memory; who still waits gets WriterUnavailable."""
        with self._lock:
            if self._connection is not None and not self.closed:
                self._connection.send(0, self._outstanding.last_words())
            self.closed = True
            self._attachment.close()
            self._hang_up(_closed_error())
        self._courier.dismiss()

    def start_over_in_child(self) -> None:
        """After a fork: leave the connection and the requests to the parent, keep the memory."""
        if self._connection is not None:
            self._connection.close()
        self._outstanding.leave_to_parent(
            WriterUnavailable("this request was sent by the parent process: ask for it there")
        )
        self._start_over()

    # Sending.

    def _post(
        self,
        operation: str,
        arguments: list[Any],
        deadline: float,
        limit: float,
        later: bool = False,
    ) -> Answer:
        while True:
            with self._lock:
                if self.closed:
                    raise _closed_error()
                oldest = self._outstanding.oldest_if_full()
                if oldest is None:
                    return self._begin(operation, arguments, later)
            if not self._wait(oldest, deadline):
                raise RequestTimeout(
                    f"{operation} was not sent: within {limit:g} s the writer has not answered "
                    f"{len(self._outstanding)} earlier requests",
                    operation=operation,
                    seconds=limit,
                    sent=False,
                )

    def _begin(self, operation: str, arguments: list[Any], later: bool) -> Answer:
        try:
            answer = self._outstanding.add(self, operation, arguments)
            connection = self._connection
            if connection is not None:
                answer.sent = monotonic()
                busy = answer.id - self._outstanding.oldest_id >= BUSY_REQUESTS
                if later and busy and len(answer.frame) <= KEPT_BYTES_MAX:
                    connection.keep(answer.id, answer.frame)
                    self._courier.expect(connection)
                else:
                    connection.send(answer.id, answer.frame)
                    if connection.unsent:
                        self._have_rest_sent(connection)
        except ShmstoreError:  # a request that cannot be made; nothing has happened
            raise
        except BaseException:
            self._abandon()
            raise
        return answer

    def _begin_wait(self, arguments: list[Any]) -> Answer:
        if self.closed:
            raise _closed_error()
        try:
            wait = self._outstanding.add_wait(self, arguments)
            if self._connection is not None:
                self._connection.send(wait.id, wait.frame)
                self._have_rest_sent(self._connection)
        except ShmstoreError:
            raise
        except BaseException:
            self._abandon()
            raise
        return wait

    def _end_wait(self, wait: Answer) -> None:
        """Stop waiting: have the writer forget it, too, if it has heard of it."""
        connection, frame = self._connection, wait.frame
        self._outstanding.settle(wait.id, None, None)
        if connection is not None and not connection.withdraw(wait.id, frame):
            connection.send(wait.id, frame_request(wait.id, wait.id, "unwait", []))
            self._have_rest_sent(connection)


def _closed_error() -> WriterUnavailable:
    return WriterUnavailable("this client was closed: connect again")


_pipes: WeakSet[Pipe] = WeakSet()


def _start_over_in_child() -> None:
    for pipe in list(_pipes):
        pipe.start_over_in_child()


os.register_at_fork(after_in_child=_start_over_in_child)
