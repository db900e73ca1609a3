"""What is made of the notes of the workers: one sample for each run, one cell for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from ..harness import rounded
from ..results import Cell


@dataclass(frozen=True)
class Notes:
    """What one worker noted; moments are nanoseconds of the clock that all of them share."""

    worker: str
    ready: list[tuple[str, int]]
    """(fixture, moment) of each that this worker computed."""
    asked: int
    """When its first test asked for its fixtures."""
    in_hand: int
    """When its first test had them."""
    private_before: int
    private_after: int
    """The memory that it alone had before its first test and after its last, in bytes."""
    cpu_before: int
    cpu_after: int
    """The processor time that it had used until then."""

    @property
    def gained(self) -> int:
        """The private memory that its tests and their fixtures took."""
        return self.private_after - self.private_before


@dataclass(frozen=True)
class Sample:
    """What one run cost."""

    wall_ns: int
    cpu_ns: int
    """Of all processes of the run."""
    private: float
    """Memory that a worker has alone when its tests are done; the mean of all workers."""
    gained: float
    """How much of it came with its tests."""
    computed: int
    """How often a fixture was computed, all fixtures together."""
    delays: tuple[int, ...]
    """From ready to in hand, for each worker that waited for another one's value."""
    reader_gained: float | None
    reader_cpu_ns: float | None
    """Memory and processor time of the tests of a worker that computed nothing."""


def sample_of(wall_ns: int, cpu_ns: int, notes: Sequence[Notes]) -> Sample:
    """Return what a run cost, of what its workers noted."""
    computed = sum(len(each.ready) for each in notes)
    readers = [each for each in notes if computed and not each.ready]
    return Sample(
        wall_ns=wall_ns,
        cpu_ns=cpu_ns,
        private=mean(each.private_after for each in notes),
        gained=mean(each.gained for each in notes),
        computed=computed,
        delays=delays_of(notes),
        reader_gained=mean(each.gained for each in readers) if readers else None,
        reader_cpu_ns=mean(e.cpu_after - e.cpu_before for e in readers) if readers else None,
    )


def delays_of(notes: Sequence[Notes]) -> tuple[int, ...]:
    """Return how long after the value was there each other worker had it.

    Of many fixtures the one that was ready last counts. Who asks later waits from then on; who
    computes itself is not counted.
    """
    first: dict[str, int] = {}
    for name, moment in (entry for each in notes for entry in each.ready):
        first[name] = min(moment, first.get(name, moment))
    if not first:
        return ()
    last = max(first, key=lambda name: first[name])
    return tuple(
        each.in_hand - max(first[last], each.asked)
        for each in notes
        if last not in {name for name, _ in each.ready}
    )


def fill_in(cell: Cell, samples: Sequence[Sample]) -> None:
    """Fill in a cell: medians of the runs, and of all delays together."""
    delays = [delay for sample in samples for delay in sample.delays]
    cell.ns = rounded(median(sample.wall_ns for sample in samples))
    cell.cpu_ns = rounded(median(sample.cpu_ns for sample in samples))
    cell.bytes = rounded(median(sample.gained for sample in samples))
    cell.p50, cell.highest = (round(median(delays)), max(delays)) if delays else (None, None)
    cell.extra = {
        "runs": len(samples),
        "computed": median(sample.computed for sample in samples),
        "private bytes": rounded(median(sample.private for sample in samples)),
    }
    for name, figures in (
        ("reader bytes", [sample.reader_gained for sample in samples]),
        ("reader cpu ns", [sample.reader_cpu_ns for sample in samples]),
    ):
        known = [figure for figure in figures if figure is not None]
        if known:
            cell.extra[name] = rounded(median(known))
