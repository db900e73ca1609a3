"""All runs: for each workload and number of workers every way in turn, in another order each time.

So whatever slows the machine for a while slows all of them, and medians tell them apart.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import results
from ..header import header_of
from ..records import SEED
from ..results import Cell
from ..tables import shown_bytes, shown_time
from .figures import Sample, fill_in
from .running import RunFailed, run_once
from .suites import Sizes, Workload, workloads
from .ways import GROUP, WAYS, Way, survey

SLOW_NS = 20e9
"""A run that takes longer than this is done once."""
PACKAGES = ("pytest", "pytest-xdist", "execnet", "numpy")


@dataclass(frozen=True)
class Settings:
    """How long and how large a series is."""

    sizes: Sizes = field(default_factory=Sizes)
    workers: tuple[int, ...] = (1, 2, 4, 8)
    repetitions: int = 3


FULL = Settings()
QUICK = Settings(Sizes(0.2, 10_000, 2_000_000, 50), (1, 2), 1)
Say = Callable[[str], None]


def run(folder: Path | None, quick: bool, only: str | None = None) -> int:
    """Measure what ``only`` says, as ``WORKLOAD/WAY``; keep all in ``folder``, if there is one."""
    wanted, _, name = (only or "").partition("/")
    settings = QUICK if quick else FULL
    some = [each for each in workloads(settings.sizes) if wanted in ("", each.name)]
    names = [each for each in WAYS if name in ("", each)]
    if not some or not names:
        known = [each.name for each in workloads(settings.sizes)]
        print(f"nothing is called {only!r}; there are: {', '.join(known)} / {', '.join(WAYS)}")
        return 2
    found, said = survey(names)
    for each, text in said.items():
        print(f"{each:<22}{text}")
    started = time.monotonic()
    header = header_of(GROUP, said, quick)
    header["versions"] |= packages()
    cells = measure(settings, some, found)
    header["made"]["seconds"] = round(time.monotonic() - started)
    if folder is not None:
        path = folder / f"{GROUP}.json"
        results.save(path, header, cells)
        print(f"{path}, {header['made']['seconds']} s")
    return 0


def packages() -> dict[str, str]:
    """Return the versions of what all ways have in common."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def measure(
    settings: Settings, some: list[Workload], ways: Mapping[str, Way], say: Say = print
) -> list[Cell]:
    """Return a cell for each workload, number of workers and way."""
    chance = random.Random(SEED)
    cells = []
    for workload in some:
        say(f"== {workload.name}: {workload.records:,} x {workload.value}")
        for workers in settings.workers:
            taken: dict[str, list[Sample]] = {name: [] for name in ways}
            failed: dict[str, str] = {}
            for _ in range(settings.repetitions):
                for name in chance.sample(list(ways), len(ways)):
                    if name in failed or any(sample.wall_ns > SLOW_NS for sample in taken[name]):
                        continue
                    try:
                        taken[name].append(run_once(workload, ways[name], workers))
                    except RunFailed as error:
                        failed[name] = f"failed: {error}"
            for name in ways:
                cell = Cell(workload.name, name, workload.records, workload.value, workers)
                cell.skipped = failed.get(name)
                if cell.skipped is None:
                    fill_in(cell, taken[name])
                say(shown(cell))
                cells.append(cell)
    return cells


def shown(cell: Cell) -> str:
    """Return a cell as a line of the output."""
    label = f"  {cell.processes}w {cell.rival:<22}"
    if cell.ns is None or cell.cpu_ns is None or cell.bytes is None:
        return label + (cell.skipped or "")[:120]
    extra: dict[str, Any] = cell.extra or {}
    parts = [
        f"{shown_time(cell.ns):>8}",
        f"cpu {shown_time(cell.cpu_ns):>8}",
        f"private {shown_bytes(cell.bytes):>9}",
        f"computed {extra['computed']:g} x",
    ]
    if cell.p50 is not None and cell.highest is not None:
        parts.append(f"in hand after {shown_time(cell.p50)}, at most {shown_time(cell.highest)}")
    if "reader bytes" in extra:
        used, own = extra["reader cpu ns"], extra["reader bytes"]
        parts.append(f"a reader: cpu {shown_time(used)}, {shown_bytes(own)}")
    return label + "  ".join(parts)
