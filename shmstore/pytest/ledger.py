"""What a run knows of its shared fixtures: tables of its store, which all its processes see.

A fixture that was needed has a *claim* while a process computes it, and a *result* after that. A
result is READY or FAILED; where something follows the fixture's yield, it is CLOSING while that
runs, and then CLOSED, as if it were not there. A claim, the *owner* of a result that is to be
closed, and its *users* are gone when their process is gone, however it ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ..client import Client
from ..table import Transaction

READY, FAILED, CLOSING, CLOSED = "ready", "failed", "closing", "closed"
RUNNING, DONE, STARTING, LOST = "running", "done", "starting", "lost"

PREFIX = "pytest."
VALUES = PREFIX + "values"


class Ledger:
    """The tables, and the steps that change more than one of them."""

    def __init__(self, client: Client, worker: str) -> None:
        self.client = client
        self.worker = worker
        self.claims = client.table(PREFIX + "claims")
        self.results = client.table(PREFIX + "results")
        self.attempts = client.table(PREFIX + "attempts")
        """Who began to compute what has no result yet."""
        self.owners = client.table(PREFIX + "owners")
        self.users = client.table(PREFIX + "users")
        """Which worker uses which result that is to be closed."""
        self.workers = client.table(PREFIX + "workers")
        """What each worker is about: RUNNING, DONE with its tests, STARTING, or LOST."""
        self.waits = client.table(PREFIX + "waits")
        """For which fixture a worker waits that computes another one meanwhile."""
        self.places = client.table(PREFIX + "places")
        """Where in the code who computes a fixture is, and who that is."""
        self.readers = client.table(PREFIX + "readers")
        """What each worker says in the end: seconds waited, by fixture."""

    def claim(self, key: str, test: str) -> bool:
        """Make this process the one that computes; False if another one is."""
        card = {**self._card(), "test": test, "since": time.time()}
        return self.claims.insert_new(key, card, while_alive=True)

    def begin(self, key: str) -> list[str]:
        """Note an attempt to compute what was claimed; return who tried before, and died."""
        before: list[str] = self.attempts.get(key, [])
        self.attempts[key] = [*before, self.worker]
        return before

    def tell_place(self, key: str, place: str) -> None:
        """Say where in the code this process is, which computes."""
        self.places[key] = {"worker": self.worker, "place": place}

    def place(self, key: str, worker: str) -> str:
        """Return where in the code a worker is that computes; "" if it has not said so."""
        told = self.places.get(key)
        return str(told["place"]) if told is not None and told["worker"] == worker else ""

    def finish(
        self,
        key: str,
        result: dict[str, Any],
        publish: Callable[[Transaction], None] = lambda _: None,
    ) -> None:
        """Store the result of a claim, with what it is of; those who wait for it wake."""
        with self.client.transaction() as transaction:
            publish(transaction)
            transaction.table(self.results.name).put(key, result)
            transaction.table(self.claims.name).delete(key)
            transaction.table(self.attempts.name).delete(key)
            transaction.table(self.places.name).delete(key)

    def give_up(self, key: str) -> None:
        """Let somebody else compute what was claimed; this is no attempt."""
        before = self.attempts.get(key, [self.worker])[:-1]
        with self.client.transaction() as transaction:
            transaction.table(self.attempts.name).put(key, before)
            transaction.table(self.places.name).delete(key)
            transaction.table(self.claims.name).delete(key)

    def generation(self, key: str) -> int:
        """Return how often a fixture has come to a result."""
        result = self.results.get(key)
        return 0 if result is None else int(result["generation"])

    def state(self, key: str) -> str | None:
        """Return the state of a fixture's result; None if there is none."""
        result = self.results.get(key)
        return None if result is None else str(result["state"])

    def unclosed(self) -> dict[str, dict[str, Any]]:
        """Return the results that are to be closed and are not, by key; the latest first."""
        found = {str(key): result for key, result in self.results.items() if is_unclosed(result)}
        latest_first = sorted(found, key=lambda key: found[key]["finished"], reverse=True)
        return {key: found[key] for key in latest_first}

    def own(self, key: str) -> bool:
        """Make this process the one that will close the result; False if another one is."""
        return self.owners.insert_new(key, self._card(), while_alive=True)

    def use(self, key: str) -> None:
        """Say that this process uses a result: it is not closed before ``leave``."""
        self.users.insert_new(f"{key} {self.worker}", True, while_alive=True)

    def leave(self, key: str) -> None:
        """Say that this process has no use for a result any more."""
        self.users.delete(f"{key} {self.worker}")

    def close(self, key: str) -> None:
        """Say that a result was closed: who needs it now computes it anew."""
        with self.client.transaction() as transaction:
            transaction.table(self.results.name).patch(key, state=CLOSED)
            transaction.table(self.owners.name).delete(key)

    def expect(self, worker: str) -> None:
        """Say that a worker is being started, in place of those that were lost."""
        self.workers[worker] = STARTING
        for other, state in self.workers.items():
            if state == LOST:
                self.workers[other] = DONE

    def note_end(self, worker: str, *, is_lost: bool) -> None:
        """Say that a worker has ended, or was lost: then there may be another one soon."""
        self.workers[worker] = LOST if is_lost else DONE

    def _card(self) -> dict[str, Any]:
        return {"worker": self.worker, "pid": os.getpid()}


def is_unclosed(result: dict[str, Any]) -> bool:
    """Tell whether something is to be done yet when nobody uses the value any more."""
    return bool(result["closes"] and result["state"] != CLOSED)


def value_key(key: str, result: dict[str, Any]) -> str:
    """Return under which key of the table VALUES the value of a result is stored."""
    return f"{key}.{result['generation']}"
