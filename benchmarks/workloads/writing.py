"""Writes by one process: one by one, pipelined, in batches; and increments by many."""

from __future__ import annotations

from ..arena import Arena
from ..harness import Run
from ..processes import TaskFailed, together
from ..records import Dataset
from .operations import count_up, counted
from .reading import on_dataset, one_workload

EVERY = ("put", "put pipelined", "put in batches")
SMALL = 1_000
BLOBS = 16
INCREMENT = "increment"
COUNTS = 200
"""Increments of each process when it is checked that none is lost."""


def measure(run: Run) -> None:
    """Measure replacing records of several sizes, then counting by several processes."""
    on_dataset(run, Dataset(run.settings.middle), EVERY)
    for dataset in (Dataset(SMALL, "16 B"), Dataset(SMALL, "4 KiB"), Dataset(BLOBS, "1 MiB")):
        on_dataset(run, dataset, EVERY[:1])
    if run.wants(INCREMENT):
        counting(run)


def counting(run: Run) -> None:
    """Have several processes increment one number; first check that none of it is lost."""
    dataset = Dataset(SMALL)
    most = max(count for count in run.settings.processes if count <= 4)
    with run.arenas(dataset) as (arenas, why_not):
        for processes in (1, most):
            right = {}
            for name, arena in arenas.items():
                if processes > 1 and not arena.kind.shared:
                    run.skip(INCREMENT, name, dataset, "unsupported", processes=processes)
                    continue
                complaint = complaint_of(arena, processes)
                if complaint:
                    run.skip(INCREMENT, name, dataset, complaint, processes=processes)
                else:
                    right[name] = arena
            one_workload(run, INCREMENT, dataset, right, processes)
            for name, why in why_not.items():
                run.skip(INCREMENT, name, dataset, why, processes=processes)


def complaint_of(arena: Arena, processes: int) -> str | None:
    """Return why this rival does not count right; None if it does."""
    workers = arena.workers(processes)
    try:
        if not all(together(workers, count_up, 1)):
            return "unsupported"
        before = workers[0].call(counted)
        together(workers, count_up, COUNTS)
        found = workers[0].call(counted) - before
    except TaskFailed as error:
        return f"failed: {str(error).strip().splitlines()[-1]}"
    wanted = COUNTS * processes
    return None if found == wanted else f"wrong: counted {found} of {wanted}"
