"""One server with its workers, which are killed and stopped at random; then the end of both."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from multiprocess import get_context

import shmstore

from ..trial import Report
from .audit import audit
from .clients import work
from .ledger import CLIENTS_MAX, KINDS, READERS_MAX, Finding, Flag, Ledger, State, milliseconds
from .readers import look
from .worker import READER_TIMEOUT, SLACK_SECONDS, TIMEOUTS, Process

CLIENTS, READERS = 3, 2
NAME = "load"
"""Of every server: the next one has to replace what the last one left."""
CAPACITY = "256MiB"
POLL_SECONDS = 0.002
ANSWER_SECONDS = 1.0
GONE_SECONDS = 5.0
AFTERMATH_SECONDS = 0.1
PACES = (0.02, 0.15), (0.1, 0.6)
"""Pauses between kills, in seconds; a round has one of them."""
STOP_SECONDS = 0.01, 0.3
KILLS = {"writer": 6, "client": 2, "reader": 1}
STOPS = {"writer": 4, "client": 3, "reader": 8, "supervisor": 2}
"""How often each is chosen."""
STOPPED_SHARE = 0.5
"""Of what is done."""


def play(report: Report, rng: random.Random, what: str, seconds: float, writer_kills: int) -> None:
    """Play one round: chaos for so long, and at least so many writers killed; then the end.

    ``what`` is the name of the round in what is found.
    """
    with (
        closing(Ledger()) as ledger,
        tempfile.TemporaryFile("w+") as stacks,
        closing(Starter()) as starter,
        shmstore.connect(starter.address) as auditor,
        closing(Round(report, rng, what, ledger, stacks, starter)) as played,
    ):
        played.play_chaos(seconds, writer_kills)
        played.audit_at_rest(auditor)
        played.kill_supervisor(auditor)


class Round:
    """A server with clients and readers, each a process, and the judge of them all."""

    def __init__(
        self,
        report: Report,
        rng: random.Random,
        what: str,
        ledger: Ledger,
        stacks: IO[str],
        starter: Starter,
    ) -> None:
        self._report = report
        self._rng = rng
        self._what = what
        self._ledger = ledger
        self._stacks = stacks
        self._starter = starter
        self._readers_started = 0
        self._stopped: dict[int, float] = {}
        """Until when a process is stopped."""
        self._pace = rng.choice(PACES)
        self._clients = [self._new_client() for _ in range(CLIENTS)]
        self._readers = [self._new_reader() for _ in range(READERS)]

    def close(self) -> None:
        """End all workers; take in what they did and found."""
        self._continue_stopped(everyone=True)
        for process in (*self._clients, *self._readers):
            process.close()
            self._count_work(process)
        self._collect()

    # Findings

    def _find(self, finding: Finding) -> None:
        self._report.add(KINDS[finding.kind])
        self._report.findings.append(f"{self._what}: {KINDS[finding.kind]}: {finding.text}")

    def _collect(self) -> None:
        for finding in self._ledger.reported():
            self._find(finding)

    def _count_work(self, process: Process) -> None:
        is_client = process.number < CLIENTS_MAX
        done = self._ledger.state(process.number, State.DONE)
        self._report.add("acknowledged mutations" if is_client else "reads", done)
        timeouts = self._ledger.state(process.number, State.TIMEOUTS)
        self._report.add("operations that ended with RequestTimeout", timeouts)

    # Workers

    def _new_client(self) -> Process:
        number = self._ledger.words[Flag.CLIENTS]
        seed = self._rng.getrandbits(32)
        task = partial(work, self._ledger, number, self._starter.address, seed)
        self._ledger.words[Flag.CLIENTS] = number + 1
        return Process(number, task, self._ledger, self._stacks)

    def _new_reader(self) -> Process:
        number = CLIENTS_MAX + self._readers_started
        self._readers_started += 1
        seed = self._rng.getrandbits(32)
        task = partial(look, self._ledger, number, self._starter.address, seed)
        return Process(number, task, self._ledger, self._stacks)

    def _watch(self) -> None:
        """Find operations that do not end, and workers that ended."""
        for process in (*self._clients, *self._readers):
            deadline = self._ledger.state(process.number, State.DEADLINE)
            if deadline and milliseconds() > deadline:
                self._find(Finding("late", f"still under way:\n{self._stacks_of(process)}"))
            elif not process.alive:
                self._find(Finding("other", f"worker {process.number} has ended"))
        self._collect()

    def _stacks_of(self, process: Process) -> str:
        self._stacks.seek(0, os.SEEK_END)
        start = self._stacks.tell()
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.2)
        self._stacks.seek(start)
        return self._stacks.read()

    def _replace(self, workers: list[Process], place: int, new: Callable[[], Process]) -> None:
        process = workers[place]
        self._stopped.pop(process.pid, None)
        process.close()
        self._count_work(process)
        workers[place] = new()

    # Chaos

    def play_chaos(self, seconds: float, writer_kills: int) -> None:
        """Kill and stop for so long, and at least so many writers; not beyond a finding."""
        end, killed = time.monotonic() + seconds, 0
        while time.monotonic() < end or killed < writer_kills:
            time.sleep(self._rng.uniform(*self._pace))
            self._continue_stopped()
            self._watch()
            if self._rng.random() < STOPPED_SHARE:
                self._stop(self._rng.choices(list(STOPS), list(STOPS.values()))[0])
            elif self._kill(whom := self._rng.choices(list(KILLS), list(KILLS.values()))[0]):
                killed += whom == "writer"
            if self._report.findings:
                break
        self._continue_stopped(everyone=True)

    def _stop(self, whom: str) -> None:
        pid: int | None = self._starter.pid
        if whom == "writer":
            pid = self._starter.writer_pid
        elif whom != "supervisor":
            pid = self._rng.choice(self._clients if whom == "client" else self._readers).pid
        if pid is not None and pid not in self._stopped and _signal(pid, signal.SIGSTOP):
            self._stopped[pid] = time.monotonic() + self._rng.uniform(*STOP_SECONDS)
            self._report.add("processes stopped")
            self._starter.is_stopped = self._starter.pid in self._stopped

    def _continue_stopped(self, everyone: bool = False) -> None:
        for pid, until in list(self._stopped.items()):
            if everyone or time.monotonic() > until:
                del self._stopped[pid]
                _signal(pid, signal.SIGCONT)
        self._starter.is_stopped = self._starter.pid in self._stopped

    def _kill(self, whom: str) -> bool:
        if whom == "writer":
            pid = self._starter.writer_pid
            if pid is None or not _signal(pid, signal.SIGKILL):
                return False
            self._stopped.pop(pid, None)
            self._report.add("writers killed")
        elif whom == "client" and self._ledger.words[Flag.CLIENTS] < CLIENTS_MAX:
            self._replace(self._clients, self._rng.randrange(CLIENTS), self._new_client)
            self._report.add("clients killed")
        elif whom == "reader" and self._readers_started < READERS_MAX:
            self._replace(self._readers, self._rng.randrange(READERS), self._new_reader)
            self._report.add("readers killed")
        return True

    # The end of a round

    def audit_at_rest(self, auditor: shmstore.Client) -> None:
        """Let the clients pause; see that all is there and whole, and let them go on."""
        self._ledger.words[Flag.PAUSE] = 1
        paused = partial(all_paused, self._ledger, self._clients)
        limit = max(TIMEOUTS) + 2 * SLACK_SECONDS
        while not wait_until(paused, 1.0) and limit > 0:
            limit -= 1.0
            self._watch()
        self._collect()
        if not self._report.findings:
            for complaint in auditor.check():
                self._find(Finding("other", f"check: {complaint}"))
            self._find_all(audit(self._ledger, auditor))
        self._ledger.words[Flag.PAUSE] = 0

    def _find_all(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            self._find(finding)

    def kill_supervisor(self, auditor: shmstore.Client) -> None:
        """Kill the process that started the server, perhaps with its writer killed or stopped."""
        time.sleep(self._rng.uniform(*self._pace))
        self._ledger.words[Flag.GONE] = 1
        writer = self._starter.writer_pid
        before = self._rng.choice((None, signal.SIGKILL, signal.SIGSTOP))
        if before is not None and writer is not None:
            _signal(writer, before)
        children = list(children_of(self._starter.pid))
        self._starter.kill()
        self._report.add("supervisors killed")
        if not wait_until(lambda: not any(map(is_running, children)), GONE_SECONDS):
            self._find(Finding("other", f"a writer outlives its server by {GONE_SECONDS} s"))
        self._await_clients()
        time.sleep(AFTERMATH_SECONDS)  # readers go on in what they have mapped
        self._ledger.words[Flag.END] = 1
        for process in self._readers:
            if not process.join(SLACK_SECONDS + READER_TIMEOUT):
                self._find(Finding("late", f"a reader does not end:\n{self._stacks_of(process)}"))
        self._collect()
        if not self._report.findings:  # else it may still be changed
            self._find_all(audit(self._ledger, auditor))

    def _await_clients(self) -> None:
        """Every client has to get a named error within its time limit."""
        end = time.monotonic() + 2 * max(TIMEOUTS) + SLACK_SECONDS
        for process in self._clients:
            if not process.join(max(0.0, end - time.monotonic())):
                text = f"a client waits for a server that is gone:\n{self._stacks_of(process)}"
                self._find(Finding("late", text))


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


def all_paused(ledger: Ledger, clients: list[Process]) -> bool:
    """Tell whether no client has an operation under way."""
    return all(ledger.state(process.number, State.PAUSED) for process in clients)


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


def _signal(pid: int, number: int) -> bool:
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
