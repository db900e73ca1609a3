"""A process under ptrace: one instruction of the engine at a time, and what each does to a segment.

The process runs at full speed until it says that what follows is to be stepped, and again from
there. One thread must make all calls for one process: ptrace knows the thread that traces.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from functools import wraps
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any, NoReturn

from .building import BUILD, OWN, compile_c

ROOM_PAGES = 16
"""How far behind something that is in use a stepped stretch of code may store."""
RANGES_MAX = 64
CPU_SECONDS_MAX = 600
GATE = signal.SIGSTOP
NEXT = signal.SIGUSR1


class Refused(Exception):
    """This machine does not let one process trace another."""


class Outcome(IntEnum):
    """Why a process that is stepped stands still; as in stepper.c."""

    CHANGED = 0
    SPENT = 1
    STOPPED = 2
    REFUSED = 3


class _Watch(ctypes.Structure):
    """As in stepper.c."""

    _fields_ = (
        ("live", ctypes.c_void_p),
        ("known", ctypes.c_void_p),
        *(
            (name, ctypes.c_uint64)
            for name in (
                "words",
                "code_start",
                "code_end",
                "entry",
                "back",
                "at",
                "inside",
                "inside_max",
                "changed",
            )
        ),
        ("pid", ctypes.c_int32),
        ("status", ctypes.c_int32),
        ("range_count", ctypes.c_uint64),
        ("ranges", ctypes.c_uint64 * (2 * RANGES_MAX)),
    )


def code_of(library: Path) -> range:
    """Return the addresses of the code of a library that is loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(library.resolve()) and "x" in fields[1]:
            start, end = fields[0].split("-")
            return range(int(start, 16), int(end, 16))
    raise LookupError(f"{library} is not loaded")


class Steps:
    """The traced process's part: which stretches of its life are stepped, and what they are."""

    def __init__(self, entry: mmap.mmap) -> None:
        self._entry = memoryview(entry).cast("Q")
        self._on = False

    def next(self) -> None:
        """Say that something new begins, or that all is over."""
        os.kill(os.getpid(), NEXT)

    def inside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of the extension as one that is stepped when it is called."""
        return self._wrapped(function, entry_of(function))

    def outside(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function as one that is not stepped when it is called by one that is."""
        return self._wrapped(function, 0)

    def _wrapped(self, function: Callable[..., Any], entry: int) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            before = self._on
            self._entry[0] = entry
            self._turn(entry != 0)
            try:
                return function(*arguments, **named)
            finally:
                self._turn(before)

        return call

    def _turn(self, on: bool) -> None:
        if on != self._on:
            self._on = on
            os.kill(os.getpid(), GATE)


def entry_of(function: object) -> int:
    """Return where the code of a function of an extension begins."""
    assert isinstance(function, BuiltinFunctionType), function
    # Both structures are part of Python's stable interface: object, then PyMethodDef *; in that
    # the name, then the function.
    definition = ctypes.c_void_p.from_address(id(function) + object.__basicsize__).value
    assert definition
    entry = ctypes.c_void_p.from_address(definition + ctypes.sizeof(ctypes.c_void_p)).value
    assert entry
    return entry


class Traced:
    """A process that has begun to run ``play``, and stands still."""

    def __init__(self, play: Callable[[Steps], None], memory: mmap.mmap, code: range) -> None:
        """``memory`` is a mapping that sees what the process stores. Errors: ``Refused``."""
        self._library = _library()
        self._known = mmap.mmap(-1, len(memory))
        self._entry = mmap.mmap(-1, mmap.PAGESIZE)
        self._watch = _Watch(
            entry=_address(self._entry),
            live=_address(memory),
            known=_address(self._known),
            words=len(memory) // 8,
            code_start=code.start,
            code_end=code.stop,
        )
        self._last_words, told = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _live(play, Steps(self._entry), self._library, told)
        os.close(told)
        self.ended = False
        self._watch.pid = self.pid
        _, self._watch.status = os.waitpid(self.pid, 0)
        if os.WIFSTOPPED(self._watch.status):
            self._library.watch_bind(self.pid)
        else:
            self.ended = True
            words = self.last_words()
            self.kill()
            raise Refused(words)
        self.look()

    @property
    def inside(self) -> int:
        """Instructions of the engine that were stepped."""
        return int(self._watch.inside)

    @property
    def words_changed(self) -> int:
        """How many words the last change was made of."""
        return int(self._watch.changed)

    def look(self) -> int:
        """Return how many words of the segment have changed since it was last looked at."""
        return int(self._library.watch_look(ctypes.byref(self._watch), ROOM_PAGES))

    def step(self, inside_max: int) -> Outcome:
        """Step until an instruction has changed the segment; at most so many of the engine since
        the process began. Errors: ``Refused``."""
        self._watch.inside_max = inside_max
        return self._resumed(self._library.watch_step(ctypes.byref(self._watch)))

    def run(self) -> Outcome:
        """Let the process run until it stops. Errors: ``Refused``."""
        return self._resumed(self._library.watch_run(ctypes.byref(self._watch)))

    def run_until_store(self, word: int) -> Outcome:
        """Let the process run until it has stored to a word of the segment, which must be mapped
        at the same address there and here, or until it stops. Errors: ``Refused``."""
        watch = ctypes.byref(self._watch)
        return self._resumed(self._library.watch_run_until_store(watch, ctypes.c_uint64(word)))

    def signal(self) -> int | None:
        """Return the signal that the process has stopped at; None if it has ended."""
        status = self._watch.status
        return os.WSTOPSIG(status) if os.WIFSTOPPED(status) else None

    def last_words(self) -> str:
        """Return how the process ended, and what it said of that."""
        said = os.read(self._last_words, 1 << 16).decode(errors="replace")
        return said or f"ended with {os.waitstatus_to_exitcode(self._watch.status)}"

    def kill(self) -> None:
        """Kill the process where it stands, if it has not ended; and let go of all."""
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.ended = True
        os.close(self._last_words)
        self._watch = _Watch(inside=self.inside)
        self._known.close()
        self._entry.close()

    def _resumed(self, outcome: int) -> Outcome:
        if outcome == Outcome.REFUSED:
            raise Refused("a traced process cannot be stepped")
        if outcome == Outcome.STOPPED and not os.WIFSTOPPED(self._watch.status):
            self.ended = True
        return Outcome(outcome)


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this process, and those it starts, where it is: a step is three times as fast then."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {ctypes.CDLL(None).sched_getcpu()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _library() -> ctypes.CDLL:
    flags = ("-std=c11", "-O2", "-D_GNU_SOURCE", "-fPIC", "-shared", "-fvisibility=hidden")
    library = ctypes.CDLL(str(compile_c(BUILD / "stepper.so", OWN / "stepper.c", flags)))
    library.watch_look.restype = ctypes.c_uint64
    return library


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _live(play: Callable[[Steps], None], steps: Steps, library: ctypes.CDLL, told: int) -> NoReturn:
    status = 1
    try:
        gc.disable()  # nobody asked for these instructions
        signal.signal(NEXT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS_MAX, CPU_SECONDS_MAX))
        if error := library.watch_me():
            raise Refused(f"ptrace is refused: {os.strerror(error)}")
        os.kill(os.getpid(), GATE)
        play(steps)
        status = 0
    except Refused as refused:
        os.write(told, str(refused).encode())
    except BaseException:
        with suppress(OSError):
            os.write(told, traceback.format_exc().encode())
    finally:
        os._exit(status)
