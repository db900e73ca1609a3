"""One connection to a writer: bytes go out, whole messages come in, waits are bounded.

It never closes itself, and it never blocks to send: what the socket does not take at once goes
out with the next message, or while answers are received. So both sides can be full of data without
a deadlock.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from threading import Lock
from time import sleep
from typing import Any, NamedTuple

from .. import protocol, runtime
from ..errors import ProtocolError, ShmstoreError, StoreNotFound, WriterUnavailable

RECEIVE_BYTES = 1 << 16
RECEIVE_BYTES_MAX = 1 << 20
"""Most bytes taken at a time while the rest of a long message is awaited."""
KEPT_MAX = 64
"""So many frames are sent together."""
SLACK = 1.05
"""A wait may last longer than it should by this factor, which saves a system call per request."""
SLACK_SECONDS = 0.001
PAUSE_SECONDS = 0.001
"""Pause when the kernel has no memory for a message."""
WAIT_SECONDS_MAX = 1e6
"""Longest single wait by poll(); who waits longer waits again."""
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_LATER = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS})
"""Errors of a socket that is sound, and that takes or gives nothing now."""
_CREDENTIALS = struct.Struct("3i")


class Greeting(NamedTuple):
    """What the writer said to the hello; ``memory_fd`` belongs to whoever receives this."""

    facts: dict[str, Any]
    memory_fd: int


class Connection:
    """A connected socket with its half-received and half-sent messages.

    One thread at a time may receive. Whoever sends or withdraws holds ``lock``, which receive()
    takes as well while it sends, and never while it waits.
    """

    __slots__ = ("_decoder", "_limit", "_lock", "_socket", "_unsent", "lost", "torn")

    def __init__(self, connected: socket.socket, lock: Lock) -> None:
        self._socket = connected
        self.torn = False
        """Whether it is not known what was sent: nothing can follow, receive() says so."""
        self.lost = False
        """Whether something was received that is not delivered; receive() says so."""
        self._lock = lock
        self._decoder = protocol.FrameDecoder()
        self._unsent: deque[tuple[int, bytes | memoryview]] = deque()
        self._limit = -1.0

    def __del__(self) -> None:
        self._socket.close()

    @property
    def unsent(self) -> bool:
        """Whether something waits to be sent, and can be."""
        return bool(self._unsent) and not self.torn

    def close(self) -> None:
        """Close the socket, in this process."""
        self._socket.close()
        self._unsent.clear()

    def shut_down(self) -> None:
        """End the conversation, in all processes; a thread that is receiving sees its end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, request_id: int, frame: bytes) -> None:
        """Send what the socket takes now, after what was kept; receive() sends the rest.

        A broken connection is not reported here: receive() does, once all answers that still came
        have been received.
        """
        if self._unsent or self.torn:
            self._unsent.append((request_id, frame))
            self.flush()
            return
        sent = 0
        self.torn = True
        try:
            sent = self._socket.send(frame, _SEND_FLAGS)
        except OSError as error:
            if error.errno not in _LATER:
                self.torn = False
                return
        if sent < len(frame):
            self._unsent.append((request_id, memoryview(frame)[sent:]))
        self.torn = False

    def keep(self, request_id: int, frame: bytes) -> None:
        """Send a frame later, together with others: with the next send(), flush() or receive()."""
        self._unsent.append((request_id, frame))
        if len(self._unsent) % KEPT_MAX == 0:
            self.flush()

    def flush(self) -> None:
        """Send what the socket takes now of what waits."""
        unsent = self._unsent
        if self.torn:
            return
        self.torn = True
        with suppress(OSError):  # full for now, or broken: then recv() says so
            while unsent:
                pieces = [piece for _, piece in islice(unsent, KEPT_MAX)]
                sent = self._socket.sendmsg(pieces, (), _SEND_FLAGS)
                while unsent and sent >= len(unsent[0][1]):
                    sent -= len(unsent.popleft()[1])
                if sent:
                    request_id, piece = unsent[0]
                    unsent[0] = request_id, memoryview(piece)[sent:]
        self.torn = False

    def await_room(self, seconds: float) -> bool:
        """Wait until more can be sent, at most so long; False if nothing can any more.

        Any thread may call this, without the lock.
        """
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLOUT)
        except ValueError:  # it was closed
            return False
        ready = poll.poll(seconds * 1000)
        return not ready or ready[0][1] == select.POLLOUT

    def withdraw(self, request_id: int, frame: bytes) -> bool:
        """Take back a request of which no byte was sent; tell whether that was possible."""
        if self.torn:
            return False
        for item in self._unsent:
            if item[0] == request_id and len(item[1]) == len(frame):
                self._unsent.remove(item)
                return True
        return False

    def receive(self, seconds: float) -> Iterable[tuple[int, Any, ShmstoreError | None]]:
        """Wait until something arrives; return the answers that are complete, perhaps none.

        TimeoutError when nothing came for so long, ConnectionError when the other side is gone,
        ProtocolError when it sends what cannot be decoded, WriterUnavailable if it is not known
        what went over it. Whoever has delivered the answers clears ``lost``.
        """
        if self.lost or self.torn:
            self._check_whole()
        if self._unsent and not self._send_rest(seconds):
            return ()
        if not seconds <= self._limit <= seconds * SLACK + SLACK_SECONDS:
            self._limit_waits(seconds)
        missing = self._decoder.missing
        size = RECEIVE_BYTES if missing <= RECEIVE_BYTES else min(missing, RECEIVE_BYTES_MAX)
        self.lost = True
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            self.lost = False
            raise TimeoutError from None
        except OSError as error:
            if error.errno not in _LATER:
                raise ConnectionResetError(*error.args) from None
            self.lost = False
            sleep(PAUSE_SECONDS)
            return ()
        if not data:
            raise ConnectionResetError("the writer hung up")
        return protocol.parse_answers(self._decoder, data)

    def greet(self, client_id: bytes, seconds: float) -> Greeting:
        """Say hello; return what the writer answered, with the descriptor of its segment.

        Raises what receive() does, and the error with which the writer refused.
        """
        self._limit_waits(seconds)
        arguments = [protocol.PROTOCOL_VERSION, client_id]
        self.send(0, protocol.frame_request(0, 0, "hello", arguments))
        descriptors: list[int] = []
        try:
            while self._unsent and not self._send_rest(seconds):
                pass
            while not (messages := self._receive_descriptors(descriptors)):
                pass
            answer = protocol.parse_answer(messages[0])
            if answer.error is not None:
                raise answer.error
            if type(answer.result) is not dict:
                raise ProtocolError("the server did not answer the hello as it should")
            if not descriptors:
                raise ProtocolError("no descriptor came with the answer to the hello")
            return Greeting(answer.result, descriptors.pop())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _receive_descriptors(self, descriptors: list[int]) -> list[bytes | bytearray]:
        try:
            data, received, flags, _ = socket.recv_fds(
                self._socket, RECEIVE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            raise TimeoutError from None
        except OSError as error:
            raise ConnectionResetError(*error.args) from None
        descriptors += received
        if flags & socket.MSG_CTRUNC:  # the kernel's way to say so
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if not data:
            raise ConnectionResetError("the writer hung up")
        return self._decoder.feed(data)

    def _check_whole(self) -> None:
        with self._lock:  # who sends holds it
            if self.lost or self.torn:
                raise interrupted()

    def _limit_waits(self, seconds: float) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, runtime.time_limit(seconds))
        self._limit = seconds

    def _send_rest(self, seconds: float) -> bool:
        """Send; wait until more can be sent, or something received; tell whether to receive."""
        with self._lock:
            self.flush()
        if not self._unsent:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLOUT)
        ready = poll.poll(min(seconds, WAIT_SECONDS_MAX) * 1000)
        if not ready:
            raise TimeoutError
        return bool(ready[0][1] & ~select.POLLOUT)


def interrupted() -> WriterUnavailable:
    """Return the error of all requests on a connection of which it is not known what it carried."""
    return WriterUnavailable(
        "a request was interrupted, and the connection given up with it: what was on its way is "
        "applied once or not at all"
    )


def open_connection(address: str, seconds: float, lock: Lock) -> Connection:
    """Connect to the server at ``address``; its answer to a hello may still take its time.

    Raises TimeoutError, the kernel's OSError where nobody listens, and StoreNotFound where
    another user's process does.
    """
    connected = runtime.connect(address, seconds)
    try:
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(credentials)
        if user != os.geteuid():
            raise StoreNotFound(
                f"{address} is the socket of user {user}, this process runs as {os.geteuid()}",
                address=address,
            )
        return Connection(connected, lock)
    except BaseException:
        connected.close()
        raise
