"""Several processes: readers on two cores, and a reader beside a saturated writer."""

from __future__ import annotations

import os
from statistics import median

from .. import rivals
from ..arena import Arena
from ..harness import rate_of
from ..processes import Desk, each_its_own, together
from ..records import Dataset
from ..timing import Measured
from ..workloads.operations import flood, pin, time_calls

PAIR = {rivals.OURS: "get_bytes", rivals.LIMIT: "dict.get"}
WARM_UP_SECONDS = 0.1


def scaling(rounds: int, seconds: float, dataset: Dataset) -> dict[str, float]:
    """Measure how much more two processes read on two cores than one does alone."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    figures: dict[str, float] = {}
    with Arena(rivals.OURS, dataset) as ours, Arena(rivals.LIMIT, dataset) as limit:
        rates: dict[tuple[str, int], list[float]] = {}
        for arena in (ours, limit):
            arena.load()
            for worker, core in zip(arena.workers(2), cores, strict=False):
                worker.call(pin, [core])
        for _ in range(rounds):
            for arena in (ours, limit):
                for count in (1, 2):
                    arguments = ("get raw", dataset, seconds, arena.pids)
                    measured = arena.measure(count, time_calls, *arguments)
                    rates.setdefault((arena.name, count), []).append(sum(map(rate_of, measured)))
    for name, label in PAIR.items():
        one, two = median(rates[name, 1]), median(rates[name, 2])
        figures |= {f"{label} by 1": one, f"{label} by 2": two, f"scaling of {label}": two / one}
    return figures


def beside_writer(rounds: int, seconds: float, dataset: Dataset) -> dict[str, float]:
    """Measure decoded reads on one core, with the writer at rest and saturated on the other.

    The process that floods the writer shares the writer's core, so that the reader's is its own.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return {}
    idle: list[float] = []
    busy: list[float] = []
    written = 0.0
    with Arena(rivals.OURS, dataset) as arena:
        arena.load()
        flooder, reader = arena.workers(2)
        reader.call(pin, [first])
        flooder.call(pin, others)
        for pid in arena.pids:
            os.sched_setaffinity(pid, others)
        arguments = ("get decoded", dataset, seconds, arena.pids)
        retries = reads = 0
        for _ in range(rounds):
            idle.append(rate_of(together([reader], time_calls, *arguments)[0]))
            before = reader.call(counted_retries)
            written_now, read = each_its_own(
                [
                    (flooder, flood, (dataset, seconds + WARM_UP_SECONDS)),
                    (reader, time_calls, arguments),
                ]
            )
            busy.append(rate_of(read))
            written += written_now / (seconds + WARM_UP_SECONDS)
            retries += reader.call(counted_retries) - before
            reads += all_reads(read)
    return {
        "reads per second, idle": median(idle),
        "reads per second, saturated": median(busy),
        "writes per second meanwhile": written / rounds,
        "retries": float(retries),
        "busy reads / 10,000": reads / 10_000,
    }


def all_reads(measured: Measured) -> int:
    """Return how many reads were timed, in blocks and alone; the warm-up comes on top."""
    return measured.operations + len(measured.singles)


def counted_retries(desk: Desk) -> int:
    """Return how often this process's reader had to start over."""
    statistics = desk.connected().statistics
    assert statistics is not None
    return statistics()["retries"]
