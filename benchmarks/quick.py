"""One honest number, in a few seconds: what a lookup costs here, and what it costs elsewhere.

    python benchmarks/quick.py [--rounds 200] [--lookups 200]

All contestants take short turns in one run, on the same records and the same keys, each round in
another order, so that a busy machine slows all of them alike. Shown are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
from collections.abc import Callable
from multiprocessing import Manager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import msgpack

import shmstore
from shmstore.engine import NAME

SAMPLE = Path(__file__).parent / "data" / "packages.jsonl"
SEED = 1
UNIT = "shmstore get"
Lookup = Callable[[str], Any]


def load_sample() -> dict[str, dict[str, Any]]:
    """Return the records by their key."""
    with SAMPLE.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {record["package"]: record for record in records}


def seconds_per_lookup(lookup: Lookup, keys: list[str]) -> float:
    """Time one pass over the keys."""
    begin = perf_counter()
    for key in keys:
        lookup(key)
    return (perf_counter() - begin) / len(keys)


def measure(
    contestants: dict[str, Lookup], keys: list[str], rounds: int, lookups: int
) -> dict[str, float]:
    """Return the median cost of a lookup by contestant."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    chance = random.Random(SEED)
    for _ in range(rounds):
        sequence = chance.choices(keys, k=lookups)
        for name in chance.sample(list(contestants), len(contestants)):
            times[name].append(seconds_per_lookup(contestants[name], sequence))
    return {name: median(series) for name, series in times.items()}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="time lookups, side by side")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--lookups", type=int, default=200, help="in each round")
    arguments = parser.parse_args()

    sample = load_sample()
    packed = {key: msgpack.packb(record) for key, record in sample.items()}
    with shmstore.start(capacity="64MiB") as server, Manager() as manager:
        table = server.table("packages")
        table.put_many(sample.items())
        proxy = manager.dict(sample)
        contestants: dict[str, Lookup] = {
            "Manager().dict() get": proxy.get,
            UNIT: table.get,
            "msgpack.unpackb(dict[key])": lambda key: msgpack.unpackb(packed[key]),
            "shmstore get_bytes": table.get_bytes,
            "dict.get": packed.get,
        }
        assert all(table.get(key) == proxy.get(key) == record for key, record in sample.items())
        costs = measure(contestants, list(sample), arguments.rounds, arguments.lookups)

    print(
        f"{len(sample):,} records, {arguments.rounds} rounds of {arguments.lookups:,} random "
        f"lookups, medians; {NAME} engine, Python {platform.python_version()}\n"
    )
    for name, cost in costs.items():
        print(f"{name:<28} {cost * 1e6:>9.2f} us {cost / costs[UNIT]:>8.2f} x")


if __name__ == "__main__":
    main()
