"""Hostile requests to the writer, and hostile answers to clients.

native                   plain requests from their bytes, in C: torture/native/fuzz_requests.c
worker; answers          the process that fuzzes: a writer's whole path; clients
bench                    the writer turn by turn, its hostile clients and an innocent one
streams; messages; arcs  what is sent, how it is composed, and which way the code took
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..building import ROOT, compiler, package, python_in
from ..trial import Budget, Report
from . import native

RUNS_MIN = 10_000_000
"""Executions on the native requests in a run that is recorded."""
RECORDED_SECONDS = 300
"""A budget of this or more is for a run that is recorded."""
SHARES = {"native": 0.6, "writer": 0.2, "checked": 0.14, "clients": 0.06}
GRACE_SECONDS = 300
ADDRESS = (
    "-std=c11", "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
    "-fsanitize-undefined-trap-on-error",
)  # fmt: skip


def run(budget: Budget) -> Report:
    """Fuzz all of it: the core, the writer, the writer with its C checked, and clients."""
    report = Report()
    seconds = budget.seconds
    runs = RUNS_MIN if seconds >= RECORDED_SECONDS else native.SLICE_RUNS
    native.fuzz(budget, report, runs, seconds * SHARES["native"])
    fuzz_writer(budget, report, seconds * SHARES["writer"])
    fuzz_writer(budget, report, seconds * SHARES["checked"], checked=True)
    fuzz_writer(budget, report, seconds * SHARES["clients"], ["--clients"])
    return report


def fuzz_writer(
    budget: Budget,
    report: Report,
    seconds: float,
    more: Sequence[str] = (),
    checked: bool = False,
    **variables: str,
) -> None:
    """Fuzz in a process of its own: a writer, or clients; ``checked``: by AddressSanitizer.

    ``variables`` of the environment choose the engine, for example.
    """
    name = "checked" if checked else "clients" if more else "writer"
    environment, directory = {**os.environ, **variables}, ROOT
    if checked:
        directory = package("requests-checked", ADDRESS)
        environment = python_in(directory, **_sanitized(), **variables)
    seed = budget.rng.getrandbits(31)
    command = [sys.executable, "-m", "torture.requests.worker", "--seed", str(seed), *more]
    with native.workplace(name, report) as folder:
        command += ["--folder", str(folder), "--seconds", str(seconds)]
        try:
            done = subprocess.run(
                command, cwd=directory, env=environment, capture_output=True, text=True,
                errors="replace", timeout=seconds + GRACE_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            report.findings.append(f"{name}, seed {seed}: it hangs after the events in {folder}")
            return
        if done.returncode:
            report.findings.append(
                f"{name}, seed {seed}: it died with {done.returncode} after the events in "
                f"{folder}: {done.stderr[-1500:]}"
            )
            return
        result = json.loads(done.stdout.splitlines()[-1])
        report.findings += [f"{name}, seed {seed}: {finding}" for finding in result["findings"]]
    for what, count in result["counts"].items():
        report.add(what + (", its C checked for addresses" if checked else ""), count)
    budget.say(f"{name}: {result['counts']}")


def _sanitized() -> dict[str, str]:
    found = subprocess.run(
        [compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    return {
        "LD_PRELOAD": str(Path(found.stdout.strip())),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16",
    }
