"""All experiments one after the other, and the table of bars."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import machine
from ..harness import rounded
from ..processes import TaskFailed
from ..records import SEED, Dataset
from ..rivals.base import NotAvailable
from . import engines, growth, lookups, together, writes
from .bar import Verdict, judge
from .listed import BARS

FILE = "bars.json"
Experiment = Callable[[], dict[str, float]]


def experiments(quick: bool) -> dict[str, Experiment]:
    """Return what is measured, by name."""
    table = Dataset(20_000 if quick else 100_000)
    rounds, seconds = (40, 0.1) if quick else (250, 0.3)
    grown, grow_seconds = (20_000, 10.0) if quick else (1_000_000, 90.0)
    return {
        "lookups": lambda: lookups.lookups(rounds, table),
        "Manager": lambda: lookups.against_manager(rounds),
        "lists": lambda: lookups.lists(rounds, table),
        "acknowledged puts": lambda: writes.acknowledged(4 * rounds),
        "batched puts": lambda: writes.batched(rounds, table),
        "reads beside a writer": lambda: together.beside_writer(rounds // 10, seconds, table),
        "two readers": lambda: together.scaling(rounds // 12, seconds, table),
        "engines": lambda: engines.engines(max(3, rounds // 30), seconds),
        "growth and memory": lambda: growth.growth(grown, grow_seconds),
    }


def run(folder: Path | None, quick: bool) -> int:
    """Measure and print all; 0 if every bar holds, else 1. Kept in ``folder``, if there is one."""
    figures: dict[str, float] = {}
    started = time.time()
    for name, experiment in experiments(quick).items():
        begun = time.monotonic()
        print(f"== {name}", flush=True)
        try:
            figures |= {key: rounded(value) for key, value in experiment().items()}
        except (TaskFailed, NotAvailable) as error:
            print(f"   not measured: {str(error).strip().splitlines()[-1]}")
        print(f"   {time.monotonic() - begun:.0f} s", flush=True)
    verdicts = [judge(bar, figures) for bar in BARS]
    print_all(figures, verdicts)
    if folder is not None:
        keep(folder / FILE, figures, verdicts, started, quick)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def print_all(figures: dict[str, float], verdicts: list[Verdict]) -> None:
    """Print the figures, then the bars."""
    print("\nfigures (times in ns per operation, unless the name says otherwise)")
    for name, value in figures.items():
        print(f"  {name:<44}{value:>16,.6g}")
    print()
    for verdict in verdicts:
        print(verdict)
    held = sum(verdict.holds is True for verdict in verdicts)
    print(f"\n{held} of {len(verdicts)} bars hold; {machine.describe_versions()['engine']} engine")


def keep(
    path: Path, figures: dict[str, float], verdicts: list[Verdict], started: float, quick: bool
) -> None:
    """Write the figures and what became of the bars."""
    document: dict[str, Any] = {
        "format": 1,
        "made": {
            "command": machine.command_line(),
            "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started)),
            "seconds": round(time.time() - started),
            "quick": quick,
            "seed": SEED,
        },
        "machine": machine.describe_machine(),
        "versions": machine.describe_versions(),
        "figures": figures,
        "bars": [
            {
                "what": verdict.bar.what,
                "ratio": None if verdict.ratio is None else rounded(verdict.ratio),
                "unit": verdict.bar.unit,
                "bar": f"{verdict.bar.comparison} {verdict.bar.limit:g}",
                "holds": verdict.holds,
            }
            for verdict in verdicts
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
