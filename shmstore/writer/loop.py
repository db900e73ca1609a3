"""The writer's loop: what has arrived from all clients is applied, committed and answered.

No client can make it wait: what cannot be received or sent at once is left for later, a client
that does not read its answers is not served until it does, and none gets more than its turn.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from .. import layout
from ..engine import Owner
from ..errors import FormatMismatch, ProtocolError, ShmstoreError
from ..protocol import (
    INQUIRIES,
    MUTATIONS,
    PROTOCOL_VERSION,
    Request,
    build_answer,
    build_error,
    parse_hello,
    parse_request,
)
from .batch import Batch
from .holders import Holders
from .inquiries import LATER, Inquiries
from .operations import Operations
from .peer import Peer
from .sessions import Sessions
from .trouble import presentable
from .waits import Waits

ACCEPTS_MAX = 64
"""Connections accepted in one turn."""
EVENTS_MAX = 64
"""Descriptors that are looked at in one turn; the others follow in the next."""
TURN_REQUESTS_MAX = 128
"""Requests of one client applied in one turn."""
ACCEPT_AGAIN_SECONDS = 1.0
"""Pause after the descriptors ran out."""
SETTLE_SECONDS = 1.0
"""How long after the last mutation the memory that is held back for readers is given up."""


class Loop:
    """All clients of one writer. ``step`` is one turn."""

    def __init__(
        self,
        owner: Owner,
        listener: socket.socket,
        reader_fd: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve ``owner`` to who connects to ``listener``, and hand out ``reader_fd``."""
        self.ended = False
        self._owner = owner
        self._listener = listener
        self._reader_fd = reader_fd
        self._now = now
        self._sessions = Sessions(owner, now)
        operations = Operations(owner)
        self._batch = Batch(owner, operations, self._sessions)
        self._peers: dict[int, Peer] = {}
        self._requests: Counter[str] = Counter()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._accept_at: float | None = None
        self._settle_at: float | None = None
        self._settled = 0
        self._uid = os.geteuid()
        self._poll = select.epoll()
        self._waits: Waits[Peer] = Waits(owner)
        self._holders = Holders(owner, operations, self, now)
        self._inquiries = Inquiries(owner, self._holders, self._waits, self._figures)
        listener.setblocking(False)
        self.watch(listener.fileno(), self._accept)

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call ``handler`` in each turn in which ``fd`` can be read, or has ended."""
        self._poll.register(fd, select.EPOLLIN)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Do not look at ``fd`` any more, which is still open."""
        self._poll.unregister(fd)
        del self._handlers[fd]

    def run(self) -> None:
        """Serve until the end."""
        seconds = self._due_seconds()
        while not self.ended:
            seconds = self.step(seconds)

    def step(self, seconds: float | None = 0.0) -> float | None:
        """Wait so long for something to do (None: as long as it takes), and do it.

        Return how long the next turn may wait. Whoever waits for an answer waits for what stands
        here before it is sent, so what can be done afterwards is.
        """
        active = []
        for fd, events in self._poll.poll(seconds, EVENTS_MAX):
            peer = self._peers.get(fd)
            if peer is None:
                self._handlers[fd]()
            else:
                self._hear(peer, events)
                active.append(peer)
        if len(active) != 1 or not self._run(active[0]):
            for peer in active:
                self._serve(peer)
            self._batch.commit()
        for peer in active:
            self._settle(peer)
        self._wake()
        due = self._due_seconds()
        if due == 0.0:
            self._tidy()
            self._wake()
            due = self._due_seconds()
        return due

    def close(self) -> None:
        """Close all connections; those who asked are not answered any more."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self._holders.close()
        self._poll.close()

    # Connections

    def _accept(self) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                connected, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptors left, or who called is gone already
                self._poll.modify(self._listener, 0)
                self._accept_at = self._now() + ACCEPT_AGAIN_SECONDS
                return
            self._admit(connected)

    def _admit(self, connected: socket.socket) -> None:
        try:
            peer = Peer(connected)
        except OSError:  # the kernel has no memory to say who it is
            connected.close()
            return
        try:
            if peer.uid != self._uid:
                peer.close()
                return
            self._poll.register(peer.fd, peer.events)
        except OSError:  # the kernel has no memory for one more; the client connects again
            peer.close()
            return
        self._peers[peer.fd] = peer

    def _hear(self, peer: Peer, events: int) -> None:
        if events & select.EPOLLOUT:
            peer.flush()
        if peer.events & select.EPOLLIN:
            if events & ~select.EPOLLOUT:
                peer.receive()
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            peer.ended = True

    def _run(self, peer: Peer) -> bool:
        """Apply the one request of the only client that asks, if it is plain; tell whether it was.

        It is a batch by itself: nobody else is here to share one.
        """
        if len(peer.requests) != 1 or not peer.greeted:
            return False
        operation = self._batch.run(peer, peer.requests[0])
        if operation is None:
            return False
        del peer.requests[0]
        self._requests[operation] += 1
        return True

    def _serve(self, peer: Peer) -> None:
        """Apply the requests of a client, within its turn."""
        left = TURN_REQUESTS_MAX
        while left > 0 and peer.servable:
            if peer.greeted:
                plain = self._batch.add_plain(peer, peer.requests, left)
                for operation in plain:
                    self._requests[operation] += 1
                left -= len(plain)
                if not peer.requests or left == 0:
                    return
            left -= 1
            try:
                self._handle(peer, parse_request(peer.requests.popleft()))
            except ShmstoreError as error:
                self._batch.commit()  # what came before it is answered before it
                peer.refuse(error)

    def _settle(self, peer: Peer) -> None:
        """Send what can be sent; close the connection or see what to wait for."""
        peer.flush()
        if peer.ended:
            self._close(peer)
            return
        wanted = peer.wanted_events
        if wanted != peer.events:
            peer.events = wanted
            self._poll.modify(peer.fd, wanted)

    def _wake(self) -> None:
        """Tell those who wait for records that were committed."""
        for peer in self._waits.wake():
            self._settle(peer)

    def _close(self, peer: Peer) -> None:
        if self._peers.get(peer.fd) is not peer:
            return
        del self._peers[peer.fd]
        self._poll.unregister(peer.fd)
        peer.close()
        self._waits.end_all(peer)
        if peer.greeted:
            self._sessions.hang_up(peer.session)

    # Requests

    def _handle(self, peer: Peer, request: Request) -> None:
        operation = request.operation
        self._requests[operation] += 1
        if not peer.greeted:
            self._greet(peer, request)
        elif operation in MUTATIONS:
            self._batch.add(peer, request)
        elif operation in INQUIRIES:
            self._answer_inquiry(peer, request)
        elif operation == "bye":
            self._say_goodbye(peer, request)
        else:
            raise ProtocolError(f"request {request.id}: {operation!r} out of place")

    def _greet(self, peer: Peer, request: Request) -> None:
        version, client_id = parse_hello(request)
        if version != PROTOCOL_VERSION:
            raise FormatMismatch(
                f"the client speaks version {version} of the protocol, the server version "
                f"{PROTOCOL_VERSION}: give both the same release of shmstore",
                client=version,
                server=PROTOCOL_VERSION,
            )
        for other in list(self._peers.values()):
            if other.greeted and other.session.client_id == client_id:
                self._batch.commit()
                other.leave()
                self._close(other)
        facts = {
            "pid": os.getpid(),
            "segment": self._owner.reader.segment_id,
            "capacity": self._owner.reader.capacity,
            "format": layout.FORMAT_VERSION,
        }
        session = self._sessions.attach(client_id)
        peer.greet(session, build_answer(request.id, facts), self._reader_fd)

    def _say_goodbye(self, peer: Peer, request: Request) -> None:
        self._batch.commit()
        self._sessions.forget(peer.session)
        peer.deliver(build_answer(request.id, None))
        peer.leave()

    def _answer_inquiry(self, peer: Peer, request: Request) -> None:
        """Answer from what is committed, with what the client did before."""
        self._batch.commit()
        try:
            result = self._inquiries.answer(peer, request)
            if result is LATER:
                return
            answer = build_answer(request.id, result)
        except Exception as error:
            answer = build_error(request.id, presentable(error, request.operation))
        peer.deliver(answer)

    def _figures(self) -> dict[str, Any]:
        return {
            "connections": len(self._peers),
            "sessions": len(self._sessions),
            "batches": self._batch.committed,
            "holders": len(self._holders),
            "waits": len(self._waits),
            "requests": dict(self._requests),
        }

    # What is to be done later

    def _due_seconds(self) -> float | None:
        if self._batch.committed != self._settled:
            self._settled = self._batch.committed
            self._settle_at = self._now() + SETTLE_SECONDS
        due = self._sessions.due_seconds()
        for at in (self._accept_at, self._settle_at, self._holders.look_at):
            if at is not None:
                seconds = max(0.0, at - self._now())
                due = seconds if due is None or seconds < due else due
        return due

    def _tidy(self) -> None:
        if self._settle_at is not None and self._settle_at <= self._now():
            more = self._owner.settle()
            self._settle_at = self._now() if more else None
        if self._accept_at is not None and self._accept_at <= self._now():
            self._accept_at = None
            self._poll.modify(self._listener, select.EPOLLIN)
        if self._sessions.due_seconds() == 0.0:
            self._sessions.sweep()
        if self._holders.look_at is not None and self._holders.look_at <= self._now():
            self._holders.tidy()
