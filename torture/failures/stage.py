"""The server that serves plays, and what is open and running around it."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import shmstore
from shmstore.server import supervisor

from .orders import Order

FORGOTTEN_MAX = 2
"""Descriptors of which no Python can take note, as there is no memory for their numbers."""
SETTLE_SECONDS_MAX = 5.0


class Stage:
    """A server that serves plays, with a client that nothing happens to."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._own: Counter[str] = Counter()
        self.open()

    def open(self) -> None:
        """Start the server; what is open now is what may be open later."""
        supervisor.SPARE_AFTER_SECONDS = supervisor.SPARE_AGAIN_SECONDS = 1e6
        self.server = shmstore.start(capacity=64 << 20)
        self.witness = self.server.connect(20.0)
        self.server.connect().close()
        self.witness.holder()  # the writer watches this process from now on
        self.settled()
        self.writer_descriptors = len(os.listdir(f"/proc/{self.server.writer_pid}/fd"))
        self._own = _descriptors()

    def close(self) -> None:
        """End the server."""
        self.witness.close()
        self.server.close()

    @property
    def supervisor(self) -> supervisor.Supervisor:
        """What keeps the writer."""
        return self.server._supervisor

    def keep_spares(self) -> None:
        """Have a spare as soon as there is a writer. The next one will have one."""
        supervisor.SPARE_AFTER_SECONDS = supervisor.SPARE_AGAIN_SECONDS = 0.0
        os.kill(self.server.writer_pid or 0, signal.SIGKILL)

    def settled(self) -> None:
        """Wait until the writer serves, and nobody but the witness."""
        eventually(lambda: self.server.writer_pid is not None)
        eventually(lambda: self.witness.stats()["connections"] == 1)

    def left_behind(self, *, files: bool, forgetful: bool) -> Iterator[str]:
        """Say what is open, or runs, and should not."""
        if not eventually(lambda: not self._strange_descriptors()):
            strange = self._strange_descriptors()
            self._own = _descriptors()  # said once
            if not forgetful or strange.total() > FORGOTTEN_MAX:
                yield f"descriptors here: {dict(strange)}"
        pid = self.server.writer_pid
        if not eventually(lambda: len(os.listdir(f"/proc/{pid}/fd")) == self.writer_descriptors):
            yield f"the writer's descriptors: {_links(pid)}, not {self.writer_descriptors}"
        if not eventually(lambda: not self._strange_children()):
            yield f"processes: {self._strange_children()}"
            for child in self._strange_children():
                with suppress(ChildProcessError):
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
        folder = Path(os.environ["SHMSTORE_RUNTIME_DIR"])
        sockets = {path.name for path in folder.iterdir()} - {Path(self.server.address).name}
        for name in sockets:
            (folder / name).unlink()
        if sockets and files:
            yield f"socket files: {sockets}"

    def _strange_descriptors(self) -> Counter[str]:
        spare = Counter({"socket:[]": 1, "pipe:[]": 1} if self.server._supervisor.spare_pid else {})
        return _descriptors() - self._own - spare

    def _strange_children(self) -> set[int]:
        subprocess._cleanup()  # type: ignore[attr-defined]  # as the next start of one does
        return _children() - {self.server.writer_pid or 0, self.supervisor.spare_pid or 0}


def eventually(condition: Callable[[], object]) -> bool:
    """Wait until a condition holds; tell whether it came to that."""
    end = time.monotonic() + SETTLE_SECONDS_MAX
    while not condition():
        if time.monotonic() > end:
            return False
        gc.collect()
        time.sleep(0.001)
    return True


def _descriptors() -> Counter[str]:
    """Of which kind this process has how many open."""
    return Counter(re.sub(r"\d+", "", target) for target in _links(os.getpid()).values())


def _links(pid: int | None) -> dict[str, str]:
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # of the listing itself
            found[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def _children() -> set[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError):  # a thread that has ended
            text = Path(f"/proc/self/task/{task}/children").read_text()
            found |= {int(pid) for pid in text.split()}
    return found
