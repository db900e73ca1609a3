"""The whole trial."""

from __future__ import annotations

from ..recovery_time import measure
from ..trial import Budget, Report
from .ledger import KINDS
from .memory import WARM_LAPS, steady
from .rounds import play
from .starter import runtime_directory

ROUNDS_MIN = 3
ROUND_SECONDS = 6.0
WRITER_KILLS_MIN = 7
"""In each round."""
LAPS_MIN = 2 * WARM_LAPS
LAPS_MAX = 50
LAP_COST_SECONDS = 1.2
"""Of a lap in which the writer is killed, and of one in which a reader is."""
ROUNDS_SHARE, LAPS_SHARE = 0.6, 0.15
"""Of the time; the rest is for restarts."""
RESTARTS = (
    ("native", "table", 10_000, 20), ("native", "store", 10_000, 20), ("pure", "table", 10_000, 20),
)  # fmt: skip
LARGE_RESTARTS = (
    ("native", "table", 1_000_000, 20), ("native", "store", 1_000_000, 10),
    ("pure", "table", 1_000_000, 5),
)  # fmt: skip
"""Engine, shape, records and kills."""
LARGE_SECONDS = 300.0
"""With less time the large stores are left out: to fill them takes minutes."""


def run(budget: Budget) -> Report:
    """Kill and stop at random for most of the time; then look at memory and at restarts."""
    report = begun_report()
    with runtime_directory():
        rounds, left = 0, budget.seconds * (1 - ROUNDS_SHARE)
        while (rounds < ROUNDS_MIN or budget.left() > left) and not report.findings:
            rounds += 1
            what = f"seed {budget.seed}, round {rounds}"
            play(report, budget.rng, what, ROUND_SECONDS, WRITER_KILLS_MIN, rounds == 1)
            budget.say(f"round {rounds}: {report.counts['acknowledged mutations']:,.0f} mutations")
        report.add("rounds, each of one server", rounds)
        if not report.findings:
            laps = int(budget.seconds * LAPS_SHARE / LAP_COST_SECONDS)
            laps = max(LAPS_MIN, min(laps, LAPS_MAX))
            steady(report, budget.rng, f"seed {budget.seed}, memory", laps)
            measure_restarts(budget, report)
    return report


def begun_report() -> Report:
    """Return a report in which all is counted, and nothing has happened."""
    report = Report()
    for name in (
        "acknowledged mutations", "reads", "operations that ended with RequestTimeout",
        "writers killed", "spare writers killed", "clients killed", "readers killed",
        "supervisors killed", "processes stopped", *KINDS.values(),
    ):  # fmt: skip
        report.add(name, 0)
    return report


def measure_restarts(budget: Budget, report: Report) -> None:
    """Measure how long mutations pause when the writer is killed."""
    large = LARGE_RESTARTS if budget.seconds >= LARGE_SECONDS else ()
    for engine, shape, records, kills in (*RESTARTS, *large):
        times = measure(records, kills, shape, engine, budget.seed)
        where = f"{records:,} records in a {shape}, {engine} engine, {kills} kills"
        report.counts[f"ms until mutations flow, median, {where}"] = round(times.median, 1)
        report.counts[f"ms until mutations flow, p99, {where}"] = round(times.high, 1)
        budget.say(f"{where}: {times.median:.1f} ms")
