"""From nothing to the first record: starting a server, and attaching to a running one."""

from __future__ import annotations

import time
from statistics import median

from ..arena import Arena, load, nothing
from ..harness import Run, reason_of, rounded
from ..histogram import Histogram
from ..processes import TaskFailed
from ..records import Dataset
from ..results import Cell
from ..rivals.base import NotAvailable
from .operations import time_attaching

START = "start"
ATTACH = "attach"
ATTACHES = 10


def measure(run: Run) -> None:
    """Measure starting with one record, and attaching to a large table."""
    shared = [name for name, kind in run.rivals.items() if kind.shared]
    if run.wants(START):
        starts(run, shared)
    if run.wants(ATTACH):
        attaches(run, shared)


def starts(run: Run, names: list[str]) -> None:
    """Time the server side from its start to the first record stored by another process."""
    dataset = Dataset(1)
    taken: dict[str, list[int]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for _ in range(run.settings.starts):
        for name in run.chance.sample(names, len(names)):
            if name not in failed:
                try:
                    taken[name].append(one_start(name, dataset))
                except (TaskFailed, NotAvailable) as error:
                    failed[name] = reason_of(error)
    for name in names:
        cell = Cell(START, name, dataset.records, dataset.value, skipped=failed.get(name))
        if cell.skipped is None:
            cell.ns = rounded(median(taken[name]))
            cell.p50 = Histogram.of(taken[name]).percentile(50)
        run.note(cell)


def one_start(name: str, dataset: Dataset) -> int:
    """Return the nanoseconds from the start until a record was stored and read."""
    with Arena(name, dataset) as arena:
        worker = arena.workers(1)[0]
        worker.call(nothing)  # the process is there; what remains is the rival's
        begin = time.perf_counter_ns()
        worker.call(load, dataset, False)
        return int(arena.start_seconds * 1e9) + time.perf_counter_ns() - begin


def attaches(run: Run, names: list[str]) -> None:
    """Time a process from nothing to the first record it reads of a large table."""
    dataset = Dataset(run.settings.middle)
    with run.arenas(dataset, among=names) as (arenas, why_not):
        for name, arena in arenas.items():
            cell = Cell(ATTACH, name, dataset.records, dataset.value)
            try:
                # The second worker: the first one may own the records.
                taken = arena.workers(2)[1].call(time_attaching, ATTACHES)
            except TaskFailed as error:
                cell.skipped = reason_of(error)
            else:
                cell.ns = rounded(median(taken[1:]))
                cell.p50 = Histogram.of(taken[1:]).percentile(50)
            run.note(cell)
        for name, why in why_not.items():
            run.skip(ATTACH, name, dataset, why)
