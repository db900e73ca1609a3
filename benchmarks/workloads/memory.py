"""Memory: for each record beyond its key and value, and for each process that reads."""

from __future__ import annotations

from ..arena import Arena
from ..harness import Run, reason_of, rounded
from ..processes import TaskFailed
from ..records import Dataset, key_of
from ..results import Cell
from .operations import private_memory

PER_RECORD = "memory per record"
PER_READER = "memory per reader"


def measure(run: Run) -> None:
    """Measure both on the largest table; one rival after the other, so that none disturbs."""
    if not (run.wants(PER_RECORD) or run.wants(PER_READER)):
        return
    dataset = Dataset(run.settings.sizes[-1])
    for name in run.rivals:
        with run.arenas(dataset, among=[name]) as (arenas, why_not):
            for arena in arenas.values():
                of_arena(run, arena)
            for why in why_not.values():
                for workload in (PER_RECORD, PER_READER):
                    run.skip(workload, name, dataset, why)


def of_arena(run: Run, arena: Arena) -> None:
    """Keep what the machine has lost for each record, and what a reader has alone."""
    dataset = arena.dataset
    payload = len(key_of(0)) + dataset.value_bytes()
    run.note(
        Cell(
            PER_RECORD,
            arena.name,
            dataset.records,
            dataset.value,
            bytes=rounded(arena.load_bytes / dataset.records),
            extra={"payload": payload},
        )
    )
    cell = Cell(PER_READER, arena.name, dataset.records, dataset.value)
    try:
        cell.bytes, page_tables = added_by_reader(arena)
        cell.extra = {"page tables": page_tables}
    except TaskFailed as error:
        cell.skipped = reason_of(error)
    run.note(cell)


def added_by_reader(arena: Arena) -> tuple[float, float]:
    """Return (private memory, page tables) that a process gains by reading the whole table."""
    reader = arena.another()
    try:
        before = reader.call(private_memory, None)
        if not arena.kind.shared:
            arena.fill(reader)
        after = reader.call(private_memory, arena.dataset)
    finally:
        reader.stop()
    gained = {name: float(after[name] - before[name]) for name in after}
    return gained["private"], gained["page_tables"]
