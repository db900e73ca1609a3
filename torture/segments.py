"""Damaged segments: read, taken over and checked by the C of the engine, thousands in a second.

The targets are in ``native/fuzz_segments.c``: the core without Python, with smaller figures, under
the sanitizers. With clang libFuzzer drives them, by what they reach; without it
``native/driver.c``, by chance alone. ``python -m torture.segments --help`` does one thing again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .building import BUILD, DEBUG, OWN, compile_c, has
from .trial import Budget, Report

TARGETS = {
    "reader": (1, "executions of the reader on damaged segments"),
    "check": (1, "executions of the check on damaged segments"),
    "takeover": (2, "executions of the takeover on damaged segments"),
}
"""What there is: its share of the time, and what is counted."""
RUNS_MIN = 20_000
RUNS_A_TIME = 100_000
INPUT_BYTES_MAX = 196
TIMEOUT_SECONDS = 20
"""More than any input takes on the busiest machine."""
_SANITIZED = ("-Wno-unused-function", "-fsanitize=address,undefined")
# Undefined behaviour is a trap, which costs less than words. What is left out of the coverage
# costs as much as all the rest together.
_FUZZED = (
    "fuzzed_segments",
    "clang",
    *_SANITIZED,
    *("-O2", "-fsanitize-trap=undefined"),
    "-fsanitize=fuzzer",
    "-fno-sanitize-coverage=trace-cmp,indirect-calls,stack-depth",
)
_DRIVEN = (
    "driven_segments",
    "",
    *_SANITIZED,
    "-fsanitize-undefined-trap-on-error",
    str(OWN / "driver.c"),
)
# Interceptors and stacks of allocations would take most of the time; neither finds anything here.
_ASAN = (
    "abort_on_error=1:check_printf=0:intercept_strstr=0:intercept_strlen=0:malloc_context_size=0:"
    "quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
)


def run(
    budget: Budget, jobs: int = 1, runs: int | None = None, targets: Sequence[str] = tuple(TARGETS)
) -> Report:
    """Let each target run for its share of the time, or so many times; ``jobs`` at once."""
    shares = sum(TARGETS[target][0] for target in targets)
    report = Report()
    each = _fuzzed if has("clang") else _driven
    _compiled(*(_FUZZED if has("clang") else _DRIVEN))

    def one(target: str) -> tuple[int, str]:
        return each(budget, target, budget.seconds * jobs * TARGETS[target][0] / shares, runs)

    with ThreadPoolExecutor(jobs) as pool:
        for target, (done, finding) in zip(targets, pool.map(one, targets), strict=True):
            budget.say(f"{done:,} {TARGETS[target][1]}")
            report.add(TARGETS[target][1], done)
            if finding:
                report.findings.append(finding)
    return report


def drive(target: str, *arguments: str) -> tuple[int, str]:
    """Let the driver run a target; return how often it did, and what it found."""
    ran = _ran(target, [_compiled(*_DRIVEN), *arguments])
    done = re.search(r"^(\d+) runs$", ran.stdout, re.MULTILINE)
    return (int(done[1]), "") if done and ran.returncode == 0 else (0, ran.stderr)


def _driven(budget: Budget, target: str, seconds: float, runs: int | None) -> tuple[int, str]:
    end, count, seed = time.monotonic() + seconds, 0, budget.seed
    while count < (runs or RUNS_MIN) or (runs is None and time.monotonic() < end):
        step = min(RUNS_A_TIME, runs - count) if runs else RUNS_MIN
        done, trouble = drive(target, str(seed), str(step))
        if trouble:
            found = re.search(r"^input (\w*)$", trouble, re.MULTILINE)
            return count, _finding(target, trouble, found[1] if found else f"(seed {seed})")
        count, seed = count + done, seed + 1
    return count, ""


def _fuzzed(budget: Budget, target: str, seconds: float, runs: int | None) -> tuple[int, str]:
    corpus = BUILD / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    limit = f"-runs={runs}" if runs else f"-max_total_time={max(1, int(seconds))}"
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        ran = _ran(
            target,
            [
                _compiled(*_FUZZED),
                *(f"-seed={budget.seed % (1 << 32) or 1}", limit, f"-timeout={TIMEOUT_SECONDS}"),
                *(f"-max_len={INPUT_BYTES_MAX}", "-entropic=0", "-print_final_stats=1"),
                *(f"-artifact_prefix={folder}/", str(corpus)),
            ],
        )
        artifacts = [path.read_bytes().hex() for path in Path(folder).iterdir()]
    done = re.search(r"number_of_executed_units: (\d+)", ran.stderr)
    count = int(done[1]) if done else 0
    if ran.returncode or not done:
        return count, _finding(target, ran.stderr, " ".join(artifacts) or "(none was kept)")
    return count, ""


def _finding(target: str, words: str, hexadecimal: str) -> str:
    told = [line for line in words.splitlines() if "BROKEN" in line or "ERROR" in line]
    again = f"python -m torture.segments {target} {hexadecimal}"
    return f"{target}: {'; '.join(told) or words[-500:]}; once more: {again}"


def _compiled(name: str, compiler: str, *flags: str) -> Path:
    return compile_c(BUILD / name, OWN / "fuzz_segments.c", (*DEBUG, *flags), compiler)


def _ran(target: str, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ASAN_OPTIONS": _ASAN, "SHMSTORE_FUZZ_TARGET": target}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one target or all so many times, or one with inputs; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m torture.segments")
    parser.add_argument("target", nargs="?", choices=TARGETS)
    parser.add_argument("input", nargs="*", help="in hexadecimal digits, as a finding has it")
    parser.add_argument("--runs", type=int, default=RUNS_MIN, help="of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="targets at once")
    options = parser.parse_args(arguments)
    if options.input:
        done, trouble = drive(options.target, "input", *options.input)
        print(trouble or f"{done} runs")
        return 1 if trouble else 0
    targets = [options.target] if options.target else list(TARGETS)
    report = run(Budget(0, options.seed, "segments"), options.jobs, options.runs, targets)
    for what, count in report.counts.items():
        print(f"{count:>12,} {what}")
    print(*report.findings, sep="\n")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
