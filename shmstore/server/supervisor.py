"""The supervisor of a writer: a thread that starts it, notices its death and starts it again.

It holds what must outlive a writer: the listening socket, so that clients always find a server,
and the memory. A forked child of this process gets none of it.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time

from .. import runtime
from ..errors import CorruptSegment, FormatMismatch, ShmstoreError, WriterUnavailable
from .child import Child

QUICK_DEATH_SECONDS = 0.5
"""A writer that lived shorter counts towards the pause before the next one."""
QUICK_DEATHS_FREE = 3
PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 1.0
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
        self._close_lock = threading.Lock()
        self._closed = False
        self._alarm, self._alarm_end = os.pipe()
        self._thread = threading.Thread(
            target=self._run, name=f"shmstore supervisor of {bound.address}", daemon=True
        )
        try:
            self._thread.start()
        except BaseException:
            os.close(self._alarm)
            os.close(self._alarm_end)
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

    def close(self) -> None:
        """End the writer and the thread, remove the socket. Nothing in a forked child."""
        if not self.is_ours:
            return
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            runtime.unlink(self._bound)
            os.write(self._alarm_end, b"!")
            self._thread.join()
            if self._writer is not None:
                self._writer.end()
            with fork_lock:
                _supervisors.discard(self)
                self._close_descriptors()

    def disown(self) -> None:
        """In a forked child: close what was inherited; it is to live as long as its parent."""
        if self._writer is not None:
            self._writer.disown()
            self._writer = None
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._bound.listener.close()
        for descriptor in (self._memory_fd, self._alarm, self._alarm_end):
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
            with fork_lock:
                self._bound.listener.close()
        self.decided.set()

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
            with fork_lock:
                writer = self._writer = Child(
                    self._bound.listener.fileno(), self._memory_fd, self._bound.address
                )
        except OSError as error:
            self._judge(WriterUnavailable(f"no writer process can be started: {error}"))
            return 0.0
        if not self._watch(writer):
            return None
        with fork_lock:
            self._writer = None  # first: a process id that was waited for may become another's
            status = writer.collect()
            writer.close()
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

    def _judge(self, error: ShmstoreError) -> None:
        """Decide whether another writer is worth a try after one that never became ready."""
        served_before = self.decided.is_set()
        if not served_before or isinstance(error, (CorruptSegment, FormatMismatch)):
            self.failure = error

    def _watch(self, writer: Child) -> bool:
        """Wait until the writer is gone; False when told to close before that."""
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        poll.register(writer.lifeline, 0)
        poll.register(writer.status, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._alarm in ready:
                return False
            if writer.status in ready and not writer.read_status():
                poll.unregister(writer.status)
            if writer.ready:
                self.decided.set()
            if writer.lifeline in ready and writer.status not in ready:
                return True  # all that it had to say was read

    def _told_to_close(self, seconds: float | None, descriptor: int | None = None) -> bool:
        """Wait for the order to close, but no longer than so, or until ``descriptor`` is ready."""
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
        return self._alarm in dict(poll.poll(None if seconds is None else seconds * 1000))


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
