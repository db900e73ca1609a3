"""What must be in the store while nobody changes it: all that was acknowledged, and whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import shmstore

from .ledger import ITEMS_MAX, REGISTERS, Count, Finding, Ledger
from .values import (
    COUNTERS,
    LEFT,
    QUEUE,
    RIGHT,
    SWAPPED,
    TABLE,
    THINGS_EACH,
    Things,
    group_keys,
    is_certified,
    item_of,
    line_key,
    register_key,
    twin_key,
)


def audit(ledger: Ledger, client: shmstore.Client) -> Iterator[Finding]:
    """Yield what is wrong; reads alone, so that it works when the server has ended, too.

    What was begun and not acknowledged, by a client that was killed or ran into its time limit,
    may be there or not.
    """
    yield from _counters(ledger, client)
    yield from _values(ledger, client)
    yield from _pairs(ledger, client)
    yield from _queue(ledger, client)
    yield from _things(ledger, client)


def _between(what: str, seen: int, low: int, high: int) -> Iterator[Finding]:
    if not low <= seen <= high:
        kind = "lost" if seen < low else "twice"
        yield Finding(kind, f"{what}: {seen}, acknowledged were {low}, begun {high}")


def _counters(ledger: Ledger, client: shmstore.Client) -> Iterator[Finding]:
    counters: dict[Any, Any] = client.table(COUNTERS).copy()
    for key, count in (("sum", Count.SUM), ("twins", Count.TWIN)):
        low, high = ledger.total_acknowledged(count), ledger.total_begun(count)
        yield from _between(key, counters.get(key, 0), low, high)
    swapped = counters.get(SWAPPED, {})
    twins = [counters.get(twin_key(number), 0) for number in ledger.clients]
    for number in ledger.clients:
        for what, seen, count in (
            ("twin", twins[number], Count.TWIN),
            ("swaps", swapped.get(number, 0), Count.SWAPS),
            ("line", counters.get(line_key(number), 0), Count.LINE),
        ):
            low, high = ledger.acknowledged(number, count), ledger.begun(number, count)
            yield from _between(f"{what} of client {number}", seen, low, high)
    if sum(twins) != counters.get("twins", 0):
        yield Finding("torn", f"twins are {counters.get('twins', 0)}, but together {sum(twins)}")


def _values(ledger: Ledger, client: shmstore.Client) -> Iterator[Finding]:
    values: dict[Any, Any] = client.table(TABLE).copy()
    for key, record in values.items():
        if not is_certified(str(key), record):
            yield Finding("torn", f"{key!r}: {record!r:.300}")
    for number in ledger.clients:
        for which in range(REGISTERS):
            count, record = Count.REGISTER + which, values.get(register_key(number, which))
            low, high = ledger.acknowledged(number, count), ledger.begun(number, count)
            seen = 0 if record is None else record[1]
            yield from _between(register_key(number, which), seen, low, high)
        low, high = ledger.acknowledged(number, Count.GROUP), ledger.begun(number, Count.GROUP)
        group = {values[key][1] if key in values else 0 for key in group_keys(number)}
        if len(group) > 1:
            yield Finding("torn", f"the group of client {number} has the numbers {group}")
        yield from _between(f"the group of client {number}", min(group), low, high)


def _pairs(ledger: Ledger, client: shmstore.Client) -> Iterator[Finding]:
    left, right = (client.table(name).copy() for name in (LEFT, RIGHT))
    if left != right:
        yield Finding("torn", f"written together, but apart: {left} and {right}")
    for number in ledger.clients:
        low, high = ledger.acknowledged(number, Count.PAIR), ledger.begun(number, Count.PAIR)
        yield from _between(f"the pair of client {number}", left.get(str(number), 0), low, high)


def _queue(ledger: Ledger, client: shmstore.Client) -> Iterator[Finding]:
    left = {item_of(key) for key in client.table(QUEUE)}
    missing = 0
    for number in ledger.clients:
        for item in range(ledger.begun(number, Count.PUSHED)):
            is_taken = bool(ledger.taken[number * ITEMS_MAX + item])
            if is_taken and (number, item) in left:
                yield Finding("twice", f"item {item} of client {number} was taken and is there")
            # Those that were not acknowledged may not be there. Their places are not known, but
            # only a client that was killed, or did not get an answer in time, has any.
            missing += not is_taken and (number, item) not in left
    unsure = ledger.total_begun(Count.PUSHED) - ledger.total_acknowledged(Count.PUSHED)
    taking = ledger.total_begun(Count.POPPED) - ledger.total_acknowledged(Count.POPPED)
    if missing > unsure + taking:
        text = f"{missing} items are nowhere; {unsure} may not have come, {taking} may have gone"
        yield Finding("lost", text)


def _things(ledger: Ledger, client: shmstore.Client) -> Iterator[Finding]:
    things = Things(client)
    owned: dict[tuple[int, bool], int] = {}
    found = things.find()
    for thing in found:
        owner = thing["client"], thing["on"]
        owned[owner] = owned.get(owner, 0) + 1
    if any(count != THINGS_EACH // 2 for count in owned.values()) or len(owned) % 2:
        yield Finding("torn", f"things of (client, on): {owned}")
    if len(found) != things.count():
        yield Finding("torn", f"{len(found)} things are found, {things.count()} counted")
