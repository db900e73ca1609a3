"""The writer's end of one connection: its half-received requests and its unsent answers.

Nothing here blocks and nothing raises for what the other side does: a peer that is gone or that
broke the protocol is marked as ``ended``, and whoever owns it closes it.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections import deque

from ..errors import ProtocolError, ShmstoreError
from ..protocol import FrameDecoder, build_error, frame
from .sessions import Session

RECEIVE_BYTES = 1 << 16
RECEIVE_BYTES_MAX = 1 << 18
"""Bytes taken at once: a share of many small requests, or a piece of a large one."""
UNSENT_BYTES_MAX = 1 << 20
"""A peer with more unsent answers gets no more requests applied until it reads some."""

_LATER = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS})
"""Errors of a socket that is sound, and that takes or gives nothing now."""
_CREDENTIALS = struct.Struct("3i")


class Peer:
    """A connected client."""

    __slots__ = (
        "_decoder", "_socket", "_unsent", "ended", "events", "fd", "greeted", "pid", "requests",
        "session", "uid",
    )  # fmt: skip

    session: Session
    """Set by the hello."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self.fd = connected.fileno()
        size = _CREDENTIALS.size
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(credentials)
        """The process that connected, and its user; the id is 0 if it is not one of this system."""
        self.requests: deque[bytes | bytearray] = deque()
        """Messages that were received and not looked at yet."""
        self.greeted = False
        """Whether it has a session."""
        self.ended = False
        """Whether it is to be closed once its answers were offered to the socket."""
        self.events = select.EPOLLIN
        """What its owner waits for."""
        self._decoder = FrameDecoder()
        self._unsent = bytearray()

    @property
    def servable(self) -> bool:
        """Whether it has requests, and reads its answers."""
        return bool(self.requests) and len(self._unsent) < UNSENT_BYTES_MAX

    @property
    def wanted_events(self) -> int:
        """What to wait for: no new requests while old ones or their answers are waiting."""
        if self.requests:
            return select.EPOLLOUT
        receiving = select.EPOLLIN if len(self._unsent) < UNSENT_BYTES_MAX else 0
        return receiving | (select.EPOLLOUT if self._unsent else 0)

    def receive(self) -> None:
        """Take what has arrived."""
        missing = self._decoder.missing
        size = RECEIVE_BYTES if missing <= RECEIVE_BYTES else min(missing, RECEIVE_BYTES_MAX)
        try:
            data = self._socket.recv(size)
        except OSError as error:
            if error.errno in _LATER:
                return
            data = b""
        if not data:
            self.ended = True
            return
        try:
            self.requests += self._decoder.feed(data)
        except ProtocolError as error:
            self.refuse(error)

    def deliver(self, answer: bytes) -> None:
        """Queue an answer."""
        self._unsent += frame(answer)

    def refuse(self, error: ShmstoreError) -> None:
        """Say why the connection ends, and end it."""
        self.deliver(build_error(0, error))
        self.requests.clear()
        self.ended = True

    def greet(self, session: Session, answer: bytes, memory_fd: int) -> None:
        """Answer the hello, and hand out the descriptor of the segment."""
        self.session = session
        self.greeted = True
        data = frame(answer)
        try:
            sent = socket.send_fds(self._socket, [data], [memory_fd])
        except OSError:
            self.ended = True
            return
        self._unsent += data[sent:]

    def leave(self) -> None:
        """End the connection, and part with the session."""
        self.greeted = False
        self.requests.clear()
        self.ended = True

    def flush(self) -> None:
        """Send what the socket takes."""
        unsent = self._unsent
        if not unsent:
            return
        try:
            sent = self._socket.send(unsent)
        except OSError as error:
            self.ended = self.ended or error.errno not in _LATER
            return
        del unsent[:sent]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
