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
from typing import IO

import shmstore

from ..trial import Report
from .audit import audit
from .clients import work
from .ledger import CLIENTS_MAX, KINDS, READERS_MAX, Finding, Flag, Ledger, State, milliseconds
from .readers import look
from .starter import Starter, children_of, is_running, send_signal, wait_until
from .worker import READER_TIMEOUT, SLACK_SECONDS, TIMEOUTS, Process

CLIENTS, READERS = 3, 2
GONE_SECONDS = 5.0
AFTERMATH_SECONDS = 0.1
PACES = (0.02, 0.15), (0.1, 0.6)
"""Pauses between kills, in seconds; a round has one of them."""
STOP_SECONDS = 0.01, 0.3
KILLS = {"writer": 6, "spare": 1, "client": 2, "reader": 1}
STOPS = {"writer": 4, "spare": 1, "client": 3, "reader": 8, "supervisor": 2}
"""How often each is chosen."""
STOPPED_SHARE = 0.5
"""Of what is done."""


@contextmanager
def opened(report: Report, rng: random.Random, what: str) -> Iterator[Round]:
    """Start a server with its workers; all are gone after the block.

    ``what`` is the name of the round in what is found.
    """
    with (
        closing(Ledger()) as ledger,
        tempfile.TemporaryFile("w+") as stacks,
        closing(Starter()) as starter,
        shmstore.connect(starter.address) as auditor,
        closing(Round(report, rng, what, ledger, stacks, starter, auditor)) as played,
    ):
        yield played


