"""How the cost of a call grows with the table: that of reads through an index must not.

Prints microseconds per call, as the median of many, for stores of 1,000 and of 100,000 records.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import shmstore

SIZES = (1_000, 100_000)
CAPACITY = "512MiB"
BATCH_RECORDS = 1_000
REPEATS = 400
STATES = ("enabled", "disabled", "pending", "failed")


class Things(shmstore.Store):
    """A resource with an index."""

    table, resource, prefix = "things", "thing", "th"
    indexes = ("owner",)


def main() -> None:
    """Fill a store of each size, time the calls on each, and print a row per call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES, help="numbers of records")
    sizes = parser.parse_args().sizes
    columns = [measured(size) for size in sizes]
    print(f"{'microseconds per call':<24}" + "".join(f"{size:>12,}" for size in sizes))
    for name in columns[0]:
        print(f"{name:<24}" + "".join(f"{column[name]:>12,.1f}" for column in columns))


def measured(size: int) -> dict[str, float]:
    """Return the median time of each call on a store of ``size`` records."""
    with shmstore.start(capacity=CAPACITY) as server, server.connect() as client:
        things = Things(client)
        fill(things, size)
        keys = itertools.cycle(f"th_{number}" for number in range(0, size, max(1, size // 997)))
        return {
            "get": median(lambda: things.get(next(keys))),
            "count()": median(things.count),
            "list(limit=10)": median(lambda: things.list(limit=10)),
            "list, from the middle": median(
                lambda: things.list(limit=10, starting_after=f"th_{size // 2}")
            ),
            "find, 10 of them": median(lambda: things.find(owner=1)),
            "insert": median(lambda: things.insert({"owner": 0, "state": STATES[0]})),
        }


def fill(things: Things, size: int) -> None:
    """Insert records, 10 of them for each owner but the first."""
    for start in range(0, size, BATCH_RECORDS):
        things.insert_many(
            {
                "id": f"th_{number}",
                "created": 1_700_000_000 + number // 7,
                "owner": number // 10,
                "state": STATES[number % len(STATES)],
            }
            for number in range(start, min(start + BATCH_RECORDS, size))
        )


def median(call: Callable[[], Any]) -> float:
    """Return the median of many calls, in microseconds."""
    return statistics.median(times(call)) * 1e6


def times(call: Callable[[], Any]) -> Sequence[float]:
    """Return how long each of many calls took, in seconds."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


if __name__ == "__main__":
    main()
