"""How a process gets the value of a shared fixture: the first computes it, all others wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from ..errors import RequestTimeout, ShmstoreError
from ..table import Table, Transaction
from .errors import FixtureCycle, FixtureTimeout, WorkersDied
from .failures import ENDS, FAILURES, failure_of
from .identity import Instance
from .ledger import CLOSING, FAILED, READY, Ledger, value_key
from .places import Teller

ATTEMPTS_MAX = 3
"""How many processes may die of one fixture."""
NOTICE_SECONDS = 10.0
"""After which time a process says whom it waits for; again after twice that time, and so on."""
BRIEF_CHARACTERS_MAX = 1000
"""How much is told of a failure of which all is too much for the store."""

Result: TypeAlias = dict[str, Any]
Compute: TypeAlias = Callable[[str, Callable[["Computed"], None]], None]
"""Computes what is to be stored under a key, and calls what stores it as the result."""


class Computed(NamedTuple):
    """What computing a fixture gave."""

    stored_bytes: int
    closes: bool
    """Whether something is to be done when nobody uses the value any more."""
    publish: Callable[[Transaction], None]
    """Has a transaction show the value to others."""


class Obtaining:
    """Gets results for one process. ``say`` shows a line to the user, whatever is captured.

    If the run ``is_shared``, others are told where this process is as it computes.
    """

    def __init__(
        self,
        ledger: Ledger,
        used: set[str],
        say: Callable[[str], None],
        *,
        is_shared: bool,
        seconds_max: float,
        may_pickle: bool,
    ) -> None:
        self._ledger = ledger
        self._is_shared = is_shared
        self._seconds_max = seconds_max
        self._say = say
        self._may_pickle = may_pickle
        self._computing: set[str] = set()
        self._used = used
        self.waited: dict[str, float] = {}
        """Seconds that this process waited for others, by key; all that it obtained."""

    def obtain(
        self, instance: Instance, test: str, compute: Compute, stale: int = 0
    ) -> tuple[Result, bool]:
        """Return the result, and whether it was computed here, by ``compute``.

        A failure of generation ``stale`` or before is not taken: it is computed again. Raises what
        ``compute`` raises, where it is called; FixtureTimeout and FixtureCycle.
        """
        __tracebackhide__ = True
        key = instance.key
        self.waited.setdefault(key, 0.0)
        while True:
            result = self._usable(key, stale)
            if result is not None:
                return result, False
            if self._is_closing(key):
                self._wait(self._ledger.owners, instance)
            elif not self._ledger.claim(key, test):
                self._wait(self._ledger.claims, instance)
            elif (result := self._usable(key, stale)) is not None:
                self._ledger.claims.delete(key)  # it was finished just before
            else:
                return self._compute(instance, compute), True

    def _usable(self, key: str, stale: int) -> Result | None:
        result: Result | None = self._ledger.results.get(key)
        if result is None or result["state"] not in (READY, FAILED):
            return None
        if result["state"] == FAILED:
            return result if result["generation"] > stale else None
        if result["closes"] and key not in self._used:
            self._ledger.use(key)
            if self._ledger.results.get(key) != result:
                return None  # its owner began to close it before it could see this
            self._used.add(key)
        return result

    def _is_closing(self, key: str) -> bool:
        """Tell whether somebody, who is alive, closes the result."""
        return self._ledger.state(key) == CLOSING and self._ledger.owners.version(key) != 0

    def _compute(self, instance: Instance, compute: Compute) -> Result:
        __tracebackhide__ = True
        key, ledger = instance.key, self._ledger
        result: Result = {
            "generation": ledger.generation(key) + 1,
            "name": instance.name,
            "label": instance.label,
            "location": instance.location,
            "worker": ledger.worker,
        }
        began = time.perf_counter()
        teller = Teller(partial(ledger.tell_place, key)) if self._is_shared else None

        def finish(computed: Computed) -> None:
            if teller is not None:
                teller.stop()
            if computed.closes:
                ledger.own(key)
                self._used.add(key)
            result.update(
                state=READY,
                seconds=time.perf_counter() - began,
                finished=time.time(),
                bytes=computed.stored_bytes,
                closes=computed.closes,
                releases=instance.declaration.release is not None,
            )
            ledger.finish(key, result, computed.publish)

        self._computing.add(key)
        try:
            died = ledger.begin(key)
            if len(died) >= ATTEMPTS_MAX:
                raise _workers_died(instance, died)
            compute(value_key(key, result), finish)
        except ENDS:
            ledger.give_up(key)
            raise
        except FAILURES as error:
            failure = failure_of(error, may_pickle=self._may_pickle)
            self._finish_failed(key, {**result, "state": FAILED, "closes": False}, failure)
            raise
        except BaseException:
            ledger.give_up(key)
            raise
        finally:
            if teller is not None:
                teller.stop()
            self._computing.discard(key)
        return result

    def _finish_failed(self, key: str, result: Result, failure: dict[str, Any]) -> None:
        """Store a failure; rather less of it than nothing, as others wait."""
        message = failure["message"][:BRIEF_CHARACTERS_MAX]
        brief = {**failure, "message": message, "traceback": "", "pickled": None}
        for shown in (failure, brief):
            with suppress(ShmstoreError):
                self._ledger.finish(key, {**result, "failure": shown})
                return
        self._ledger.give_up(key)

    # Waiting.

    def _wait(self, table: Table, instance: Instance) -> None:
        """Return when the process that holds a key of ``table`` let go of it, or died."""
        __tracebackhide__ = True
        key = instance.key
        version, card = table.get_versioned(key)
        if card is None:
            return
        if self._computing:
            self._ledger.waits[self._ledger.worker] = key
            self._refuse_cycle(instance)
        began = time.monotonic()
        try:
            self._wait_changed(table, instance, version, card)
        finally:
            self.waited[key] += time.monotonic() - began
            if self._computing:
                self._ledger.waits.delete(self._ledger.worker)

    def _wait_changed(
        self, table: Table, instance: Instance, version: int, card: dict[str, Any]
    ) -> None:
        __tracebackhide__ = True
        declared = instance.declaration.timeout
        seconds_max = self._seconds_max if declared is None else declared
        began, notice = time.monotonic(), NOTICE_SECONDS
        while True:
            waited = time.monotonic() - began
            if waited >= seconds_max:
                raise FixtureTimeout(
                    f"{self._waiting(waited, instance, card)}; if that may take longer say so, "
                    f"with timeout= of shared_fixture or with shmstore_timeout in the "
                    f"configuration of pytest"
                )
            if waited >= notice:
                self._say(self._waiting(waited, instance, card))
                notice *= 2
            try:
                table.wait_changed(instance.key, version, min(notice, seconds_max) - waited)
                return
            except RequestTimeout:
                continue

    def _waiting(self, waited: float, instance: Instance, card: dict[str, Any]) -> str:
        """Return for whom this process waits, and where that is, by what it wrote on its card."""
        what, place = "tears down", ""
        if "test" in card:
            what, place = "computes", f", for {card['test']}"
            if at := self._ledger.place(instance.key, card["worker"]):
                place += f", at {at}"
        return (
            f"{self._ledger.worker} has waited {waited:.0f} s for shared fixture "
            f"{instance.label!r} ({instance.location}), which {card['worker']} (process "
            f"{card['pid']}) {what}{place}"
        )

    def _refuse_cycle(self, instance: Instance) -> None:
        """Raise FixtureCycle if whom this process waits for waits, in the end, for this one."""
        key, passed = instance.key, [instance.label]
        while (claim := self._ledger.claims.get(key)) is not None and len(passed) < 100:
            next_key = self._ledger.waits.get(claim["worker"])
            if next_key is None:
                return
            if next_key in self._computing:
                raise FixtureCycle(
                    f"shared fixtures wait for each other: {' waits for '.join(passed)}, which "
                    f"{claim['worker']} computes, and which waits for one that "
                    f"{self._ledger.worker} computes; have one of them not ask for the other"
                )
            key = next_key
            passed.append(key.rpartition("-")[0])


def _workers_died(instance: Instance, workers: list[str]) -> WorkersDied:
    return WorkersDied(
        f"shared fixture {instance.label!r} ({instance.location}) was given up: the processes "
        f"that computed it died, {', '.join(workers[:-1])} and {workers[-1]}; run one test that "
        f"needs it without workers (-n0) to see why"
    )
