"""Lookups by one process: bytes, decoded, one field, missing, many; tables small and large."""

from __future__ import annotations

from ..arena import Arena
from ..harness import Run
from ..records import Dataset
from ..results import Cell
from ..timing import Measured
from .operations import RAW, time_calls

EVERY = ("get raw", "get decoded", "get one field", "get missing", "get 100 decoded")
PLAIN = ("get raw", "get decoded")
SMALL = 1_000
BLOBS = 16


def measure(run: Run) -> None:
    """Measure every operation on records of 160 bytes, and plain lookups of other sizes."""
    for records in run.settings.sizes:
        on_dataset(run, Dataset(records), EVERY)
    for dataset in (Dataset(SMALL, "16 B"), Dataset(SMALL, "4 KiB"), Dataset(BLOBS, "1 MiB")):
        on_dataset(run, dataset, PLAIN)


def on_dataset(run: Run, dataset: Dataset, workloads: tuple[str, ...]) -> None:
    """Measure these workloads of one process; those of bytes on bytes."""
    for packed in (True, False):
        wanted = [name for name in workloads if (name in RAW) == packed and run.wants(name)]
        if not wanted:
            continue
        with run.arenas(dataset, packed) as (arenas, why_not):
            for workload in wanted:
                one_workload(run, workload, dataset, arenas, 1)
                for name, why in why_not.items():
                    run.skip(workload, name, dataset, why)


def one_workload(
    run: Run, workload: str, dataset: Dataset, arenas: dict[str, Arena], processes: int
) -> None:
    """Measure one workload on all arenas, by so many processes at once."""

    def measured(arena: Arena) -> list[Measured] | None:
        arguments = (workload, dataset, run.settings.seconds, arena.pids)
        results = arena.measure(processes, time_calls, *arguments)
        return None if results[0] is None else results

    def case(name: str) -> Cell:
        return Cell(workload, name, dataset.records, dataset.value, processes)

    run.interleaved(arenas, measured, case)
