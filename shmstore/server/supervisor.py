"""The supervisor of a writer: a thread that starts it, notices its death and starts it again.

It holds what must outlive a writer: the listening socket, so that clients always find a server,
and the memory. A forked child of this process gets none of it. Beside a writer that has served for
a while it keeps a *spare*: a process that has done all that takes long at a start, and waits.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import threading
import time
from contextlib import ExitStack, suppress

from .. import runtime
from ..errors import CorruptSegment, FormatMismatch, ShmstoreError, WriterUnavailable
from ..protocol import build_error, frame
from .child import Child

QUICK_DEATH_SECONDS = 0.5
"""A writer that lived shorter counts towards the pause before the next one."""
QUICK_DEATHS_FREE = 3
PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 1.0
SPARE_AFTER_SECONDS = 1.0
"""How long the first writer serves before it gets a spare: short lives need none."""
SPARE_AGAIN_SECONDS = 0.2
"""The same for a writer that was a restart. A spare that dies doubles its successor's time."""
SPARE_DEATHS_COUNTED_MAX = 10
ANSWER_SECONDS = 1.0
"""A spare that does not begin within this time is given up."""
WAIT_SECONDS_MAX = threading.TIMEOUT_MAX

fork_lock = threading.RLock()
"""Held while descriptors are made and noted: no child may be forked in between, see below."""


