"""The writer process: it alone changes the segment. Takes it over, serves it, ends cleanly.

The supervisor starts it with everything it needs as inherited descriptors; it opens nothing and
leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

from .. import segment
from ..codec import message_pack
from ..engine import Owner, is_formatted
from ..errors import CorruptSegment, FormatMismatch
from .loop import Loop
from .trouble import log, presentable

EXIT_REFUSED = 3
"""Exit status of a writer that cannot serve this segment; another one could not either."""


def main(listen_fd: int, memory_fd: int, lifeline_fd: int, status_fd: int, socket_path: str) -> int:
    """Serve the segment until SIGTERM, or until ``lifeline_fd`` ends; return the exit status.

    Started by the supervisor, with these descriptors inherited. ``status_fd`` is told "ready", or
    the error because of which there will be no service, and closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who started the server
    listener = socket.socket(fileno=listen_fd)
    own = _identity(socket_path)
    try:
        loop = Loop(_take(memory_fd), listener, segment.open_readonly(memory_fd))
    except Exception as error:
        refusal = presentable(error, "its start")
        _report(status_fd, message_pack([refusal.code, refusal.message, refusal.details]) + b"\n")
        return EXIT_REFUSED if isinstance(error, (CorruptSegment, FormatMismatch)) else 1

    def starter_is_gone() -> None:
        if not os.read(lifeline_fd, 1):
            loop.ended = True
            if own is not None and _identity(socket_path) == own:
                with suppress(OSError):
                    os.unlink(socket_path)

    loop.watch(lifeline_fd, starter_is_gone)
    _end_at_sigterm(loop)
    _report(status_fd, b"ready\n")
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


def _report(status_fd: int, line: bytes) -> None:
    with suppress(OSError):
        os.write(status_fd, line)
    os.close(status_fd)


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another one that took its name."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
