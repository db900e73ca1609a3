"""The command line: ``scripts/torture --help``."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import random
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .trial import Budget, Report

TRIALS = {
    "stores": (2, "the writer is killed before every store of every operation"),
    "steps": (3, "the writer is killed after every instruction of the optimised build"),
    "load": (3, "writers, readers and supervisors are killed at random under load"),
    "histories": (3, "what many processes saw can be put in one order"),
    "segments": (3, "damaged segments, read, taken over and checked"),
    "requests": (3, "hostile requests to the writer"),
    "failures": (2, "every system call and every allocation fails in turn"),
    "remains": (1, "any set of processes is killed, and nothing is left behind"),
}
"""What there is: its share of the time, and what it does."""
EXAMPLES = """
Every trial prints its seed; --only NAME --seed SEED does it again. A trial may take longer than its
share to do the least that says anything. Exit status 1 if any promise was broken.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit status."""
    options = _parsed(arguments)
    names = options.only or list(TRIALS)
    shares = sum(TRIALS[name][0] for name in names)
    results: dict[str, Any] = {}
    for name in names:
        seconds = 60 * options.minutes * TRIALS[name][0] / shares
        print(f"== {name}: {TRIALS[name][1]}; seed {options.seed}", flush=True)
        started = time.monotonic()
        report = _tried(name, Budget(seconds, options.seed, name))
        report.counts["seconds"] = round(time.monotonic() - started, 1)
        _show(report)
        results[name] = vars(report)
    if options.output is not None:
        kept = {
            "command": f"scripts/torture {' '.join(sys.argv[1:])}",
            "seed": options.seed,
            "python": platform.python_version(),
            "machine": platform.platform(),
            "trials": results,
        }
        options.output.write_text(json.dumps(kept, indent=1) + "\n")
    broken = [name for name, result in results.items() if result["findings"]]
    print(f"broken: {', '.join(broken)}" if broken else "all promises held")
    return 1 if broken else 0


def _tried(name: str, budget: Budget) -> Report:
    try:
        trial = importlib.import_module(f"torture.{name}")
        report = trial.run(budget)
        assert isinstance(report, Report)
        return report
    except Exception:
        return Report({}, [f"the trial itself failed: {traceback.format_exc()}"])


def _show(report: Report) -> None:
    for what, count in report.counts.items():
        print(f"   {count:>16,} {what}")
    for finding in report.findings:
        print(f"   BROKEN: {finding}")
    sys.stdout.flush()


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/torture",
        description="Tries to break what shmstore promises.",
        epilog="trials:\n"
        + "".join(f"  {name:10} {text}\n" for name, (_, text) in TRIALS.items())
        + EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10, help="in all (default 10)")
    parser.add_argument(
        "--only", action="append", choices=TRIALS, metavar="TRIAL", help="may be given repeatedly"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the results as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