class Supervisor:
    """Keeps one server alive until close(): the thread, the socket, the memory, the writer.

    Owns ``bound`` and ``memory_fd`` once it is made. Made with fork_lock held. In a forked child
    nothing is left of it but the object.
    """

    def __init__(self, bound: runtime.Bound, memory_fd: int, lazy: bool) -> None:
        self.failure: ShmstoreError | None = None
        """Why there is no writer and will be none."""
        self.decided = threading.Event()
        """Set when the first writer is ready, and when there will be none."""
        self._bound = bound
        self._memory_fd = memory_fd
        self._lazy = lazy
        self._owner = os.getpid()
        self._writer: Child | None = None
        self._spare: Child | None = None
        self._spare_deaths = 0
        self._spare_at: float | None = None
        self._close_lock = threading.Lock()
        self._closed = False
        self._alarm, self._alarm_end = os.pipe()
        self._thread = threading.Thread(
            target=self._run, name=f"shmstore supervisor of {bound.address}", daemon=True
        )
        try:
            self._thread.start()
        except BaseException as error:
            os.close(self._alarm)
            os.close(self._alarm_end)
            if isinstance(error, RuntimeError):
                raise WriterUnavailable(f"nothing can keep a writer alive: {error}") from None
            raise
        _supervisors.add(self)

    @property
    def is_ours(self) -> bool:
        """Whether this process started the server, and is not a child that was forked since."""
        return self._owner == os.getpid()

    @property
    def writer_pid(self) -> int | None:
        """The process id of the writer; None while there is none."""
        writer = self._writer
        return None if writer is None else writer.pid

    @property
    def spare_pid(self) -> int | None:
        """The process id of the spare; None while there is none."""
        spare = self._spare
        return None if spare is None else spare.pid

    def close(self) -> None:
        """End the writer and the thread, remove the socket. Nothing in a forked child."""
        if not self.is_ours:
            return
        with self._close_lock, ExitStack() as rest:
            if self._closed:
                return
            # Whatever fails: without its lifeline a writer ends by itself.
            rest.callback(self._let_go)
            runtime.unlink(self._bound)
            with fork_lock:
                self._closed = True
                with suppress(OSError):
                    os.write(self._alarm_end, b"!")
                os.close(self._alarm_end)  # which is an order, too
            self._thread.join()
            if self._spare is not None:
                self._drop(self._spare)
            if self._writer is not None:
                self._writer.end()

    def _let_go(self) -> None:
        with fork_lock:
            _supervisors.discard(self)
            self._close_descriptors()

    def disown(self) -> None:
        """In a forked child: close what was inherited; it is to live as long as its parent."""
        for child in (self._writer, self._spare):
            if child is not None:
                child.disown()
        self._close_descriptors()
        if not self._closed:
            os.close(self._alarm_end)

    def _close_descriptors(self) -> None:
        for child in (self._writer, self._spare):
            if child is not None:
                child.close()
        self._writer = self._spare = None
        self._bound.listener.close()
        for descriptor in (self._memory_fd, self._alarm):
            os.close(descriptor)

    # The thread.

    def _run(self) -> None:
        try:
            first = self._bound.listener.fileno() if self._lazy else None
            if first is None or not self._told_to_close(None, first):
                self._keep_serving()
        except Exception as error:
            self.failure = WriterUnavailable(f"the supervisor ended: {error!r}")
        if self.failure is not None:
            runtime.unlink(self._bound)
            if self._spare is not None:
                self._drop(self._spare)  # it holds the listener as well
            self._turn_away(self.failure)
            with fork_lock:
                self._bound.listener.close()
        self.decided.set()

    def _turn_away(self, failure: ShmstoreError) -> None:
        """Tell those who wait to be greeted why nobody will."""
        if not isinstance(failure, WriterUnavailable):
            failure = WriterUnavailable(f"the server has ended: {failure}")
        message = frame(build_error(0, failure))
        listener = self._bound.listener
        with suppress(OSError):  # there is nobody more, or no descriptor for one
            listener.setblocking(False)
            while True:
                with listener.accept()[0] as waiting, suppress(OSError):
                    waiting.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _keep_serving(self) -> None:
        quick_deaths = 0
        while (lived := self._serve_once()) is not None and self.failure is None:
            quick_deaths = quick_deaths + 1 if lived < QUICK_DEATH_SECONDS else 0
            if quick_deaths > QUICK_DEATHS_FREE:
                pause = PAUSE_SECONDS * 2.0 ** min(quick_deaths - QUICK_DEATHS_FREE, 10)
                if self._told_to_close(min(pause, PAUSE_SECONDS_MAX)):
                    return

    def _serve_once(self) -> float | None:
        """Start a writer and watch it; return how long it lived, None when told to close."""
        started = time.monotonic()
        try:
            if self._writer is not None:
                self._drop(self._writer)  # left by a turn that failed
            writer = self._begin_spare() or self._begin_fresh()
            if not self._watch(writer):
                return None
            status = self._drop(writer)
        except Exception as error:  # no descriptors, no memory, no processes
            if not (self._lazy and isinstance(error, OSError)):  # there, clients wait for better
                self._judge(WriterUnavailable(f"no writer process can be started: {error!r}"))
            return 0.0
        lived = time.monotonic() - started if writer.ready else 0.0
        if not writer.ready:
            self._judge(
                writer.refusal()
                or WriterUnavailable(
                    f"the writer process ended with status {status} before it was ready; what it "
                    f"wrote to standard error says why"
                )
            )
        return lived

    def _begin_fresh(self) -> Child:
        with fork_lock:
            writer = self._writer = self._new_child()
        if not writer.begin() and not writer.wait_gone(0.0):
            raise ConnectionError("it cannot be told to begin")
        return writer

    def _begin_spare(self) -> Child | None:
        """Make the spare the writer; None if there is none that answers."""
        with fork_lock:
            spare, self._spare = self._spare, None
            self._writer = spare
        if spare is None:
            return None
        deadline = time.monotonic() + ANSWER_SECONDS
        alive = spare.begin()
        while alive and not spare.begun:
            seconds = deadline - time.monotonic()
            ready = self._poll(max(0.0, seconds), spare)
            if self._alarm in ready:
                return spare
            if spare.status in ready:
                spare.read_status()
            alive = seconds > 0 and spare.speaks
        if not alive:
            self._drop(spare)
            return None
        self._spare_deaths = 0
        return spare

    def _new_child(self) -> Child:
        return Child(self._bound.listener.fileno(), self._memory_fd, self._bound.address)

    def _judge(self, error: ShmstoreError) -> None:
        """Decide whether another writer is worth a try after one that never became ready."""
        served_before = self.decided.is_set()
        if not served_before or isinstance(error, (CorruptSegment, FormatMismatch)):
            self.failure = error

    def _watch(self, writer: Child) -> bool:
        """Wait until the writer is gone, and keep a spare; False when told to close before that."""
        patience = SPARE_AGAIN_SECONDS if self.decided.is_set() else SPARE_AFTER_SECONDS
        self._spare_at = None
        while True:
            ready = self._poll(self._seconds_to_spare(), writer)
            if self._alarm in ready:
                return False
            if writer.status in ready:
                writer.read_status()
            elif writer.lifeline in ready:
                return True  # all that it had to say was read
            if writer.ready:
                self.decided.set()
                self._tend_spare(ready, patience)

    # The spare. Without one everything works as well, after a while longer.

    def _tend_spare(self, ready: dict[int, int], patience: float) -> None:
        """Make one when its time has come; plan the next one when it died."""
        spare, now = self._spare, time.monotonic()
        if spare is not None and spare.lifeline in ready:
            self._drop(spare)
            self._spare_deaths += 1
            self._spare_at = None
        elif spare is None and self._spare_at is not None and now >= self._spare_at:
            try:
                with fork_lock:
                    self._spare = self._new_child()
            except Exception:  # no descriptors, no memory, no processes: whatever is the matter
                self._spare_deaths += 1
                self._spare_at = None
        if self._spare_at is None:
            deaths = min(self._spare_deaths, SPARE_DEATHS_COUNTED_MAX)
            self._spare_at = now + patience * 2.0**deaths

    def _seconds_to_spare(self) -> float | None:
        if self._spare is not None or self._spare_at is None:
            return None
        return max(0.0, self._spare_at - time.monotonic())

    def _drop(self, child: Child) -> int:
        """End a process that is gone, or of no use; return its exit status as far as known."""
        child.kill()
        with fork_lock:
            # First: a process id that was waited for may become another's.
            if child is self._writer:
                self._writer = None
            else:
                self._spare = None
            status = child.collect()
            child.close()
        return status

    # Waiting.

    def _poll(self, seconds: float | None, child: Child) -> dict[int, int]:
        """Wait for the order to close, for news of the child, and for the spare's end."""
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        poll.register(child.lifeline, 0)
        if child.speaks:
            poll.register(child.status, select.POLLIN)
        if self._spare is not None:
            poll.register(self._spare.lifeline, 0)
        return dict(poll.poll(None if seconds is None else seconds * 1000))

    def _told_to_close(self, seconds: float | None, descriptor: int | None = None) -> bool:
        """Wait for the order to close, but no longer than so, or until ``descriptor`` is ready."""
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        with suppress(OSError):
            return self._alarm in dict(poll.poll(None if seconds is None else seconds * 1000))
        return False


_supervisors: set[Supervisor] = set()


def _close_all() -> None:
    for supervisor in list(_supervisors):
        supervisor.close()


def _disown_all() -> None:
    global fork_lock
    fork_lock = threading.RLock()
    for supervisor in _supervisors:
        supervisor.disown()
    _supervisors.clear()


atexit.register(_close_all)
os.register_at_fork(
    before=lambda: fork_lock.acquire(),
    after_in_parent=lambda: fork_lock.release(),
    after_in_child=_disown_all,
)
