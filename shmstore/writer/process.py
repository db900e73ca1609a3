"""The writer process: it alone changes the segment. Takes it over, serves it, ends cleanly.

The supervisor starts it with everything it needs as inherited descriptors; it opens nothing and
leaves nothing behind. It may be started long before it is needed, and stand by.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from time import monotonic

from .. import runtime, segment
from ..codec import message_pack
from ..engine import Owner, is_formatted
from ..errors import CorruptSegment, FormatMismatch, ShmstoreError, WriterUnavailable
from .loop import Loop
from .trouble import log, presentable

EXIT_REFUSED = 3
"""Exit status of a writer that cannot serve this segment; another one could not either."""
LOCK_SECONDS_MAX = 0.5
"""How long a process that holds the lock of the directory may keep this one from ending."""


def stand_by(
    listen_fd: int, memory_fd: int, lifeline_fd: int, status_fd: int, socket_path: str
) -> bool:
    """Wait to be told to serve, by a byte on ``lifeline_fd``; False if that ends instead.

    The segment is not touched. ``status_fd`` is told "begun" when the byte came.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    own = _identity(socket_path)
    if _has_ended(lifeline_fd, None):
        _unlink(socket_path, own)
        return False
    _tell(status_fd, b"begun\n")
    return True


def main(listen_fd: int, memory_fd: int, lifeline_fd: int, status_fd: int, socket_path: str) -> int:
    """Serve the segment until SIGTERM, or until ``lifeline_fd`` ends; return the exit status.

    Started by the supervisor, with these descriptors inherited. ``status_fd`` is told "ready", or
    the error because of which there will be no service, and closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who started the server
    listener = socket.socket(fileno=listen_fd)  # open to the end: no other file has its identity
    own = _identity(socket_path)
    try:
        return _serve(listener, memory_fd, lifeline_fd, status_fd)
    finally:
        if _has_ended(lifeline_fd, 0):
            _unlink(socket_path, own)


def _serve(listener: socket.socket, memory_fd: int, lifeline_fd: int, status_fd: int) -> int:
    try:
        loop = Loop(_take(memory_fd), listener, segment.open_readonly(memory_fd))

        def end() -> None:
            loop.ended = True

        loop.watch(lifeline_fd, end)
        _end_at_sigterm(loop)
    except Exception as error:
        if isinstance(error, OSError):
            refusal: ShmstoreError = WriterUnavailable(f"the writer process cannot start: {error}")
        else:
            refusal = presentable(error, "its start")
        _report(status_fd, message_pack([refusal.code, refusal.message, refusal.details]) + b"\n")
        return EXIT_REFUSED if isinstance(error, (CorruptSegment, FormatMismatch)) else 1

    if not _report(status_fd, b"ready\n"):
        return 1  # it would wait for ever
    try:
        loop.run()
    except Exception as error:
        # The segment is as a killed writer leaves it; the next one takes it over.
        log(f"ends: {type(error).__name__}: {error}")
        return 1
    return 0


def _take(memory_fd: int) -> Owner:
    memory = segment.map_writable(memory_fd)
    extents = segment.Extents(memory_fd, memory)
    take = Owner.take_over if is_formatted(memory) else Owner.create
    return take(memory, extents.extend, extents.release)


def _end_at_sigterm(loop: Loop) -> None:
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def end() -> None:
        receiver.recv(1)
        loop.ended = True

    signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    loop.watch(receiver.fileno(), end)


def _has_ended(lifeline_fd: int, milliseconds: float | None) -> bool:
    """Wait so long (None: as long as it takes) for news by the lifeline; tell if it is its end."""
    waiting = select.poll()  # a process that waits in read() is not sent the signal that wakes it
    waiting.register(lifeline_fd, select.POLLIN)
    return bool(waiting.poll(milliseconds)) and not os.read(lifeline_fd, 1)


def _report(status_fd: int, line: bytes) -> bool:
    """Tell the supervisor, and close; False if it still listens and cannot be told."""
    told = _tell(status_fd, line)
    os.close(status_fd)
    return told


def _tell(status_fd: int, line: bytes) -> bool:
    try:
        while line:
            line = line[os.write(status_fd, line) :]
    except BrokenPipeError:
        pass
    except OSError:
        return False
    return True


def _unlink(path: str, own: tuple[int, int] | None) -> None:
    """Remove the socket's file if it is still the one that was served.

    Locked, because a writer and one that stands by may come here at once, and another server may
    take the name as soon as the file is gone.
    """
    folder = os.path.dirname(path)
    with suppress(OSError, ShmstoreError), runtime.locked(folder, monotonic() + LOCK_SECONDS_MAX):
        if own is not None and _identity(path) == own:
            os.unlink(path)


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one that took its name."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
