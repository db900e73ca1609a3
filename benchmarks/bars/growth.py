"""A table that grows from empty to a million records, and the memory it then takes.

What a record takes is what the writer counts as used: entry, index, lists and what rounding wastes.
The segment holds free memory besides, for the next records; it is shown, and is no part of the bar.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgpack

import shmstore

from .. import rivals
from ..arena import Arena
from ..machine import private_bytes_of
from ..records import Dataset, key_of
from ..workloads.growing import one_growth
from ..workloads.memory import added_by_reader

BATCHES = (1, 10, 100)
"""Records per write; the smallest that is done in time."""
BLOCK_BYTES = 512
SAMPLED = 1_000


def growth(records: int, seconds_max: float) -> dict[str, float]:
    """Grow a table beside a reader; then measure its memory, and that of one more reader."""
    dataset = Dataset(records)
    figures: dict[str, float] = {}
    for batch in BATCHES:
        with Arena(rivals.OURS, dataset) as arena:
            empty = segment_bytes(arena.pids[0])
            writer_before = private_bytes_of(arena.pids[0])["anonymous"]
            cell = one_growth(arena, seconds_max, batch)
            if cell.skipped is not None:
                print(f"   {batch} records per write: {cell.skipped}")
                continue
            if cell.p9999 is not None:
                figures["write p99.99"] = cell.p9999 / 1e6
            figures["slowest write"] = (cell.highest or 0) / 1e6
            for name in ("read p99.99", "read p99.9", "slowest read"):
                if name in (cell.extra or {}):
                    figures[name] = (cell.extra or {})[name] / 1e6
            figures["records per write"] = batch
            figures["segment per record"] = (segment_bytes(arena.pids[0]) - empty) / records
            figures["of that in use"] = used_bytes(arena) / records
            figures["payload per record"] = payload(dataset)
            figures["overhead"] = figures["of that in use"] - figures["payload per record"]
            writer = private_bytes_of(arena.pids[0])["anonymous"] - writer_before
            figures["writer's private memory per record"] = writer / records
            private, tables = added_by_reader(arena)
            figures |= {"reader memory": private / 1e6, "reader page tables": tables / 1e6}
            return figures
    return figures


def used_bytes(arena: Arena) -> int:
    """Return how much of the segment holds something, going by the writer."""
    with shmstore.connect(arena.address) as client:
        return int(client.stats()["used"])


def payload(dataset: Dataset) -> float:
    """Return the mean bytes of key and value."""
    numbers = range(0, dataset.records, max(1, dataset.records // SAMPLED))
    sizes = [len(key_of(each)) + len(msgpack.packb(dataset.record(each))) for each in numbers]
    return sum(sizes) / len(sizes)


def segment_bytes(pid: int) -> int:
    """Return the memory that the segment of a writer process really takes."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(entry).startswith("/memfd:"):
                return os.stat(entry).st_blocks * BLOCK_BYTES
    return 0
