"""What clients and readers have in common: they are forked, timed, paused, and report."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from multiprocess import get_context

import shmstore

from .ledger import Flag, Ledger, State, milliseconds

SLACK_SECONDS = 5.0
"""Beyond its time limit an operation may take so long: this machine has other work, and the process
itself may be stopped."""
PAUSE_SECONDS = 0.001
TIMEOUTS = (0.2, 2.0, 20.0)
READER_TIMEOUT = 2.0


class Disconnected(Exception):
    """The server has ended, as it may."""


class Worker:
    """The part of a forked process that knows the ledger. ``number`` is that of its words."""

    def __init__(self, ledger: Ledger, number: int, rng: random.Random, timeout: float) -> None:
        self.ledger = ledger
        self.number = number
        self.rng = rng
        self.timeout = timeout

    @contextmanager
    def limited(self, what: str, limit: float) -> Iterator[None]:
        """Have the block watched: it has to end within ``limit`` seconds and some slack."""
        started = milliseconds()
        allowed = round((limit + SLACK_SECONDS) * 1000)
        self.ledger.set_state(self.number, State.DEADLINE, started + allowed)
        try:
            yield
        finally:
            self.ledger.set_state(self.number, State.DEADLINE, 0)
            took = milliseconds() - started
            if took > allowed:
                self.ledger.report("late", f"{what} with a limit of {limit} s took {took} ms")

    @contextmanager
    def operation(self, what: str) -> Iterator[None]:
        """Have one call of the client watched; Disconnected when the server has ended."""
        try:
            with self.limited(what, self.timeout):
                yield
        except (shmstore.WriterUnavailable, shmstore.StoreNotFound) as error:
            if self.ledger.words[Flag.GONE]:
                raise Disconnected from error
            self.ledger.report("other", f"{what} while the server was there: {error!r}")
            raise
        except shmstore.RequestTimeout:
            self.count(State.TIMEOUTS)
            raise

    def connect(self, address: str) -> shmstore.Client:
        """Return a client that is attached; tries again when that takes too long."""
        while True:
            try:
                with self.operation("connect"):
                    return shmstore.connect(address, self.timeout)
            except shmstore.RequestTimeout:
                continue

    def count(self, state: State, by: int = 1) -> None:
        """Count what was done."""
        self.ledger.set_state(self.number, state, self.ledger.state(self.number, state) + by)


class Process:
    """A forked worker as the judge sees it."""

    def __init__(self, number: int, task: Callable[[], None], ledger: Ledger, stacks: IO[str]):
        self.number = number
        self._process = get_context("fork").Process(target=_run, args=(task, ledger, stacks))
        self._process.start()
        self.pid = int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return bool(self._process.is_alive())

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def join(self, seconds: float) -> bool:
        """Wait for its end; tell whether it came."""
        self._process.join(seconds)
        return not self.alive

    def close(self) -> None:
        """Kill it if it is there, and forget it."""
        self.kill()
        self._process.close()


def _run(task: Callable[[], None], ledger: Ledger, stacks: IO[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    try:
        task()
    except BaseException:
        ledger.report("other", f"a worker failed:\n{traceback.format_exc()}")
        sys.stdout.flush()
        os._exit(1)
    os._exit(0)
