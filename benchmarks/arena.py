"""An arena: one rival with one dataset in it, and the processes that use them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import machine, rivals
from .processes import Desk, Task, Worker, together
from .records import Dataset, key_of
from .rivals.base import Rival

MEMORY_FOLDER = "/dev/shm"
CHECKED_RECORDS = 20
CHECK_SECONDS_MAX = 2.0


class Unsupported(Exception):
    """The rival can do nothing of the kind."""


class Arena:
    """A rival that is running, with its records loaded, and workers that are connected to it.

    A context manager. ``packed`` says that a rival of Python objects holds msgpack bytes instead.
    """

    def __init__(self, name: str, dataset: Dataset, packed: bool = False) -> None:
        self.name = name
        self.kind: type[Rival] = rivals.load(name)
        self.dataset = dataset
        self.packed = packed and not self.kind.packs
        self.start_seconds = 0.0
        self.load_seconds = 0.0
        self.load_bytes = 0
        self._workers: list[Worker] = []
        self._host: Worker | None = None
        self.folder: Path | None = None
        """Private and in memory, while this is entered."""
        self.address: Any = None
        self.pids: list[int] = []
        """The processes of the server side."""

    def __enter__(self) -> Arena:
        place = MEMORY_FOLDER if Path(MEMORY_FOLDER).is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=place))
        try:
            # A process of its own: some rivals change the interpreter that starts them.
            self._host = Worker(self.name, None, hosting=True)
            self._host.call(nothing)
            begin = time.perf_counter()
            self.address, self.pids = self._host.call(host, self.folder, self.dataset)
            self.start_seconds = time.perf_counter() - begin
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and the rival, and remove what it left."""
        workers, self._workers = self._workers, []
        for worker in reversed(workers):  # the first one may own what the others use
            worker.stop()
        if self._host is not None:
            self._host.stop()
        folder, self.folder = self.folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def workers(self, count: int) -> list[Worker]:
        """Return so many processes; new ones connect, and load what is not shared."""
        while len(self._workers) < count:
            worker = self.another()
            self._workers.append(worker)
            if not self.kind.shared and self.load_seconds:
                self.fill(worker)
        return self._workers[:count]

    def fill(self, worker: Worker) -> float | None:
        """Have a worker store the dataset; return the seconds it took, None if it cannot."""
        seconds: float | None = worker.call(load, self.dataset, self.packed)
        return seconds

    def another(self, environment: dict[str, str] | None = None) -> Worker:
        """Return a process more, which the caller stops; it connects at its first use."""
        return Worker(self.name, self.address, environment)

    def load(self) -> None:
        """Store the dataset, by the first worker, and check some of it from there.

        Raises Unsupported.
        """
        before = machine.available_bytes()
        seconds = self.fill(self.workers(1)[0])
        if seconds is None:
            raise Unsupported
        self.load_seconds = max(1e-9, seconds)
        self.load_bytes = before - machine.available_bytes()

    def measure(self, count: int, task: Task, *arguments: Any) -> list[Any]:
        """Have so many workers do a task together; return their results."""
        return together(self.workers(count), task, *arguments)


def nothing(desk: Desk) -> None:
    """Show that the process runs."""


def host(desk: Desk, folder: Path, dataset: Dataset) -> tuple[Any, list[int]]:
    """Start the server side."""
    return desk.host(folder, dataset)


def load(desk: Desk, dataset: Dataset, packed: bool) -> float | None:
    """Store a dataset; return the seconds it took, None if the rival stores nothing of the kind.

    Raises AssertionError if what is read back is not it.
    """
    session, native = desk.connected(), rivals.load(desk.rival).key
    store = session.load_indexed if dataset.indexed else session.load
    if store is None:
        return None
    generated = 0.0

    def items() -> Iterator[tuple[Any, Any]]:
        nonlocal generated
        begin = time.perf_counter()
        for key, record in dataset.items(packed):
            pair = native(key), record
            generated += time.perf_counter() - begin
            yield pair
            begin = time.perf_counter()

    begin = time.perf_counter()
    store(items())
    taken = time.perf_counter() - begin - generated
    if not dataset.indexed:
        check(desk, dataset, packed)
    return taken


def check(desk: Desk, dataset: Dataset, packed: bool) -> None:
    """Compare some records with what was stored, as many as can be read in a moment."""
    session, native = desk.connected(), rivals.load(desk.rival).key
    assert session.get is not None
    step = max(1, dataset.records // CHECKED_RECORDS)
    end = time.monotonic() + CHECK_SECONDS_MAX
    for number in range(0, dataset.records, step):
        stored = session.get(native(key_of(number)))
        wanted = next(dataset.items(packed, start=number))[1]
        if stored != wanted:
            raise AssertionError(f"{desk.rival}: record {number} reads back as {stored!r:.200}")
        if time.monotonic() > end:
            break
