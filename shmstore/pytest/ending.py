"""The end of shared values: when nobody uses them any more, what follows their yield is run.

The process that computed a value closes it, at its own end: its turn comes where pytest would tear
down a session fixture that was set up when the value was. First it waits until all workers are
done with their tests and those that used the value have come to that same point. If the process
died, the function given to ``teardown`` is run by one of those that are left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import RequestTimeout, WriterUnavailable
from ..table import Table
from .identity import Instance
from .ledger import CLOSING, DONE, LOST, READY, Ledger
from .values import Loaded

if TYPE_CHECKING:
    import pytest

REPLACEMENT_SECONDS = 3.0
"""How long a lost worker may take to be replaced by one that has a name."""
INTERRUPTED_SECONDS = 2.0
"""How long to wait for others in all after Ctrl-C: after 5 s there is another one."""
NOTICE_SECONDS = 60.0


class _Busy(NamedTuple):
    """A worker for which a value is kept, and the record that says why."""

    table: Table
    key: str
    version: int
    worker: str
    is_lost: bool = False


class Ending:
    """What this process has to do in the end. Nothing of it is done in forked children."""

    def __init__(
        self, ledger: Ledger, session: pytest.Session, used: set[str], say: Callable[[str], None]
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._say = say
        self._keys_used = used
        self._used: list[tuple[Instance, Callable[[], Loaded]]] = []
        self._given_up: set[str] = set()
        self._process = os.getpid()
        self._deadline: float | None = None
        self._is_done = False
        self.interruption: KeyboardInterrupt | None = None
        """What came while this process waited: to be raised when all has been run."""

    # What the life of a value adds to the session's finalizers, which run last in, first out.

    def own(self, instance: Instance, value: Any, finalizers: list[Callable[[], object]]) -> None:
        """Run ``finalizers`` when nobody uses the value any more, which was computed here."""
        self._session.addfinalizer(partial(self._close, instance, value))
        self.keep(finalizers)
        self._session.addfinalizer(partial(self._await_last_use, instance))

    def use(self, instance: Instance, load: Callable[[], Loaded]) -> None:
        """Let go of a value in the end, which another process computed."""
        self._session.addfinalizer(partial(self._leave, instance))
        if instance.declaration.release is not None:
            self._used.append((instance, load))

    def keep(self, finalizers: list[Callable[[], object]]) -> None:
        """Run ``finalizers`` in the end, those of a fixture without a value."""
        for finalizer in finalizers:
            self._session.addfinalizer(partial(self._run, finalizer))

    def _await_last_use(self, instance: Instance) -> None:
        if self._is_forked:
            return
        try:
            self.say_done()
            self._begin_closing(instance)
        except WriterUnavailable:
            pass  # the controller is gone, and so is the run: all that is left is to tidy up
        except KeyboardInterrupt as interruption:
            # Raised here it would take the place of all that is still to be run.
            self.interruption = interruption
            self.hurry()

    def _run(self, finalizer: Callable[[], object]) -> None:
        if not self._is_forked:
            finalizer()

    def _close(self, instance: Instance, value: Any) -> None:
        if self._is_forked:
            return
        try:
            if instance.declaration.release is not None:
                instance.declaration.release(value)
        finally:
            with suppress(WriterUnavailable):
                self._ledger.close(instance.key)

    def _leave(self, instance: Instance) -> None:
        if self._is_forked:
            return
        with suppress(WriterUnavailable):
            self.say_done()
            self._ledger.leave(instance.key)
        self._keys_used.discard(instance.key)

    # Waiting for others.

    def say_done(self) -> None:
        """Say that this process needs no further values."""
        if not self._is_done:
            self._is_done = True
            self._ledger.workers[self._ledger.worker] = DONE

    def hurry(self) -> None:
        """Wait for others no longer than a moment, from now on: the run was interrupted."""
        self._deadline = time.monotonic() + INTERRUPTED_SECONDS

    def _begin_closing(self, instance: Instance) -> None:
        """Return when nobody uses the value, and whoever wants to will wait for a new one."""
        results, key = self._ledger.results, instance.key
        while True:
            self._await_others(instance)
            results.patch(key, state=CLOSING)
            if self._is_late or self._busy(key) is None:
                return
            results.patch(key, state=READY)  # for whom came in between

    def _await_others(self, instance: Instance) -> None:
        began, notice = time.monotonic(), NOTICE_SECONDS
        while (busy := self._busy(instance.key)) is not None and not self._is_late:
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
    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def _is_forked(self) -> bool:
        return os.getpid() != self._process

    # What processes that died have left.

    def legacies(self) -> list[Callable[[], None]]:
        """Return what is to be called when this process has ended all else, each by itself."""
        return [partial(self._take_over, *used) for used in reversed(self._used)]

    def _take_over(self, instance: Instance, load: Callable[[], Loaded]) -> None:
        """Release a value if its owner dies before it is closed, unless somebody else does."""
        release = instance.declaration.release
        if self._is_forked or release is None:
            return
        key, ledger = instance.key, self._ledger
        with suppress(WriterUnavailable):
            while (
                ledger.results.get(key, {}).get("state") in (READY, CLOSING) and not self._is_late
            ):
                version, owner = ledger.owners.get_versioned(key)
                if owner is not None:
                    self._wait_changed(
                        _Busy(ledger.owners, key, version, owner["worker"]), NOTICE_SECONDS
                    )
                elif ledger.own(key):
                    self._begin_closing(instance)
                    try:
                        release(load().value)
                    finally:
                        ledger.close(key)
