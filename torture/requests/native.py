"""The core of the native engine under hostile requests: torture/native/fuzz_requests.c at work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..building import BUILD, DEBUG, OWN, compile_c, has
from ..trial import Budget, Report

COUNTED = "executions on the native requests"
INPUT_BYTES_MAX = 384
SLICE_RUNS = 500_000
"""Executions between two looks at the clock."""
SECONDS_MAX = 900
"""More than this for one slice is a hang; the engine has its own limit for one input."""
SANITIZERS = "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
# Comparisons are not followed: what mutates the inputs knows their form, and it costs half.
GUIDED = "-fsanitize=fuzzer", "-fno-sanitize-coverage=trace-cmp,trace-div,trace-gep"
OPTIONS = "malloc_context_size=5:quarantine_size_mb=4:abort_on_error=1"
_DONE = re.compile(r"^#?(\d+)\s+(?:DONE\s+cov: (\d+)|runs$)", re.MULTILINE)


def target() -> tuple[Path, bool]:
    """Return the program, and whether coverage guides it: only with clang and its libraries."""
    source, flags = OWN / "fuzz_requests.c", [*DEBUG, "-O2", *SANITIZERS]
    if has("clang"):
        try:
            return compile_c(BUILD / "fuzz_requests", source, [*flags, *GUIDED], "clang"), True
        except RuntimeError as error:
            if "libclang_rt" not in str(error):
                raise
    driven = [*flags, str(OWN / "driver.c")]
    return compile_c(BUILD / "fuzz_requests_blind", source, driven), False


@contextmanager
def workplace(name: str, report: Report) -> Iterator[Path]:
    """Make a folder for this process; it stays if something was found meanwhile."""
    folder = BUILD / "requests" / f"{name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    before = len(report.findings)
    yield folder
    if len(report.findings) == before:
        shutil.rmtree(folder)


def fuzz(budget: Budget, report: Report, runs: int, seconds: float) -> None:
    """Fuzz for so many executions, and longer until ``seconds`` have gone."""
    program, guided = target()
    end = budget.left() - seconds
    report.add(COUNTED, 0)
    with workplace("native", report) as folder:
        (folder / "corpus").mkdir()
        while report.counts[COUNTED] < runs or budget.left() > end:
            seed, share = budget.rng.getrandbits(31), min(SLICE_RUNS, runs)
            if not _slice(program, guided, report, share, seed, folder):
                return
            budget.say(f"{report.counts[COUNTED]:,.0f} {COUNTED}")


def _slice(program: Path, guided: bool, report: Report, runs: int, seed: int, folder: Path) -> bool:
    """Run the target; tell whether nothing broke."""
    played = folder / "round"
    command = [str(program), str(seed), str(runs)]
    if guided:
        command = [str(program), f"-runs={runs}", f"-seed={seed or 1}"]
        command += [f"-max_len={INPUT_BYTES_MAX}", "-detect_leaks=0", "-entropic=0", "-timeout=20"]
        command += [f"-artifact_prefix={folder}/", str(folder / "corpus")]
    environment = {**os.environ, "SHMSTORE_FUZZ_ROUND": str(played), "ASAN_OPTIONS": OPTIONS}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace",
            timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
        said, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        said, status = "it hung", 1
    counted = _DONE.search(said)
    if status == 0 and counted is not None:
        report.add(COUNTED, int(counted[1]))
        if guided:
            report.counts["branches of the native requests that were taken"] = int(counted[2])
        return True
    kept = folder / f"round-{seed}"
    kept.write_bytes(played.read_bytes())
    lines = [line for line in said.splitlines() if "BROKEN" in line or "ERROR" in line]
    report.findings.append(
        f"native requests, seed {seed}: {'; '.join(lines[:2]) or said[-500:]}; again with "
        f"SHMSTORE_FUZZ_REPLAY={kept} {program}"
    )
    return False
