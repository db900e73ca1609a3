"""When a shared value may be closed: all others are done with their tests, and none uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import RequestTimeout
from ..table import Table
from .identity import Instance
from .ledger import CLOSING, DONE, LOST, READY, Ledger

REPLACEMENT_SECONDS = 3.0
"""How long a lost worker may take to be replaced by one that has a name."""
INTERRUPTED_SECONDS = 2.0
"""How long to wait for others in all after Ctrl-C: after 5 s there is another one."""
NOTICE_SECONDS = 60.0
"""After which time a process says whom it waits for; again after twice that time, and so on."""


class _Busy(NamedTuple):
    """A worker for which a value is kept, and the record that says why."""

    table: Table
    key: str
    version: int
    worker: str
    is_lost: bool = False


class Closing:
    """Waits for others, for one process. ``say`` shows a line to the user, whatever is captured."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._say = say
        self._given_up: set[str] = set()
        self._deadline: float | None = None
        self._is_done = False

    def say_done(self) -> None:
        """Say that this process needs no further values."""
        if not self._is_done:
            self._is_done = True
            self._ledger.workers[self._ledger.worker] = DONE

    def hurry(self) -> None:
        """Wait for others no longer than a moment, from now on: the run was interrupted."""
        self._deadline = time.monotonic() + INTERRUPTED_SECONDS

    def begin(self, instance: Instance) -> None:
        """Return when nobody uses the value, and whoever wants to will wait for a new one."""
        results, key = self._ledger.results, instance.key
        while True:
            self._await_others(instance)
            results.patch(key, state=CLOSING)
            if self.is_late or self._busy(key) is None:
                return
            results.patch(key, state=READY)  # for whom came in between

    def _await_others(self, instance: Instance) -> None:
        began, notice = time.monotonic(), NOTICE_SECONDS
        while (busy := self._busy(instance.key)) is not None and not self.is_late:
            waited = time.monotonic() - began
            if waited >= notice:
                self._say(
                    f"{self._ledger.worker} has kept shared fixture {instance.label!r} for "
                    f"{waited:.0f} s until {busy.worker} has ended its tests"
                )
                notice *= 2
            changed = self._wait_changed(
                busy, REPLACEMENT_SECONDS if busy.is_lost else notice - waited
            )
            if busy.is_lost and not changed:
                self._given_up.add(busy.worker)

    def _wait_changed(self, busy: _Busy, seconds: float) -> bool:
        if self._deadline is not None:
            seconds = min(seconds, max(0.0, self._deadline - time.monotonic()))
        try:
            busy.table.wait_changed(busy.key, busy.version, seconds)
        except RequestTimeout:
            return False
        return True

    def _busy(self, key: str) -> _Busy | None:
        """Return a worker that uses a value, or may do so yet; None if there is no other."""
        workers, users = self._ledger.workers, self._ledger.users
        others = [str(worker) for worker in workers if worker != self._ledger.worker]
        for worker in others:
            version, state = workers.get_versioned(worker)
            is_lost = state == LOST
            if state not in (None, DONE) and not (is_lost and worker in self._given_up):
                return _Busy(workers, worker, version, worker, is_lost)
        for worker in others:
            use = f"{key} {worker}"
            if version := users.version(use):
                return _Busy(users, use, version, worker)
        return None

    @property
    def is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def await_owner(self, instance: Instance) -> bool:
        """Wait a while for the process that is to close a value; False if it is gone."""
        version, owner = self._ledger.owners.get_versioned(instance.key)
        if owner is None:
            return False
        busy = _Busy(self._ledger.owners, instance.key, version, owner["worker"])
        self._wait_changed(busy, NOTICE_SECONDS)
        return True
