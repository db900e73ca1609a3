"""The writer process as its supervisor sees it: how it is started, watched and ended.

The writer holds one end of a pair of sockets, its lifeline, whose other end is here: when this
process is gone, the writer sees the end of the lifeline and ends. The other way round, it is seen
here when nobody holds the writer's end any more: a death is noticed at once, and also when the
program around collects the exit statuses of all its children itself. Over its lifeline a writer is
told to begin; until then it has imported everything, and waits.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress

from ..codec import message_unpack
from ..errors import ShmstoreError, rebuild

TERM_SECONDS = 2.0
"""How long a writer may take to end by itself."""
BEGIN = b"!"
BEGUN = b"begun\n"
READY = b"ready\n"
STATUS_BYTES_MAX = 1 << 16
FIRST_DESCRIPTOR = 3
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_COMMAND = """\
import sys
sys.path[:] = {path!r}
from shmstore.writer import main, stand_by
arguments = (*{descriptors!r}, {address!r})
sys.exit(main(*arguments) if stand_by(*arguments) else 0)
"""


class Child:
    """One writer process, with our ends of its lifeline and of its status pipe.

    It leaves the segment alone until it is told to begin.
    """

    def __init__(self, listener_fd: int, memory_fd: int, address: str) -> None:
        """Start the process; OSError if that cannot be done."""
        self.begun = False
        self.ready = False
        self.speaks = True
        """Whether its report may still go on."""
        self._report = b""
        with ExitStack() as theirs, ExitStack() as ours, ExitStack() as on_failure:
            lifeline, end = socket.socketpair()
            self._lifeline = ours.enter_context(lifeline)
            lifeline_fd = theirs.enter_context(end).fileno()
            self.status, status_fd = os.pipe()
            ours.callback(os.close, self.status)
            theirs.callback(os.close, status_fd)
            descriptors = [
                _raised(descriptor, theirs)
                for descriptor in (listener_fd, memory_fd, lifeline_fd, status_fd)
            ]
            command = _COMMAND.format(
                path=_absolute_path(), descriptors=descriptors, address=address
            )
            # In two steps: Popen may fail when the process runs. That would take the end of its
            # lifeline for the end of this one, and remove the socket.
            self._process = subprocess.Popen.__new__(subprocess.Popen)
            on_failure.callback(_kill, self._process)
            self._process.__init__(  # type: ignore[misc]
                [sys.executable, "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
                cwd=_working_directory(),
                start_new_session=True,  # Ctrl-C at the terminal is not meant for it
            )
            _wake_by(lifeline_fd, self._process.pid)
            self._ends = ours.pop_all()
            on_failure.pop_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def lifeline(self) -> int:
        """What poll() says has hung up when the process is gone."""
        return self._lifeline.fileno()

    def begin(self) -> bool:
        """Tell it to take the segment over and serve it; False if it is gone."""
        try:
            self._lifeline.send(BEGIN, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def wait_gone(self, seconds: float | None) -> bool:
        """Wait until the process has let go of its lifeline, no longer than so if not None."""
        poll = select.poll()
        poll.register(self.lifeline, 0)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def read_status(self) -> None:
        """Take in what it reports."""
        data = os.read(self.status, STATUS_BYTES_MAX)
        self.speaks = bool(data)
        self._report += data
        if not self.begun and self._report.startswith(BEGUN):
            self.begun = True
            self._report = self._report[len(BEGUN) :]
        self.ready = self._report.startswith(READY)

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
        if not self.wait_gone(0.0):
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
                os.kill(self.pid, signal.SIGCONT)
            self.wait_gone(TERM_SECONDS)
        self.kill()
        self.collect()

    def kill(self) -> None:
        """End the process by force and wait until it is gone."""
        if not self.wait_gone(0.0):
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait_gone(None)

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


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process whose start failed, if there is one."""
    if getattr(process, "pid", None):
        process.kill()
        process.wait()


def _wake_by(lifeline_fd: int, pid: int) -> None:
    """Have the kernel send SIGCONT to the process with all that comes by its lifeline.

    So the end of the lifeline ends a stopped process, too.
    """
    with suppress(OSError):  # it is gone already
        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, pid)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGCONT)
        flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC)


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
    """Return sys.path as the writer needs it, whatever its working directory.

    This package is found by the last entry at the latest: the program around may have found it by
    an entry that is gone, or by an import hook.
    """
    path = []
    for entry in sys.path:
        with suppress(OSError):  # a relative entry, and the working directory is gone
            path.append(os.path.abspath(entry))
    return [*path, _HOME]
