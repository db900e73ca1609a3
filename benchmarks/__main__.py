"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import machine, results, rivals
from .harness import FULL, QUICK, Run, Settings, timed
from .header import header_of
from .workloads import GROUPS

BUSY_LOAD = 0.7
EXAMPLES = """
Without options: the full recorded run, about 20 minutes, one file of results per group.

  --only reading          one group: reading, sharing, writing, listing, starting, memory, growing
  --only "put/redis"      one workload, or one group, of one rival; nothing is recorded
  --only /shmstore        everything of one rival

  --pytest                whole runs of pytest that share fixtures between workers; with
                          --only "records/file lock, JSON" just those
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit status."""
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything is cleaned up
    if options.plot:
        from . import plots, tables

        return plots.draw_all(options.output or results.FOLDER) or tables.fill_in(
            options.output or results.FOLDER
        )
    warn_if_busy()
    if options.pytest:
        from .sharing_fixtures import series

        kept = options.output or (None if options.quick or options.only else results.FOLDER)
        return series.run(kept, options.quick, options.only)
    if options.bars:
        from . import bars

        kept = options.output or (None if options.quick else results.FOLDER)
        return bars.run(kept, quick=options.quick)
    return recorded(options)


def warn_if_busy() -> None:
    """Say so if other work would be measured as well."""
    load = machine.describe_machine()["load_before"]
    if load > BUSY_LOAD:
        print(f"this machine is busy (load {load}): the figures will mislead", file=sys.stderr)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="What shmstore costs next to its rivals.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes, small tables")
    parser.add_argument("--only", metavar="WORKLOAD/RIVAL", help="measure just this")
    parser.add_argument("--bars", action="store_true", help="the bars of the design, held or not")
    parser.add_argument("--pytest", action="store_true", help="fixtures shared between workers")
    parser.add_argument("--plot", action="store_true", help="draw from the results that are there")
    parser.add_argument("--grow", type=int, metavar="N", help="let tables grow to N records")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where results are written")
    return parser.parse_args(arguments)


def recorded(options: argparse.Namespace) -> int:
    """Measure groups of workloads; write the results of whole groups."""
    workload, _, rival = (options.only or "").partition("/")
    groups = [workload] if workload in GROUPS else list(GROUPS)
    only = workload if workload and workload not in GROUPS else None
    names = [name for name in rivals.WHERE if rival in ("", name)]
    if not names:
        print(f"no rival {rival!r}; there are: {', '.join(rivals.WHERE)}", file=sys.stderr)
        return 2
    found, said = rivals.survey(names)
    for name, version in said.items():
        print(f"{name:<20} {version}")
    folder = options.output
    if folder is None and not (options.quick or only or rival):
        folder = results.FOLDER
    settings = replace(QUICK if options.quick else FULL)
    if options.grow:
        settings = replace(settings, grow_records=options.grow, grow_seconds_max=float("inf"))
    measured = 0
    for group in groups:
        measured += one_group(group, Run(settings, found, only), said, folder, options.quick)
    if not measured:
        print(f"no workload {workload!r}", file=sys.stderr)
    return 0 if measured else 2


def one_group(group: str, run: Run, said: dict[str, str], folder: Path | None, quick: bool) -> int:
    """Measure a group; write its file if there is a folder; return the number of cells."""
    started = time.monotonic()
    print(f"== {group}", flush=True)
    header = header_of(group, said, quick)
    GROUPS[group](run)
    header["made"]["seconds"] = round(time.monotonic() - started)
    if folder is not None and run.cells:
        path = folder / f"{group}.json"
        results.save(path, header, run.cells)
        print(f"   {path}, {timed(started)}")
    return len(run.cells)


__all__ = ["Settings", "main"]

if __name__ == "__main__":
    sys.exit(main())