def play(
    report: Report,
    rng: random.Random,
    what: str,
    seconds: float,
    writer_kills: int,
    patience: bool = False,
) -> None:
    """Play one round: chaos for so long, and at least so many writers killed; then the end.

    With ``patience`` the writer is stopped in between for longer than some time limits.
    """
    with opened(report, rng, what) as played:
        played.play_chaos(seconds, writer_kills)
        if patience:
            played.stop_for_long()
        played.audit_at_rest()
        played.kill_supervisor()


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
        auditor: shmstore.Client,
    ) -> None:
        self._report = report
        self._rng = rng
        self._what = what
        self._ledger = ledger
        self._stacks = stacks
        self.starter = starter
        self.auditor = auditor
        """A client of this process."""
        self._readers_started = 0
        self._stopped: dict[int, float] = {}
        """Until when a process is stopped."""
        self._pace = rng.choice(PACES)
        self.clients = [self._new_client() for _ in range(CLIENTS)]
        self.readers = [self._new_reader() for _ in range(READERS)]

    def close(self) -> None:
        """End all workers; take in what they did and found."""
        self._continue_stopped(everyone=True)
        for process in (*self.clients, *self.readers):
            process.close()
            self._count_work(process)
        self._collect()

    # Findings

    def find(self, kind: str, text: str) -> None:
        """Report a promise that did not hold."""
        self._report.add(KINDS[kind])
        self._report.findings.append(f"{self._what}: {KINDS[kind]}: {text}")

    def _collect(self) -> None:
        self._find_all(self._ledger.reported())

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
        task = partial(work, self._ledger, number, self.starter.address, seed)
        self._ledger.words[Flag.CLIENTS] = number + 1
        return Process(number, task, self._ledger, self._stacks)

    def _new_reader(self) -> Process:
        number = CLIENTS_MAX + self._readers_started
        self._readers_started += 1
        seed = self._rng.getrandbits(32)
        task = partial(look, self._ledger, number, self.starter.address, seed)
        return Process(number, task, self._ledger, self._stacks)

    def _watch(self) -> None:
        """Find operations that do not end, and workers that ended."""
        for process in (*self.clients, *self.readers):
            deadline = self._ledger.state(process.number, State.DEADLINE)
            if deadline and milliseconds() > deadline:
                self.find("late", f"still under way:\n{self._stacks_of(process)}")
            elif not process.alive:
                self.find("other", f"worker {process.number} has ended")
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
            elif self.kill(whom := self._rng.choices(list(KILLS), list(KILLS.values()))[0]):
                killed += whom == "writer"
            if self._report.findings:
                break
        self._continue_stopped(everyone=True)

    def stop_for_long(self) -> None:
        """Stop the writer until every operation whose time limit is not the longest has ended."""
        wait_until(lambda: self.starter.writer_pid is not None, GONE_SECONDS)
        self._stop("writer")
        time.sleep(sorted(TIMEOUTS)[-2] + SLACK_SECONDS + 1.0)
        self._watch()
        self._continue_stopped(everyone=True)

    def _stop(self, whom: str) -> None:
        pid: int | None = self.starter.pid
        if whom == "writer":
            pid = self.starter.writer_pid
        elif whom == "spare":
            pid = self.starter.spare_pid
        elif whom != "supervisor":
            pid = self._rng.choice(self.clients if whom == "client" else self.readers).pid
        if pid is not None and pid not in self._stopped and send_signal(pid, signal.SIGSTOP):
            self._stopped[pid] = time.monotonic() + self._rng.uniform(*STOP_SECONDS)
            self._report.add("processes stopped")
            self.starter.is_stopped = self.starter.pid in self._stopped

    def _continue_stopped(self, everyone: bool = False) -> None:
        for pid, until in list(self._stopped.items()):
            if everyone or time.monotonic() > until:
                del self._stopped[pid]
                send_signal(pid, signal.SIGCONT)
        self.starter.is_stopped = self.starter.pid in self._stopped

    def kill(self, whom: str) -> bool:
        """Kill somebody of this kind; False if there is nobody."""
        if whom == "writer":
            pid = self.starter.writer_pid
            if pid is None or not send_signal(pid, signal.SIGKILL):
                return False
            self._stopped.pop(pid, None)
            self._report.add("writers killed")
        elif whom == "spare":
            pid = self.starter.spare_pid
            if pid is None or not send_signal(pid, signal.SIGKILL):
                return False
            self._report.add("spare writers killed")
        elif whom == "client" and self._ledger.words[Flag.CLIENTS] < CLIENTS_MAX:
            self._replace(self.clients, self._rng.randrange(CLIENTS), self._new_client)
            self._report.add("clients killed")
        elif whom == "reader" and self._readers_started < READERS_MAX:
            self._replace(self.readers, self._rng.randrange(READERS), self._new_reader)
            self._report.add("readers killed")
        return True

    # The end of a round

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Have the clients pause for the time of the block."""
        self._ledger.words[Flag.PAUSE] = 1
        paused = partial(all_paused, self._ledger, self.clients)
        limit = max(TIMEOUTS) + 2 * SLACK_SECONDS
        while not wait_until(paused, 1.0) and limit > 0:
            limit -= 1.0
            self._watch()
        yield
        self._ledger.words[Flag.PAUSE] = 0

    def audit_at_rest(self) -> None:
        """See, while the clients pause, that all is there and whole."""
        with self.at_rest():
            self._collect()
            if not self._report.findings:
                for complaint in self.auditor.check():
                    self.find("other", f"check: {complaint}")
                self._find_all(audit(self._ledger, self.auditor))

    def _find_all(self, findings: Iterator[Finding]) -> None:
        for kind, text in findings:
            self.find(kind, text)

    def kill_supervisor(self) -> None:
        """Kill the process that started the server, perhaps with its writer killed or stopped."""
        time.sleep(self._rng.uniform(*self._pace))
        self._ledger.words[Flag.GONE] = 1
        writer = self.starter.writer_pid
        before = self._rng.choice((None, signal.SIGKILL, signal.SIGSTOP))
        if before is not None and writer is not None:
            send_signal(writer, before)
        children = list(children_of(self.starter.pid))
        self.starter.kill()
        self._report.add("supervisors killed")
        if not wait_until(lambda: not any(map(is_running, children)), GONE_SECONDS):
            self.find("other", f"a writer outlives its server by {GONE_SECONDS} s")
        self._await_clients()
        time.sleep(AFTERMATH_SECONDS)  # readers go on in what they have mapped
        self._ledger.words[Flag.END] = 1
        for process in self.readers:
            if not process.join(SLACK_SECONDS + READER_TIMEOUT):
                self.find("late", f"a reader does not end:\n{self._stacks_of(process)}")
        self._collect()
        if not self._report.findings:  # else it may still be changed
            self._find_all(audit(self._ledger, self.auditor))

    def _await_clients(self) -> None:
        """Every client has to get a named error within its time limit."""
        end = time.monotonic() + 2 * max(TIMEOUTS) + SLACK_SECONDS
        for process in self.clients:
            if not process.join(max(0.0, end - time.monotonic())):
                text = f"a client waits for a server that is gone:\n{self._stacks_of(process)}"
                self.find("late", text)


def all_paused(ledger: Ledger, clients: list[Process]) -> bool:
    """Tell whether no client has an operation under way."""
    return all(ledger.state(process.number, State.PAUSED) for process in clients)
