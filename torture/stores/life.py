"""How many stores a writer has left before it is killed, and images of what it leaves behind."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

VARIABLE = "SHMSTORE_STORE_BUDGET"
ENDLESS = -1


class StoreBudget:
    """The account that torture/native/budget.h draws on, in every process started from here.

    Also that of the pure engine, after ``watch_pure``. A writer is killed *before* the first store
    that it cannot pay for.
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create("budget")
        os.ftruncate(self._fd, mmap.PAGESIZE)
        self._memory = mmap.mmap(self._fd, mmap.PAGESIZE)
        self._words = memoryview(self._memory).cast("q")
        os.environ[VARIABLE] = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.disarm()

    def arm(self, stores: int, then: int = ENDLESS, also: int = 0) -> None:
        """Let the next kill come after so many stores, the one after it, of the successor, after
        ``then``; the first takes the process ``also`` with it. Counts begin anew."""
        self._words[0] = ENDLESS
        self._words[1:5] = memoryview(_words(then, 0, 0, also))
        self._words[0] = stores

    def disarm(self) -> None:
        """Let everybody live; counts begin anew."""
        self.arm(ENDLESS)

    @property
    def armed(self) -> bool:
        """Whether a kill is still to come."""
        return self._words[0] >= 0

    @property
    def spent(self) -> int:
        """Stores since the counts began."""
        return int(self._words[2])

    @property
    def kills(self) -> int:
        """Kills since the counts began."""
        return int(self._words[3])

    def spend(self) -> None:
        """Pay for one store, or be killed."""
        words = self._words
        if words[0] == 0:
            words[0], words[1] = words[1], ENDLESS
            words[3] += 1
            os.kill(os.getpid(), signal.SIGKILL)
        if words[0] > 0:
            words[0] -= 1
        words[2] += 1


class Paying:
    """Stands in the place of a memoryview and pays for each store, as the C does."""

    def __init__(self, view: memoryview, spend: Callable[[], None]) -> None:
        self._view = view
        self._spend = spend

    def cast(self, form: Any) -> Paying:
        return Paying(self._view.cast(form), self._spend)

    def __getitem__(self, at: Any) -> Any:
        return self._view[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        self._spend()
        self._view[at] = value

    def __len__(self) -> int:
        return len(self._view)

    def release(self) -> None:
        self._view.release()


def watch_pure(budget: StoreBudget) -> None:
    """Let every owner that the pure engine makes from now on, in this process, draw on it."""
    from shmstore.pure import owner

    def paying(memory: Any) -> Any:
        view = memoryview(memory)
        return Paying(view, budget.spend) if isinstance(memory, mmap.mmap) else view

    vars(owner)["memoryview"] = paying


class Image:
    """What a segment holds, and which parts of it are memory at all; can be put back."""

    def __init__(self, fd: int, memory: mmap.mmap) -> None:
        self._fd = fd
        self._memory = memory
        self._ranges = _ranges(fd)
        self._parts = [memory[start:end] for start, end in self._ranges]

    def restore(self) -> None:
        """Put it back, holes too."""
        if _ranges(self._fd) != self._ranges:
            self._memory.madvise(mmap.MADV_REMOVE)
        for (start, end), part in zip(self._ranges, self._parts, strict=True):
            self._memory[start:end] = part


def _ranges(fd: int) -> list[tuple[int, int]]:
    """Return (start, end) of the parts of a file that are no holes."""
    found: list[tuple[int, int]] = []
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return found
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))


def _words(*values: int) -> Any:
    return memoryview(b"".join(value.to_bytes(8, "little", signed=True) for value in values)).cast(
        "q"
    )


def in_child(act: Callable[[], None]) -> int:
    """Fork a child that does this and ends; return its process id."""
    pid = os.fork()
    if pid == 0:
        _be_child(act)
    return pid


def _be_child(act: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)
