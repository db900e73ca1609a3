"""Hostile requests to the writer, and hostile answers to clients.

native                   plain requests from their bytes, in C: torture/native/fuzz_requests.c
worker; answers          the process that fuzzes: a writer's whole path; clients
bench; twins             the writer turn by turn, with an innocent client; two writers
talker                   a hostile client's end of a connection
streams; messages; arcs  what is sent, how it is composed, and which way the code took
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ..building import ROOT, compiler, package, python_in
from ..trial import Budget, Report
from . import native

RUNS_MIN = 10_000_000
"""Executions on the native requests in a run that is recorded."""
RECORDED_SECONDS = 300
"""A budget of this or more is for a run that is recorded."""
SHARES = {
    "native": 0.55, "writer": 0.18, "writer checked": 0.1, "twins": 0.1,
    "clients": 0.04, "clients checked": 0.03,
}  # fmt: skip
WORKERS: dict[str, tuple[str, ...]] = {
    "writer": (),
    "writer checked": (),
    "twins": ("--twins",),
    "clients": ("--clients",),
    "clients checked": ("--clients",),
}
"""What the process is told that fuzzes a writer, two of them, clients; "checked": with a native
engine that was compiled to find wrong addresses."""
SUFFIXES = {"twins": ", one with each engine"}
SUFFIX_CHECKED = ", its C checked for addresses"
GRACE_SECONDS = 300
ADDRESS = (
    "-std=c11", "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
    "-fsanitize-undefined-trap-on-error",
)  # fmt: skip


def run(budget: Budget) -> Report:
    """Fuzz all of it: the core, writers, and clients."""
    report = Report()
    seconds = budget.seconds
    runs = RUNS_MIN if seconds >= RECORDED_SECONDS else native.SLICE_RUNS
    native.fuzz(budget, report, runs, seconds * SHARES["native"])
    for name in WORKERS:
        fuzz_writer(budget, report, name, seconds * SHARES[name])
    return report


def fuzz_writer(
    budget: Budget, report: Report, name: str, seconds: float, **variables: str
) -> None:
    """Fuzz in a process of its own, one of WORKERS; ``variables`` of the environment are added."""
    environment, directory = {**os.environ, **variables}, ROOT
    checked = name.endswith("checked")
    if checked:
        directory = package("requests-checked", ADDRESS)
        environment = python_in(directory, **_sanitized(), **variables)
    seed = budget.rng.getrandbits(31)
    command = [sys.executable, "-m", "torture.requests.worker", "--seed", str(seed), *WORKERS[name]]
    with native.workplace(name.replace(" ", "-"), report) as folder:
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
    suffix = SUFFIX_CHECKED if checked else SUFFIXES.get(name, "")
    for what, count in result["counts"].items():
        report.add(what + suffix, count)
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
