"""The whole trial."""

from __future__ import annotations

from ..trial import Budget, Report
from .ledger import KINDS
from .rounds import play, runtime_directory

ROUNDS_MIN = 3
ROUND_SECONDS = 6.0
WRITER_KILLS_MIN = 7
"""In each round."""
SHARE = 0.6
"""Of the time, for the rounds."""


def run(budget: Budget) -> Report:
    """Kill and stop at random for most of the time; then look at memory and at restarts."""
    report = begun_report()
    end = budget.seconds * (1 - SHARE)
    rounds = 0
    with runtime_directory():
        while (rounds < ROUNDS_MIN or budget.left() > end) and not report.findings:
            rounds += 1
            what = f"seed {budget.seed}, round {rounds}"
            play(report, budget.rng, what, ROUND_SECONDS, WRITER_KILLS_MIN)
            budget.say(f"round {rounds}: {report.counts['acknowledged mutations']:,.0f} mutations")
    return report


def begun_report() -> Report:
    """Return a report in which all is counted, and nothing has happened."""
    report = Report()
    for name in (
        "acknowledged mutations", "reads", "operations that ended with RequestTimeout",
        "writers killed", "clients killed", "readers killed", "supervisors killed",
        "processes stopped", *KINDS.values(),
    ):  # fmt: skip
        report.add(name, 0)
    return report
