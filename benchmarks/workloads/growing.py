"""A table that grows from empty, write by write: does one wait for the table to be rehashed?"""

from __future__ import annotations

from ..arena import Arena
from ..harness import Run, duration, reason_of, rounded
from ..histogram import Histogram
from ..processes import TaskFailed, Worker
from ..records import Dataset
from ..results import Cell
from ..rivals.base import NotAvailable
from .operations import grow, read_now_and_then

GROW = "grow"
TRIAL_RECORDS = 1_000


def measure(run: Run) -> None:
    """Grow a table of each rival by acknowledged puts, while another process reads."""
    if not run.wants(GROW):
        return
    dataset = Dataset(run.settings.grow_records)
    for name in run.rivals:
        try:
            with Arena(name, dataset) as arena:
                run.note(one_growth(arena, run.settings.grow_seconds_max))
        except (TaskFailed, NotAvailable) as error:
            run.skip(GROW, name, dataset, reason_of(error))


def one_growth(arena: Arena, seconds_max: float, batch: int = 1) -> Cell:
    """Return how long writes took, and the reads meanwhile."""
    dataset = arena.dataset
    cell = Cell(GROW, arena.name, dataset.records, dataset.value)
    writer = arena.workers(1)[0]
    tried = writer.call(grow, Dataset(TRIAL_RECORDS), batch)
    if tried is None:
        cell.skipped = "unsupported"
        return cell
    estimate = tried[1] / TRIAL_RECORDS * dataset.records
    if estimate > seconds_max:
        cell.skipped = f"skipped: would take {duration(estimate)}"
        return cell
    reader = arena.workers(2)[1] if arena.kind.shared else None
    writes, seconds, reads = growth_beside_reader(arena, writer, reader, batch)
    cell.ns = rounded(seconds * 1e9 / dataset.records)
    cell.rate = rounded(dataset.records / seconds)
    cell.p50, cell.p99 = writes.percentile(50), writes.percentile(99)
    cell.p999, cell.p9999 = writes.percentile(99.9), writes.percentile(99.99)
    cell.highest = writes.highest()
    cell.extra = {"records per write": batch}
    figures = {"read p50": reads.percentile(50), "read p99.9": reads.percentile(99.9)}
    figures |= {"read p99.99": reads.percentile(99.99), "slowest read": reads.highest()}
    cell.extra |= {name: value for name, value in figures.items() if value is not None}
    return cell


def growth_beside_reader(
    arena: Arena, writer: Worker, reader: Worker | None, batch: int
) -> tuple[Histogram, float, Histogram]:
    """Return (latencies of the writes, their seconds, latencies of the reads meanwhile)."""
    assert arena.folder is not None
    flag = arena.folder / "grown"
    if reader is not None:
        reader.ask(read_now_and_then, str(flag))
        reader.hear()
        reader.tell(0)
    try:
        writes, seconds = writer.call(grow, arena.dataset, batch)
    finally:
        flag.touch()
        reads = reader.hear()[1] if reader is not None else Histogram()
    return writes, seconds, reads
