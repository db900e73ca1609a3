"""A client of the busy store: changes it in every way there is, and keeps the ledger."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import shmstore
from shmstore import RequestTimeout

from .ledger import ITEMS_MAX, REGISTERS, Count, Flag, Ledger, State
from .values import (
    CLIENT,
    COUNTERS,
    LEFT,
    QUEUE,
    REPLACED,
    RIGHT,
    SWAPPED,
    TABLE,
    THINGS_EACH,
    Things,
    certified,
    group_keys,
    is_certified,
    item_key,
    item_of,
    line_key,
    register_key,
    twin_key,
)
from .worker import PAUSE_SECONDS, TIMEOUTS, Disconnected, Worker

LINES = (2, 10, 100)
"""Operations in one pipeline."""
TRIES = 3
"""Of a compare-and-swap that others are faster than."""


def work(ledger: Ledger, number: int, address: str, seed: int) -> None:
    """Be client ``number``, until the server is gone."""
    rng = random.Random(seed)
    worker = Worker(ledger, number, rng, rng.choice(TIMEOUTS))
    try:
        with worker.connect(address) as client:
            changer = Changer(worker, client)
            try:
                changer.run()
            except Disconnected:
                changer.see_that_it_is_gone(address)
    except Disconnected:
        pass


class Changer:
    """All that a client does."""

    def __init__(self, worker: Worker, client: shmstore.Client) -> None:
        self._worker = worker
        self._ledger = worker.ledger
        self._rng = worker.rng
        self._me = worker.number
        self._client = client
        self._counters = client.table(COUNTERS)
        self._values = client.table(TABLE)
        self._queue = client.table(QUEUE)
        self._things = Things(client)
        self._own: dict[str, bool] = {}
        """Which things are there, and which of them are on."""
        self._made = 0
        self._sum = 0

    def run(self) -> None:
        """Change the store until it is gone, with Disconnected."""
        self._insistently(self._begin_things)
        ways: list[Callable[[], None]] = [
            self._increment, self._increment_line, self._increment_twins, self._swap, self._push,
            self._pop, self._pop_first, self._put_pair, self._put_group, self._swap_things,
            *[partial(self._put, which) for which in range(REGISTERS)],
            partial(self._put_line, 0), partial(self._replace, REPLACED),
        ]  # fmt: skip
        while True:
            self._pause()
            try:
                self._rng.choice(ways)()
            except RequestTimeout:
                # Done or not, or still to be done. Behind the next answer it is decided.
                self._insistently(self._catch_up)

    def _pause(self) -> None:
        while self._ledger.words[Flag.PAUSE]:
            self._ledger.set_state(self._me, State.PAUSED, 1)
            time.sleep(PAUSE_SECONDS)
        self._ledger.set_state(self._me, State.PAUSED, 0)

    def _insistently(self, task: Callable[[], None]) -> None:
        while True:
            try:
                return task()
            except RequestTimeout:
                self._pause()

    def _catch_up(self) -> None:
        with self._worker.operation("ping"):
            self._client.ping()
        self._own = {thing["id"]: thing["on"] for thing in self._mine()}

    def _begin(self, count: int, by: int = 1) -> int:
        return self._ledger.begin(self._me, count, by)

    def _acknowledge(self, count: int, number: int, mutations: int = 1) -> None:
        self._ledger.acknowledge(self._me, count, number)
        self._worker.count(State.DONE, mutations)

    def _add(self, count: int, by: int = 1) -> None:
        number = self._ledger.acknowledged(self._me, count) + by
        self._acknowledge(count, number, by)

    # Increments. Their results can only grow.

    def _increment(self) -> None:
        self._begin(Count.SUM)
        with self._worker.operation("increment"):
            result = self._counters.increment("sum")
        self._add(Count.SUM)
        self._see_sum(result)

    def _increment_line(self) -> None:
        """Many at once, so that the writer often dies between a commit and its answer."""
        length = self._rng.choice(LINES)
        low = self._ledger.acknowledged(self._me, Count.LINE)
        high = self._begin(Count.LINE, length)
        with self._worker.operation("a pipeline of increments"):
            with self._counters.pipeline() as line:
                replies = [line.increment(line_key(self._me)) for _ in range(length)]
        self._add(Count.LINE, length)
        results = [reply.result() for reply in replies]
        if results != list(range(results[0], results[0] + length)) or results[0] <= low:
            self._ledger.report("lost", f"increments after {low} led to {results}")
        if results[-1] > high:
            self._ledger.report("twice", f"{high} increments led to {results[-1]}")

    def _see_sum(self, result: int) -> None:
        if result <= self._sum:
            text = f"an increment led to {result} after one that led to {self._sum}"
            self._ledger.report("lost", text)
        self._sum = result

    def _increment_twins(self) -> None:
        self._begin(Count.TWIN)
        with self._worker.operation("a transaction of increments"):
            with self._client.transaction() as tx:
                tx.table(COUNTERS).increment("twins")
                own = tx.table(COUNTERS).increment(twin_key(self._me))
        self._add(Count.TWIN)
        low = self._ledger.acknowledged(self._me, Count.TWIN)
        high = self._ledger.begun(self._me, Count.TWIN)
        if not low <= own.result() <= high:
            kind = "lost" if own.result() < low else "twice"
            self._ledger.report(kind, f"a counter is {own.result()}, not {low} to {high}")

    def _swap(self) -> None:
        for _ in range(TRIES):
            with self._worker.operation("get_versioned"):
                version, counts = self._counters.get_versioned(SWAPPED, {})
            counts[self._me] = counts.get(self._me, 0) + 1
            self._begin(Count.SWAPS)
            with self._worker.operation("compare_and_swap"):
                swapped = self._counters.compare_and_swap(SWAPPED, version, counts)
            if swapped:
                return self._add(Count.SWAPS)
            self._begin(Count.SWAPS, -1)
            self._worker.count(State.DONE)

    # Values

    def _put(self, which: int) -> None:
        number = self._begin(Count.REGISTER + which)
        key = register_key(self._me, which)
        with self._worker.operation("put"):
            self._values[key] = certified(key, number)
        self._acknowledge(Count.REGISTER + which, number)

    def _put_line(self, which: int) -> None:
        length = self._rng.choice(LINES[:-1])
        number = self._begin(Count.REGISTER + which, length)
        key = register_key(self._me, which)
        with self._worker.operation("a pipeline of puts"):
            with self._values.pipeline() as line:
                for step in range(1 - length, 1):
                    line[key] = certified(key, number + step)
        self._acknowledge(Count.REGISTER + which, number, length)

    def _replace(self, which: int) -> None:
        """Delete and put in one transaction: nobody sees that it was gone."""
        number = self._begin(Count.REGISTER + which)
        key = register_key(self._me, which)
        with self._worker.operation("a transaction that deletes and puts"):
            with self._client.transaction() as tx:
                tx.table(TABLE).delete(key)
                tx.table(TABLE)[key] = certified(key, number)
        self._acknowledge(Count.REGISTER + which, number)

    def _put_group(self) -> None:
        number = self._begin(Count.GROUP)
        batch = {key: certified(key, number) for key in group_keys(self._me)}
        with self._worker.operation("put_many"):
            self._values.put_many(batch)
        self._acknowledge(Count.GROUP, number)

    def _put_pair(self) -> None:
        number = self._begin(Count.PAIR)
        with self._worker.operation("a transaction over two tables"):
            with self._client.transaction() as tx:
                tx.table(LEFT)[str(self._me)] = number
                tx.table(RIGHT)[str(self._me)] = number
        self._acknowledge(Count.PAIR, number)

    # The queue: each item is taken out once.

    def _push(self) -> None:
        if self._ledger.begun(self._me, Count.PUSHED) >= ITEMS_MAX:
            return
        number = self._begin(Count.PUSHED)
        key = item_key(self._me, number - 1)
        with self._worker.operation("insert_new"):
            is_new = self._queue.insert_new(key, certified(key, number))
        self._add(Count.PUSHED)
        if not is_new:
            self._ledger.report("twice", f"{key} was there before it was inserted")

    def _pop(self) -> None:
        self._begin(Count.POPPED)
        try:
            with self._worker.operation("popitem"):
                key, item = self._queue.popitem()
        except shmstore.RecordNotFound:
            return self._add(Count.POPPED)
        self._take(key, item)

    def _pop_first(self) -> None:
        with self._worker.operation("the first of an iteration"):
            key = next(iter(self._queue), None)
        if key is None:
            return
        self._begin(Count.POPPED)
        with self._worker.operation("pop"):
            item = self._queue.pop(key, None)
        if item is None:  # another client was faster
            return self._add(Count.POPPED)
        self._take(key, item)

    def _take(self, key: object, item: object) -> None:
        client, number = item_of(key)
        place = client * ITEMS_MAX + number
        if self._ledger.taken[place]:
            self._ledger.report("twice", f"{key!r} was taken out of the queue twice")
        self._ledger.taken[place] = 1
        if not is_certified(str(key), item):
            self._ledger.report("torn", f"{key!r} came out of the queue as {item!r:.200}")
        self._add(Count.POPPED)

    # Things: as many as ever, half of them on.

    def _mine(self) -> list[dict[str, Any]]:
        return [
            thing
            for on in (True, False)
            for thing in self._things.find(on=on)
            if thing["client"] == self._me
        ]

    def _begin_things(self) -> None:
        with self._worker.operation("ping"):
            self._client.ping()  # what was tried before is decided
        if not self._mine():
            records = [self._thing(number % 2 == 0) for number in range(THINGS_EACH)]
            with self._worker.operation("insert_many"):
                self._things.insert_many(records)
            self._worker.count(State.DONE)
        self._own = {thing["id"]: thing["on"] for thing in self._mine()}

    def _thing(self, on: bool) -> dict[str, object]:
        self._made += 1
        return {
            "id": f"th_{self._me}_{self._made}",
            "created": self._me * CLIENT + self._rng.randrange(5),
            "client": self._me,
            "on": on,
        }

    def _swap_things(self) -> None:
        """One thing comes for another, one is switched on and one off, all at once."""
        ids = self._rng.sample(sorted(self._own), len(self._own))
        gone = ids.pop()
        lit = next(key for key in ids if self._own[key])
        dark = next(key for key in ids if not self._own[key])
        new = self._thing(self._own[gone])
        with self._worker.operation("a transaction over a store"):
            with self._client.transaction() as tx:
                things = Things(tx)
                things.delete(gone)
                things.insert(new)
                things.patch(lit, on=False)
                things.patch(dark, on=True)
        self._worker.count(State.DONE)
        del self._own[gone]
        self._own |= {str(new["id"]): bool(new["on"]), lit: False, dark: True}

    # The end

    def see_that_it_is_gone(self, address: str) -> None:
        """See that further mutations fail by name, and that reads go on."""
        for what, call, kind in (
            ("put", lambda: self._values.put("late", 1), shmstore.WriterUnavailable),
            ("increment", lambda: self._counters.increment("late"), shmstore.WriterUnavailable),
            ("connect", lambda: shmstore.connect(address, 2.0).close(), shmstore.StoreNotFound),
        ):
            try:
                with self._worker.limited(f"{what} without a server", self._worker.timeout):
                    call()
                self._ledger.report("other", f"{what} was possible without a server")
            except kind:
                pass
        key = register_key(self._me, 0)
        record = self._values.get(key)
        if record is not None and not is_certified(key, record):
            self._ledger.report("torn", f"{key} without a server: {record!r:.200}")
