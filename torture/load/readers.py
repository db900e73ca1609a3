"""A reader of the busy store: judges each thing it sees by what the ledger says around the read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any

import shmstore
from shmstore.codec import unpack

from .ledger import CLIENTS_MAX, ITEMS_MAX, REGISTERS, Count, Flag, Ledger, State
from .values import (
    COUNTERS,
    LEFT,
    QUEUE,
    REPLACED,
    RIGHT,
    SWAPPED,
    TABLE,
    THINGS_EACH,
    Things,
    group_keys,
    is_certified,
    item_key,
    item_of,
    line_key,
    register_key,
    twin_key,
)
from .worker import READER_TIMEOUT, Disconnected, Worker

ITEMS_SEEN = 40
TWINS = [twin_key(client) for client in range(CLIENTS_MAX)]


def look(ledger: Ledger, number: int, address: str, seed: int) -> None:
    """Be a reader with the words of ``number``, until told to end."""
    worker = Worker(ledger, number, random.Random(seed), READER_TIMEOUT)
    try:
        with worker.connect(address) as client:
            reader = Reader(worker, client)
            while not ledger.words[Flag.END]:
                try:
                    reader.look()
                except (shmstore.RequestTimeout, Disconnected):
                    continue  # it was overtaken, and asked the writer
    except Disconnected:
        pass


class Reader:
    """All that a reader does."""

    def __init__(self, worker: Worker, client: shmstore.Client) -> None:
        self._worker = worker
        self._ledger = worker.ledger
        self._rng = worker.rng
        self._values = client.table(TABLE)
        self._counters = client.table(COUNTERS)
        self._queue = client.table(QUEUE)
        self._pair = client.table(LEFT), client.table(RIGHT)
        self._things = Things(client)
        self._last: dict[str, int] = {}
        """The highest number seen under a key."""
        self._ways: list[Callable[[int], None]] = [
            partial(self._see_register, "get", self._values.get),
            partial(self._see_register, "get_bytes", self._get_bytes),
            partial(self._see_register, "get_versioned", self._get_versioned),
            partial(self._see_register, "record", self._get_record),
            self._see_registers, self._see_group, self._see_all_values, self._see_pair,
            self._see_sum, self._see_line, self._see_twins, self._see_swapped, self._see_queue,
            self._see_taken, self._see_page, self._see_things, self._see_count,
        ]  # fmt: skip

    def look(self) -> None:
        """Read something and judge it."""
        clients = self._ledger.clients
        if clients:
            self._rng.choice(self._ways)(self._rng.choice(clients))
            self._worker.count(State.DONE)

    # Numbers: what was acknowledged before the call <= what is seen <= what was begun before its
    # return, and never less than this process has seen.

    def _judge(self, key: str, seen: int, low: int, high: int) -> None:
        low = max(low, self._last.get(key, 0))
        if low <= seen <= high:
            self._last[key] = seen
        else:
            self._ledger.report("stale", f"{key} is at {seen}, it must be at {low} to {high}")

    def _judge_record(self, key: str, record: Any, low: int, high: int) -> None:
        if record is not None and not is_certified(key, record):
            self._ledger.report("torn", f"{key}: {record!r:.300}")
        else:
            self._judge(key, 0 if record is None else record[1], low, high)

    # Single values

    def _get_bytes(self, key: str) -> Any:
        data = self._values.get_bytes(key)
        return None if data is None else unpack(data)

    def _get_versioned(self, key: str) -> Any:
        return self._values.get_versioned(key)[1]

    def _get_record(self, key: str) -> Any:
        record = self._values.record(key)
        return None if record is None else list(record)

    def _see_register(self, what: str, read: Callable[[str], Any], client: int) -> None:
        which = self._rng.randrange(REGISTERS)
        key, count = register_key(client, which), Count.REGISTER + which
        low = self._ledger.acknowledged(client, count)
        with self._worker.operation(what):
            record = read(key)
        self._judge_record(key, record, low, self._ledger.begun(client, count))

    def _see_sum(self, client: int) -> None:
        low = self._ledger.total_acknowledged(Count.SUM)
        with self._worker.operation("get"):
            seen = self._counters.get("sum", 0)
        self._judge("sum", seen, low, self._ledger.total_begun(Count.SUM))

    def _see_line(self, client: int) -> None:
        low = self._ledger.acknowledged(client, Count.LINE)
        with self._worker.operation("get"):
            seen = self._counters.get(line_key(client), 0)
        self._judge(line_key(client), seen, low, self._ledger.begun(client, Count.LINE))

    def _see_swapped(self, client: int) -> None:
        low = self._ledger.acknowledged(client, Count.SWAPS)
        with self._worker.operation("get"):
            seen = self._counters.get(SWAPPED, {}).get(client, 0)
        self._judge(f"swaps-{client}", seen, low, self._ledger.begun(client, Count.SWAPS))

    # Several values of one snapshot

    def _see_registers(self, client: int) -> None:
        keys = [register_key(client, which) for which in range(REGISTERS)]
        lows = [self._ledger.acknowledged(client, Count.REGISTER + i) for i in range(REGISTERS)]
        with self._worker.operation("get_many"):
            records = self._values.get_many(keys)
        for which, key in enumerate(keys):
            high = self._ledger.begun(client, Count.REGISTER + which)
            self._judge_record(key, records.get(key), lows[which], high)

    def _see_group(self, client: int) -> None:
        keys = group_keys(client)
        low = self._ledger.acknowledged(client, Count.GROUP)
        with self._worker.operation("get_many"):
            records = self._values.get_many(keys)
        high = self._ledger.begun(client, Count.GROUP)
        for key in keys:
            self._judge_record(key, records.get(key), low, high)
        numbers = {record[1] for record in records.values()}
        if len(numbers) > 1 or len(records) not in (0, len(keys)):
            self._ledger.report("torn", f"a group was seen by half: {numbers}, {len(records)}")

    def _see_twins(self, client: int) -> None:
        low = self._ledger.total_acknowledged(Count.TWIN)
        with self._worker.operation("get_many"):
            found = self._counters.get_many(["twins", *TWINS])
        total = found.pop("twins", 0)
        self._judge("twins", total, low, self._ledger.total_begun(Count.TWIN))
        if total != sum(found.values()):
            text = f"a transaction was seen by half: {total} is not the sum of {found}"
            self._ledger.report("torn", text)

    def _see_pair(self, client: int) -> None:
        key = str(client)
        low = self._ledger.acknowledged(client, Count.PAIR)
        for table in self._rng.sample(self._pair, 2):
            with self._worker.operation("get"):
                seen = table.get(key, 0)
            # What was seen in the first table is acknowledged for the second.
            self._judge(f"pair-{key}", seen, low, self._ledger.begun(client, Count.PAIR))

    # Walks

    def _see_all_values(self, client: int) -> None:
        mine = {register_key(client, which): which for which in range(REGISTERS)}
        lows = {key: self._ledger.acknowledged(client, Count.REGISTER + mine[key]) for key in mine}
        with self._worker.operation("items"):
            records = dict(self._values.items())
        for key, record in records.items():
            if not is_certified(str(key), record):
                self._ledger.report("torn", f"{key!r}: {record!r:.300}")
        for key, which in mine.items():
            if which == REPLACED and key not in records:
                continue  # gone and come in one place of the walk and another
            high = self._ledger.begun(client, Count.REGISTER + which)
            self._judge_record(key, records.get(key), lows[key], high)

    def _see_queue(self, client: int) -> None:
        with self._worker.operation("items"):
            items = list(islice(self._queue.items(), ITEMS_SEEN))
        for key, item in items:
            owner, number = item_of(key)
            if number >= self._ledger.begun(owner, Count.PUSHED):
                self._ledger.report("stale", f"{key!r} is in the queue before it was inserted")
            if not is_certified(str(key), item):
                self._ledger.report("torn", f"{key!r} in the queue: {item!r:.300}")

    def _see_taken(self, client: int) -> None:
        pushed = self._ledger.acknowledged(client, Count.PUSHED)
        number = self._rng.randrange(pushed) if pushed else 0
        if self._ledger.taken[client * ITEMS_MAX + number]:
            key = item_key(client, number)
            with self._worker.operation("in"):
                if key in self._queue:
                    self._ledger.report("stale", f"{key} was taken before, and is still there")

    # The store

    def _see_count(self, client: int) -> None:
        with self._worker.operation("count"):
            seen = self._things.count()
        self._judge_whole(seen, "count")

    def _judge_whole(self, seen: int, what: str) -> None:
        if seen % THINGS_EACH:
            self._ledger.report("torn", f"{what}: {seen} things, a transaction was seen by half")

    def _see_page(self, client: int) -> None:
        with self._worker.operation("list"):
            page = self._things.list(limit=100)
        if not page.has_more:
            self._judge_whole(len(page.data), "page")
        created = [thing["created"] for thing in page.data]
        if created != sorted(created, reverse=True):
            self._ledger.report("torn", f"a page in no order: {created}")
        self._judge_owners(page.data[: len(page.data) // THINGS_EACH * THINGS_EACH], THINGS_EACH)

    def _see_things(self, client: int) -> None:
        on = self._rng.random() < 0.5
        with self._worker.operation("find"):
            found = self._things.find(on=on)
        if any(thing["on"] is not on for thing in found):
            self._ledger.report("torn", f"found by on={on}: {found}")
        self._judge_owners(found, THINGS_EACH // 2)

    def _judge_owners(self, things: Iterable[dict[str, Any]], each: int) -> None:
        """Things of one snapshot: as many of every client, none twice."""
        owned: dict[int, set[str]] = {}
        for thing in things:
            owned.setdefault(thing["client"], set()).add(thing["id"])
        if any(len(ids) != each for ids in owned.values()):
            numbers = {owner: len(ids) for owner, ids in owned.items()}
            self._ledger.report("torn", f"a transaction was seen by half: {numbers}, not {each}")
