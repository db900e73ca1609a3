"""The writer process as its supervisor sees it: how it is started, watched and ended.

The writer holds the reading end of a pipe, its lifeline, whose other end is here: when this
process is gone, the writer sees the end of the pipe and ends. The other way round, it is seen here
when nobody holds the reading end any more: a death is noticed at once, and also when the program
around collects the exit statuses of all its children itself.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress

from ..codec import message_unpack
from ..errors import ShmstoreError, rebuild

TERM_SECONDS = 2.0
"""How long a writer may take to end by itself."""
READY = b"ready\n"
STATUS_BYTES_MAX = 1 << 16
FIRST_DESCRIPTOR = 3
_COMMAND = """\
import sys
sys.path[:] = {path!r}
from shmstore.writer import main
sys.exit(main(*{descriptors!r}, {address!r}))
"""


class Child:
    """One writer process, with our ends of its lifeline and of its status pipe."""

    def __init__(self, listener_fd: int, memory_fd: int, address: str) -> None:
        """Start the process; OSError if that cannot be done."""
        self.ready = False
        self._report = b""
        with ExitStack() as theirs, ExitStack() as ours:
            lifeline_fd, self.lifeline = _make_pipe(theirs, ours)
            self.status, status_fd = _make_pipe(ours, theirs)
            descriptors = [
                _raised(descriptor, theirs)
                for descriptor in (listener_fd, memory_fd, lifeline_fd, status_fd)
            ]
            command = _COMMAND.format(
                path=_absolute_path(), descriptors=descriptors, address=address
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
                cwd=_working_directory(),
                start_new_session=True,  # Ctrl-C at the terminal is not meant for it
            )
            self._ends = ours.pop_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_gone(self, seconds: float) -> bool:
        """Wait until the process has let go of its lifeline."""
        poll = select.poll()
        poll.register(self.lifeline, 0)
        return bool(poll.poll(seconds * 1000))

    def read_status(self) -> bool:
        """Take in what it reports; False at the end of the report."""
        data = os.read(self.status, STATUS_BYTES_MAX)
        self._report += data
        self.ready = self._report.startswith(READY)
        return bool(data)

    def refusal(self) -> ShmstoreError | None:
        """Return why it does not serve this segment, if that is what it said."""
        if self.ready or not self._report:
            return None
        try:
            code, message, details = message_unpack(self._report[:-1])  # a line feed ends it
        except (ShmstoreError, ValueError, TypeError):
            return None
        return rebuild(code, message, details)

    def end(self) -> None:
        """End the process, by force if it does not end itself; it may be stopped."""
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, 0.0)):
            if self.wait_gone(0.0):
                break
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
                os.kill(self.pid, signal.SIGCONT)
            self.wait_gone(seconds)
        self.collect()

    def collect(self) -> int:
        """Wait for the process, which is gone or going; return its exit status as far as known."""
        return self._process.wait()

    def close(self) -> None:
        """Close our ends of the pipes, which tells the process to end if it still runs."""
        self._ends.close()

    def disown(self) -> None:
        """In a forked child: close what was inherited; the process is another's child."""
        self.close()
        self._process.returncode = 0  # else Popen complains that it was not waited for


def _make_pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end, stack in zip(ends, (reader, writer), strict=True):
        stack.callback(os.close, end)
    return ends


def _raised(descriptor: int, stack: ExitStack) -> int:
    """Return a copy out of the way of the standard streams, which the child gets anew."""
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR)
    stack.callback(os.close, copy)
    return copy


def _working_directory() -> str | None:
    """Return another directory if that of this process is gone: not every Python starts in it."""
    try:
        os.getcwd()
    except OSError:
        return "/"
    return None


def _absolute_path() -> list[str]:
    """Return sys.path as the writer needs it, whatever its working directory."""
    path = []
    for entry in sys.path:
        with suppress(OSError):  # a relative entry, and the working directory is gone
            path.append(os.path.abspath(entry))
    return path
