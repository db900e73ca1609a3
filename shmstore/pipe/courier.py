"""Who sends what was kept to go out together, if its owner pauses, and what the socket did not take
while the thread that receives for all has nothing to receive."""

from __future__ import annotations

from threading import Event, Lock, Thread, current_thread

from .connection import Connection

PAUSE_SECONDS = 0.002
"""How long a request may be kept."""
ROOM_SECONDS = 0.05
"""How long at most until it sees that it was dismissed."""


class Courier:
    """A thread that flushes a connection as long as somebody keeps requests there.

    It ends by itself after a pause in which nothing was kept. ``lock`` is the connection's.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._expected: Connection | None = None
        self._thread: Thread | None = None
        self._ended = Event()

    @property
    def awake(self) -> bool:
        """Whether there is a thread that dismiss() could end."""
        return self._thread is not None

    def expect(self, connection: Connection) -> None:
        """Have ``connection`` flushed soon. The caller holds the lock."""
        self._expected = connection
        if self._thread is None:
            self._ended = Event()
            thread = Thread(
                target=self._go_rounds, args=(self._ended,), name="shmstore-courier", daemon=True
            )
            try:
                thread.start()
            except BaseException as error:
                self._ended.set()  # it may run all the same
                if not isinstance(error, (RuntimeError, MemoryError)):
                    raise
                connection.flush()  # no thread can be had, as at the interpreter's end
            else:
                self._thread = thread

    def dismiss(self) -> None:
        """Send what is kept and end the thread. The caller does not hold the lock."""
        with self._lock:
            connection, self._expected = self._expected, None
            if connection is not None:
                connection.flush()
            thread, self._thread = self._thread, None
            self._ended.set()
        if thread is not None:
            thread.join()

    def _go_rounds(self, ended: Event) -> None:
        while not ended.wait(PAUSE_SECONDS):
            with self._lock:
                connection, self._expected = self._expected, None
                if connection is not None:
                    connection.flush()
                elif self._thread is current_thread():
                    self._thread = None
                    return
            while connection is not None and connection.unsent and not ended.is_set():
                if not connection.await_room(ROOM_SECONDS):
                    break
                with self._lock:
                    connection.flush()
