"""The process that starts a server, and what is to be known of it and of its children."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from multiprocess import get_context

import shmstore

NAME = "load"
"""Of every server: the next one has to replace what the last one left."""
CAPACITY = "256MiB"
POLL_SECONDS = 0.002


class Starter:
    """The process that calls start(), and has the supervisor."""

    def __init__(self) -> None:
        self._connection, theirs = get_context("fork").Pipe()
        self._process = get_context("fork").Process(target=_start, args=(theirs,))
        self._process.start()
        theirs.close()
        self.address = str(self._connection.recv())
        self.is_stopped = False
        self._writer: int | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process.pid)

    @property
    def writer_pid(self) -> int | None:
        """The process id of the writer, or None: the last known one while this is stopped."""
        if not self.is_stopped:
            self._connection.send("writer")
            self._writer = self._connection.recv()
        elif self._writer is not None and _parent(self._writer) != self.pid:
            self._writer = None
        return self._writer

    @property
    def spare_pid(self) -> int | None:
        """The process id of a child that waits to be the writer, or None."""
        writer = self.writer_pid
        spares = (pid for pid in children_of(self.pid) if pid != writer)
        return None if writer is None else next(spares, None)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Kill it if it is there."""
        self.kill()
        self._process.close()
        self._connection.close()


def _start(judge: Any) -> None:
    with closing(judge), shmstore.start(NAME, capacity=CAPACITY) as server:
        judge.send(server.address)
        with suppress(EOFError):
            while judge.recv():
                judge.send(server.writer_pid)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``condition`` holds, but no longer than so; tell whether it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def is_running(pid: int) -> bool:
    """Tell whether there is such a process, and not only its exit status."""
    return _stat(pid)[:1] not in ([], ["Z"])


def children_of(pid: int) -> Iterator[int]:
    """Yield the children of a process."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _parent(int(entry)) == pid:
            yield int(entry)


def _parent(pid: int) -> int:
    return int((_stat(pid) or ["", "0"])[1])


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def send_signal(pid: int, number: int) -> bool:
    """Send a signal; False if there is no such process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def runtime_directory() -> Iterator[None]:
    """Have servers in a directory of their own."""
    before = os.environ.get("SHMSTORE_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="shm-") as path:
        os.environ["SHMSTORE_RUNTIME_DIR"] = path
        try:
            yield
        finally:
            os.environ.pop("SHMSTORE_RUNTIME_DIR")
            if before is not None:
                os.environ["SHMSTORE_RUNTIME_DIR"] = before
