"""A recorded run: groups of workloads on all rivals, interleaved, and what is kept of it.

For each dataset all rivals are started and loaded, and stay up. Then, workload by workload, each
repetition visits all of them in another order, so that whatever slows the machine for a while slows
everybody. What would take too long is skipped, by rules stated in the results.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from . import rivals
from .arena import Arena, Unsupported
from .histogram import Histogram
from .processes import TaskFailed
from .records import SEED, Dataset
from .results import Cell
from .rivals.base import NotAvailable, Rival
from .timing import Measured

SLOW_NS = 20e6
"""Calls that take longer than this are timed in one repetition only."""


TRIAL_RECORDS = 1_000
"""How many records are loaded first to see how long all of them would take."""


@dataclass(frozen=True)
class Settings:
    """How long and how large a run is."""

    seconds: float = 0.3
    """Of one measurement of one rival."""
    repetitions: int = 3
    sizes: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    middle: int = 100_000
    """Records, where only one size is measured."""
    processes: tuple[int, ...] = (1, 2, 4, 8)
    load_seconds_max: float = 20.0
    """A dataset whose loading would take longer, going by a smaller one, is skipped."""
    grow_records: int = 1_000_000
    grow_seconds_max: float = 60.0
    starts: int = 5


FULL = Settings()
QUICK = Settings(
    seconds=0.12,
    repetitions=2,
    sizes=(1_000, 20_000),
    middle=20_000,
    processes=(1, 2, 4),
    load_seconds_max=4.0,
    grow_records=20_000,
    grow_seconds_max=6.0,
    starts=2,
)


@dataclass
class Run:
    """One run: what is measured, on whom, and the figures so far."""

    settings: Settings
    rivals: dict[str, type[Rival]]
    only: str | None = None
    """The one workload to measure, if not all of them."""
    cells: list[Cell] = field(default_factory=list)
    say: Callable[[str], None] = print
    load_rates: dict[tuple[str, str, bool], float] = field(default_factory=dict)
    """Seconds per record that loading took, by rival, value and indexed."""
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))

    def wants(self, workload: str) -> bool:
        """Tell whether to measure this workload."""
        return self.only is None or self.only == workload

    def note(self, cell: Cell) -> None:
        """Keep a figure, and show it."""
        self.cells.append(cell)
        if cell.skipped != "unsupported":
            self.say(shown(cell))

    def skip(self, workload: str, name: str, dataset: Dataset, why: str, **more: Any) -> None:
        """Keep the reason why there is no figure."""
        self.note(Cell(workload, name, dataset.records, dataset.value, skipped=why, **more))

    @contextlib.contextmanager
    def arenas(
        self, dataset: Dataset, packed: bool = False, among: Iterable[str] | None = None
    ) -> Iterator[tuple[dict[str, Arena], dict[str, str]]]:
        """Give (arenas that are loaded, why others are not), by rival; at the end all are gone."""
        with ExitStack() as stack:
            up: dict[str, Arena] = {}
            why_not: dict[str, str] = {}
            for name in self.rivals if among is None else among:
                try:
                    up[name] = self._opened(stack, name, dataset, packed)
                except Unsupported:
                    why_not[name] = "unsupported"
                except (TaskFailed, NotAvailable, _TooLong) as error:
                    why_not[name] = reason_of(error)
            yield up, why_not

    def _opened(self, stack: ExitStack, name: str, dataset: Dataset, packed: bool) -> Arena:
        key = name, dataset.value, dataset.indexed
        if key not in self.load_rates and dataset.records > TRIAL_RECORDS:
            with Arena(name, replace(dataset, records=TRIAL_RECORDS), packed) as trial:
                trial.load()
                self.load_rates[key] = trial.load_seconds / TRIAL_RECORDS
        estimate = self.load_rates.get(key, 0.0) * dataset.records
        if estimate > self.settings.load_seconds_max:
            raise _TooLong(f"loading would take {duration(estimate)}")
        with ExitStack() as own:
            arena = own.enter_context(Arena(name, dataset, packed))
            arena.load()
            self.load_rates[key] = arena.load_seconds / dataset.records
            stack.push(own.pop_all())
        return arena

    def interleaved(
        self,
        arenas: dict[str, Arena],
        measured: Callable[[Arena], list[Measured] | None],
        case: Callable[[str], Cell],
    ) -> None:
        """Measure all arenas, repetition by repetition, each in another order; keep the cells."""
        taken: dict[str, list[list[Measured]]] = {name: [] for name in arenas}
        failed: dict[str, str] = {}
        for repetition in range(self.settings.repetitions):
            for name in self.chance.sample(list(arenas), len(arenas)):
                if name in failed or (repetition and is_slow(taken[name][0])):
                    continue
                try:
                    result = measured(arenas[name])
                except TaskFailed as error:
                    failed[name] = reason_of(error)
                    continue
                if result is None:
                    failed[name] = "unsupported"
                else:
                    taken[name].append(result)
        for name in arenas:
            cell = case(name)
            if name in failed:
                cell.skipped = failed[name]
            else:
                summarize(cell, taken[name])
            self.note(cell)


class _TooLong(Exception):
    """Skipped by rule."""


def summarize(cell: Cell, repetitions: list[list[Measured]]) -> None:
    """Fill in a cell: medians of blocks and repetitions, percentiles of all single calls."""
    every = [one for repetition in repetitions for one in repetition]
    singles = Histogram()
    for one in every:
        singles.add(one.singles)
    operations = sum(one.operations for one in every)
    cell.ns = rounded(median(block for one in every for block in one.blocks_ns))
    cell.rate = rounded(median(sum(map(rate_of, repetition)) for repetition in repetitions))
    cell.cpu_ns = rounded(sum(one.cpu_ns for one in every) / operations)
    # Each process saw what the server used for all of them.
    server = sum(one.server_cpu_ns for one in every) / len(repetitions[0])
    cell.server_cpu_ns = rounded(server / operations)
    cell.p50, cell.p99 = singles.percentile(50), singles.percentile(99)
    cell.p999, cell.p9999 = singles.percentile(99.9), singles.percentile(99.99)


def rate_of(one: Measured) -> float:
    """Return operations per second of one process."""
    return one.operations * 1e9 / one.wall_ns


def is_slow(repetition: list[Measured]) -> bool:
    """Tell whether one repetition of this is enough."""
    return median(repetition[0].blocks_ns) > SLOW_NS


def reason_of(error: Exception) -> str:
    """Return what went wrong, in one line."""
    text = str(error).strip().splitlines()
    line = text[-1] if text else type(error).__name__
    return f"skipped: {line}" if isinstance(error, _TooLong) else f"failed: {line}"


def duration(seconds: float) -> str:
    """Return a time in words."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"


def rounded(value: float) -> float:
    """Return four significant digits: the others say nothing."""
    return float(f"{value:.4g}")


def shown(cell: Cell) -> str:
    """Return a cell as a line of the run's output."""
    label = f"  {cell.workload:<26}{cell.records:>9,} x {cell.value:<6} {cell.processes}p "
    label += f"{cell.rival:<20}"
    if cell.skipped:
        return label + cell.skipped[:120]
    parts = []
    if cell.ns is not None:
        parts.append(f"{cell.ns:>12,.0f} ns")
    if cell.rate is not None:
        parts.append(f"{cell.rate:>14,.0f} /s")
    if cell.p999 is not None:
        parts.append(f"p99.9 {cell.p999:,} ns")
    if cell.bytes is not None:
        parts.append(f"{cell.bytes:>12,.0f} bytes")
    parts += [f"{name} {value:,.6g}" for name, value in (cell.extra or {}).items()]
    return label + "  ".join(parts)


def order_of(name: str) -> int:
    """Return the place of a rival in tables and plots."""
    return list(rivals.WHERE).index(name)


def timed(started: float) -> str:
    """Return how long something has taken since ``started``, on the monotonic clock."""
    return f"{time.monotonic() - started:.0f} s"
