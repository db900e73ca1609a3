"""Reads by many processes at once, and reads beside a writer that never pauses."""

from __future__ import annotations

import os

from ..arena import Arena
from ..harness import Run
from ..processes import each_its_own, together
from ..records import Dataset
from ..results import Cell
from ..timing import Measured
from .operations import RAW, flood, pin, time_calls
from .reading import one_workload

CONCURRENT = ("get raw", "get decoded")
IDLE = "get, writer idle"
BUSY = "get, writer busy"
WARM_UP_SECONDS = 0.05


def measure(run: Run) -> None:
    """Measure with 1, 2, 4, 8 processes; then one reader with and without a busy writer."""
    dataset = Dataset(run.settings.middle)
    for workload in CONCURRENT:
        if not run.wants(workload):
            continue
        with run.arenas(dataset, packed=workload in RAW) as (arenas, why_not):
            for processes in run.settings.processes:
                one_workload(run, workload, dataset, arenas, processes)
                for name, why in why_not.items():
                    run.skip(workload, name, dataset, why, processes=processes)
    if run.wants(IDLE) or run.wants(BUSY):
        beside_a_writer(run, dataset)


def beside_a_writer(run: Run, dataset: Dataset) -> None:
    """Measure decoded reads on one core while all writing goes on on another, and while it rests.

    The same cores are used for both: only the writing makes the difference.
    """
    shared = [name for name, kind in run.rivals.items() if kind.shared]
    with run.arenas(dataset, among=shared) as (arenas, why_not):
        pinned = [name for name, arena in arenas.items() if separated(arena)]
        chosen = {name: arenas[name] for name in pinned}

        def idle(arena: Arena) -> list[Measured] | None:
            reader = arena.workers(2)[1]
            arguments = ("get decoded", dataset, run.settings.seconds, arena.pids)
            return together([reader], time_calls, *arguments)

        def busy(arena: Arena) -> list[Measured] | None:
            writer, reader = arena.workers(2)
            # Twice as long: the reader has more to prepare, and is to end first.
            seconds = 2 * run.settings.seconds + WARM_UP_SECONDS
            arguments = ("get decoded", dataset, run.settings.seconds, arena.pids)
            written, read = each_its_own(
                [(writer, flood, (dataset, seconds)), (reader, time_calls, arguments)]
            )
            return None if written is None else [read]

        for workload, measured in ((IDLE, idle), (BUSY, busy)):
            run.interleaved(
                chosen,
                measured,
                lambda name, w=workload: cell(w, name, dataset),  # type: ignore[misc]
            )
            for name, why in why_not.items():
                run.skip(workload, name, dataset, why)


def cell(workload: str, name: str, dataset: Dataset) -> Cell:
    """Return an empty cell."""
    return Cell(workload, name, dataset.records, dataset.value)


def separated(arena: Arena) -> bool:
    """Put the reader on one core and everything that writes on the others, if there are two."""
    first, *others = sorted(os.sched_getaffinity(0))
    writer, reader = arena.workers(2)
    if not others:
        return False
    reader.call(pin, [first])
    writer.call(pin, others)
    for pid in arena.pids:
        os.sched_setaffinity(pid, others)
    return True
