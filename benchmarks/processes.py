"""The processes that use a rival: each takes one task at a time, and groups start at one instant.

A task is a function of some module, called in the process with its ``Desk`` and the arguments; what
it returns travels back. Desks keep the session with the rival between tasks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from . import rivals
from .records import Dataset
from .rivals.base import Rival, Session

LEAD_NS = 20_000_000
"""How long before the common start everybody is told of it."""
ANSWER_SECONDS_MAX = 300.0
JOIN_SECONDS_MAX = 10.0

Task = Callable[..., Any]


class TaskFailed(RuntimeError):
    """A task raised an error in its process; the text is the traceback there."""


@dataclass
class Desk:
    """What a process has at hand: its rival, the session with it, and the way to start together."""

    rival: str
    address: Any
    start: Callable[[], None]
    session: Session | None = None
    hosted: Rival | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    """What a task prepared for the ones after it."""

    def connected(self) -> Session:
        """Return the session; the first use connects."""
        if self.session is None:
            self.session = rivals.load(self.rival).connect(self.address)
        return self.session

    def host(self, folder: Path, dataset: Dataset) -> tuple[Any, list[int]]:
        """Start the server side from this process; return its address and its processes."""
        self.hosted = rivals.load(self.rival)()
        self.hosted.start(folder, dataset)
        return self.hosted.address, self.hosted.pids()

    def leave(self) -> None:
        """End the session, and the server side if it was started here."""
        self.disconnect()
        hosted, self.hosted = self.hosted, None
        if hosted is not None:
            hosted.stop()

    def disconnect(self) -> None:
        """End the session, if there is one."""
        session, self.session = self.session, None
        if session is not None:
            session.close()


class Worker:
    """A process with a desk, as the harness sees it."""

    def __init__(
        self,
        rival: str,
        address: Any,
        environment: dict[str, str] | None = None,
        hosting: bool = False,
    ) -> None:
        """Start the process; with an ``environment`` as a fresh interpreter that has it.

        One that is ``hosting`` may start processes of its own.
        """
        context = multiprocessing.get_context("spawn" if environment else "forkserver")
        self._pipe, theirs = multiprocessing.Pipe()
        with _environment(environment or {}):
            self._process: BaseProcess = context.Process(  # type: ignore[attr-defined]
                target=_work, args=(theirs, rival, address), daemon=not hosting
            )
            self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    def call(self, task: Task, *arguments: Any) -> Any:
        """Have the process do one task; return its result. Raises TaskFailed."""
        return together([self], task, *arguments)[0]

    def ask(self, task: Task, *arguments: Any) -> None:
        """Have the process begin a task."""
        self._pipe.send((task.__module__, task.__qualname__, arguments))

    def tell(self, message: Any) -> None:
        """Send something to the task that is under way."""
        self._pipe.send(message)

    def hear(self) -> tuple[str, Any]:
        """Return what the process says next: ("ready" | "done", value). Raises TaskFailed."""
        if not self._pipe.poll(ANSWER_SECONDS_MAX):
            raise TaskFailed(f"no answer within {ANSWER_SECONDS_MAX:.0f} s")
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise TaskFailed("the process has died") from None
        if kind == "failed":
            raise TaskFailed(value)
        return kind, value

    def stop(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(JOIN_SECONDS_MAX)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._pipe.close()


def together(workers: Sequence[Worker], task: Task, *arguments: Any) -> list[Any]:
    """Have all workers do one task; return their results.

    Where the task calls ``desk.start()``, all wait for the last and go on at the same instant.
    """
    return each_its_own([(worker, task, arguments) for worker in workers])


def each_its_own(assignments: Sequence[tuple[Worker, Task, tuple[Any, ...]]]) -> list[Any]:
    """Have each worker do its own task, with a common start; return their results."""
    for worker, task, arguments in assignments:
        worker.ask(task, *arguments)
    workers = [worker for worker, _, _ in assignments]
    said = [worker.hear() for worker in workers]
    waiting = [worker for worker, (kind, _) in zip(workers, said, strict=True) if kind == "ready"]
    instant = time.monotonic_ns() + LEAD_NS
    for worker in waiting:
        worker.tell(instant)
    return [
        worker.hear()[1] if kind == "ready" else value
        for worker, (kind, value) in zip(workers, said, strict=True)
    ]


def _work(pipe: Connection, rival: str, address: Any) -> None:
    def start() -> None:
        pipe.send(("ready", None))
        instant: int = pipe.recv()
        time.sleep(max(0.0, (instant - time.monotonic_ns()) / 1e9 - 0.001))
        while time.monotonic_ns() < instant:
            pass

    desk = Desk(rival, address, start)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (message := pipe.recv()) is not None:
            module, name, arguments = message
            try:
                answer = ("done", getattr(importlib.import_module(module), name)(desk, *arguments))
            except Exception:
                answer = ("failed", traceback.format_exc(limit=-4))
            pipe.send(answer)
    desk.leave()
    gc.collect()


@contextlib.contextmanager
def _environment(extra: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
