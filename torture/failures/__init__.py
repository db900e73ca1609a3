"""Everything that can fail, fails: each system call and each allocation in turn.

Processes of subject.py play scenes in which the first, second, third call of one function fails:
of the client, the supervisor, the writer. Then machines.py makes memory, descriptors and the like
scarce. All errors must be named, nothing lost, nothing left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..building import ROOT
from ..trial import Budget, Report
from . import machines
from .orders import FAILURES, environment
from .subject import TARGETS

CALLS_MAX = 50
"""Calls of one function that fail in one play, where a play takes milliseconds."""
CALLS_COSTLY = 3
"""The same where each play starts a process, at the least; more if there is time."""
ALLOCATIONS = 40
COSTLY = frozenset(
    (target, name)
    for target, names in TARGETS.items()
    for name in names
    if target not in ("caller", "writer") or name in ("start", "lazy start", "restart")
)
RESTARTS_MAX = 5
GAVE_UP = ("Fatal Python error",)
"""What the interpreter says when it cannot go on without memory."""


@dataclass(frozen=True)
class Part:
    """One play of one target, and of which functions up to how many calls fail."""

    target: str
    play: str
    most: int
    every_allocation: bool = False
    """Whether each object that Python allocates may be denied, and nothing else fails."""
    only: tuple[str, ...] = ()
    """These functions and no others, if there are any."""


@dataclass
class Found:
    """What came of a part."""

    trials: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    gave_up: int = 0
    findings: list[str] = field(default_factory=list)


def run(budget: Budget) -> Report:
    """Let every call fail in every play, then try small machines."""
    report = Report()
    parts = list(_parts(budget))
    budget.rng.shuffle(parts)
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
        tried = list(pool.map(lambda part: run_part(part, budget.seed), parts))
    _count(report, tried)
    for name in machines.MACHINES:
        _count_machine(report, name)
    return report


def _parts(budget: Budget) -> Iterator[Part]:
    more = max(0.0, budget.seconds) / 120
    for target, names in TARGETS.items():
        for name in names:
            costly = (target, name) in COSTLY
            yield Part(target, name, int(CALLS_COSTLY * (1 + more)) if costly else CALLS_MAX)
            if target in ("caller", "writer") and not costly and name != "fork":
                yield Part(target, name, int(ALLOCATIONS * (1 + more)), every_allocation=True)


def run_part(part: Part, seed: int) -> Found:
    """Try one part in a process of its own; begin another one behind a trial that it dies of."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="shm-") as folder:
        (Path(folder) / "run").mkdir(mode=0o700)
        for _ in range(RESTARTS_MAX):
            status, log = _run_process(part, seed, found, Path(folder))
            if status == 0:
                break
            said = [line for line in log if line.startswith("trial ")]
            what = said[-1] if said else "before the first trial"
            if any(text in line for line in log for text in GAVE_UP):
                found.gave_up += 1
            else:
                tail = "".join(f"\n      {line}" for line in log[-25:])
                found.findings.append(f"{part}: ended with status {status}: {what}{tail}")
            found.trials += 1
    again = f" (again: seed {seed}, {part})"
    found.findings = [finding + again for finding in found.findings]
    return found


def _run_process(part: Part, seed: int, found: Found, folder: Path) -> tuple[int, list[str]]:
    """Go on behind the trials that were made; return the exit status and what was logged."""
    only = ",".join(("allocate",) if part.every_allocation else part.only or FAILURES)
    arguments = [part.target, part.play, str(seed), str(part.most), only, str(found.trials)]
    variables = environment(folder / "order", every_allocation=part.every_allocation)
    variables["SHMSTORE_RUNTIME_DIR"] = str(folder / "run")
    with open(folder / "log", "w+") as log:
        subject = subprocess.Popen(
            [sys.executable, "-m", "torture.failures.subject", *arguments],
            cwd=ROOT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        with subject:
            assert subject.stdout is not None
            for line in subject.stdout:
                _note(found, json.loads(line))
        log.seek(0)
        return subject.returncode, log.read().splitlines()


def _note(found: Found, said: dict[str, Any]) -> None:
    if "trial" not in said:
        return
    found.trials += 1
    found.failed[said["function"]] += said["made"]
    if said["error"]:
        found.errors[said["error"]] += 1
    found.findings += [f"{said['trial']}: {text}" for text in said["broken"]]


def _count(report: Report, tried: Iterable[Found]) -> None:
    failed: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for found in tried:
        report.add("scenes played while something failed", found.trials)
        report.add("scenes in which Python itself gave up", found.gave_up)
        report.findings += found.findings
        failed += found.failed
        errors += found.errors
    allocations = failed.pop("allocate", 0) + failed.pop("core", 0)
    report.add("system calls that were made to fail", failed.total())
    report.add("functions that were made to fail", len(failed))
    report.add("allocations that were denied", allocations)
    for name, count in sorted(errors.items()):
        report.add(f"scenes that ended with {name}", count)


def _count_machine(report: Report, name: str) -> None:
    try:
        report.findings += [f"{name}: {finding}" for finding in machines.machine(name)]
        report.add("small machines")
    except machines.NotHere as why:
        report.add(f"small machines that cannot be had here: {name}, {why}")
