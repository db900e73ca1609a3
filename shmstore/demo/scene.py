"""How the demo goes: who is started, what is shown, and the end of the first writer."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from multiprocess import get_context
from multiprocess.connection import Connection, wait

import shmstore
from shmstore.demo import workers
from shmstore.demo.sample import load_sample
from shmstore.demo.screen import Screen
from shmstore.demo.verdict import Death, judge
from shmstore.server import Server

CAPACITY = "64MiB"
START_SECONDS_MAX = 60.0
RESTART_SECONDS_MAX = 30.0
END_SECONDS_MAX = 60.0
GLANCE_SECONDS = 0.05
SEED = 1


class DemoFailed(Exception):
    """A process of the demo did not do its part."""


@dataclass
class Worker:
    """A process of the demo as seen from here."""

    name: str
    connection: Connection
    tally: int = 0
    account: Any = None

    def hear(self) -> Any:
        """Return what it says; DemoFailed if it has ended."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise DemoFailed(f"{self.name} has ended before its time") from None

    def tell(self, word: str) -> None:
        """Say a word to it; DemoFailed if it has ended."""
        try:
            self.connection.send(word)
        except BrokenPipeError:
            raise DemoFailed(f"{self.name} has ended before its time") from None


def run(seconds: float, readers: int, clients: int) -> bool:
    """Run the demo and print what it shows; tell whether every promise was kept.

    Raises SampleMissing, and DemoFailed if it could not be played to its end.
    """
    screen = Screen()
    sample = load_sample()
    keys = list(sample)
    with shmstore.start(capacity=CAPACITY) as server, server.connect() as client:
        client.table(workers.RECORDS_TABLE).put_many(sample.items())
        screen.say(f"loaded {len(sample):,} records; the writer is process {server.writer_pid}")
        # Each client has records of its own, so that it knows what the last revision must be.
        shares = [keys[first::clients] for first in range(clients)]
        with (
            _started("reader", workers.read, server, [keys] * readers) as reading,
            _started("client", workers.change, server, shares) as changing,
        ):
            try:
                death = Scene(screen, server, client, reading, changing).play(seconds)
            finally:
                screen.erase()
        screen.say("comparing what was counted with what is stored")
        verdict = judge(
            client,
            [worker.account for worker in reading],
            [worker.account for worker in changing],
            death,
        )
    screen.table(verdict.rows)
    return verdict.is_good


@contextmanager
def _started(
    name: str, task: Callable[..., None], server: Server, shares: list[list[str]]
) -> Iterator[list[Worker]]:
    """Start one process per share; all are ready when the block begins, and gone after it."""
    context = get_context("spawn")
    started, processes = [], []
    try:
        for number, keys in enumerate(shares, start=1):
            ours, theirs = context.Pipe()
            started.append(Worker(f"{name} {number}", ours))
            process = context.Process(
                target=task, args=(theirs, server.address, keys, SEED + number), daemon=True
            )
            process.start()
            processes.append(process)
            theirs.close()
        for worker in started:
            if not worker.connection.poll(START_SECONDS_MAX):
                raise DemoFailed(f"{worker.name} did not start in time")
            worker.hear()
        yield started
    finally:
        for worker in started:
            worker.connection.close()
        for process in processes:
            process.join(END_SECONDS_MAX)
            process.kill()
            process.join()
            process.close()


@dataclass
class Scene:
    """The part of the demo that is watched."""

    screen: Screen
    server: Server
    client: shmstore.Client
    readers: list[Worker]
    clients: list[Worker]

    def play(self, seconds: float) -> Death:
        """Let everybody work for some seconds, show it, and kill the writer in the middle."""
        everybody = self.readers + self.clients
        self.screen.say(
            f"{len(self.readers)} readers look up and {len(self.clients)} clients change records, "
            f"each in a process of its own"
        )
        for worker in everybody:
            worker.tell(workers.GO)
        begun = time.monotonic()
        self._watch(begun + seconds / 2)
        death = self._kill_writer()
        self.screen.say(f"killed the writer, process {death.pid}, with SIGKILL")
        self._watch(begun + seconds, killed=death.pid)
        for worker in everybody:
            worker.tell(workers.STOP)
        for worker in everybody:
            while isinstance(said := worker.hear(), int):
                worker.tally = said
            worker.account = said
        return death

    def _watch(self, until: float, killed: int | None = None) -> None:
        """Show how things are until the time has come, and a writer that is not dead has
        acknowledged something."""
        of_connection = {worker.connection: worker for worker in self.readers + self.clients}
        announced = killed is None
        mutations_before = self._mutations()
        while True:
            now, pid = time.monotonic(), self.server.writer_pid
            lives = pid not in (None, killed)
            if lives and not announced:
                announced = True
                mutations_before = self._mutations()
                self.screen.say(f"the writer is process {pid} now")
            if now >= until and lives and self._mutations() > mutations_before:
                return
            if now > until + RESTART_SECONDS_MAX:
                raise DemoFailed("no other writer has taken over")
            for connection in wait(list(of_connection), GLANCE_SECONDS):
                worker = of_connection[connection]
                worker.tally = worker.hear()
            lookups = sum(worker.tally for worker in self.readers)
            self.screen.show(
                f"{lookups:>11,} lookups  {self._mutations():>9,} mutations acknowledged  "
                f"writer {pid if lives else 'dead'}"
            )

    def _mutations(self) -> int:
        return sum(worker.tally for worker in self.clients)

    def _kill_writer(self) -> Death:
        """Kill the writer; return when it was seen to be dead and what it had committed."""
        pid = self.server.writer_pid
        if pid is None:
            raise DemoFailed("the writer had ended already")
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            select.select([descriptor], [], [])
        finally:
            os.close(descriptor)
        return Death(pid, time.monotonic(), self.client.read("info")["committed"])
