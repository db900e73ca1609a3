"""The writer is killed with SIGKILL before every store to the segment, for every operation.

part                    one of three parts, in an interpreter of its own
stack; requests         a whole server; what a client asks of it
engine; ground          one writer after the other; the segment they die over
scenarios; operations   what they do to it
watch                   what a reader may see of that
life                    how many stores a writer has left, and images of what it leaves behind
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from torture.building import ROOT, SHIPPED, package, python_in
from torture.trial import Budget, Report

PARTS = {
    "native": "native engine",
    "pure": "pure engine",
    "stack": "whole server",
}
KILLABLE = "-DSHMSTORE_STORE_BUDGET"


def run(budget: Budget) -> Report:
    """Run all parts beside each other; the native engine meets every store at least once."""
    running = {part: start(part, budget.seconds, budget.seed) for part in PARTS}
    report = Report()
    for part, process in running.items():
        done = finish(process)
        report.counts.update({f"{PARTS[part]}: {what}": n for what, n in done.counts.items()})
        report.findings += done.findings
    return report


def start(part: str, seconds: float, seed: int, *options: str) -> subprocess.Popen[str]:
    """Start a part where its engine is; see part.py."""
    if part == "pure":
        folder, environment = ROOT, {**os.environ, "SHMSTORE_ENGINE": "pure"}
    else:
        folder = package("killable", (*SHIPPED, KILLABLE))
        environment = python_in(folder)
    command = [sys.executable, "-m", "torture.stores.part", part]
    command += [f"--seconds={seconds}", f"--seed={seed}", *options]
    return subprocess.Popen(
        command, cwd=Path(folder), env=environment, stdout=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> Report:
    """Wait for a part and return its report; what went wrong in it is a finding."""
    said, _ = process.communicate()
    if process.returncode != 0:
        return Report({}, [f"{process.args!r} ended with status {process.returncode}"])
    return Report(**json.loads(said))
