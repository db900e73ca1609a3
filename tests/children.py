"""Forked children that do something and then stay, until a test kills them."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.waiting import eventually


class Child:
    """A process that was forked; a zombie from its end until the block around it ends."""

    def __init__(self, pid: int, done_fd: int) -> None:
        self.pid = pid
        self._done_fd = done_fd

    def wait_done(self) -> None:
        """Return when the child has done what it was to do; fail if it raised instead."""
        assert os.read(self._done_fd, 1) == b"+", "the child failed"

    def kill(self) -> None:
        """Kill it with SIGKILL, and leave it a zombie."""
        os.kill(self.pid, signal.SIGKILL)
        eventually(lambda: state_of(self.pid) == "Z")


def state_of(pid: int) -> str:
    """Return the letter that /proc has for the state of a process."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(") ")[2][0]


@contextmanager
def forked(function: Callable[[], object], wait: bool = True) -> Iterator[Child]:
    """A forked child that has called ``function``, and sleeps; it is killed, and waited for."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os.write(sender, b"+")
            while True:
                signal.pause()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(sender)
    try:
        child = Child(pid, receiver)
        if wait:
            child.wait_done()
        yield child
    finally:
        os.close(receiver)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
