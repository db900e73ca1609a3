"""One part of the trial, in an interpreter of its own; prints its report as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from types import ModuleType

from shmstore import pure
from shmstore.engine import load_native
from torture.trial import Budget, Report

from .engine import Effort, Trial
from .life import StoreBudget, watch_pure
from .stack import Stack

EVERY = Effort(stores=4200, sample=400, takeovers=6, share=0.05)
SOME = Effort(stores=300, sample=60, takeovers=6, share=0.1)
FEW = Effort(stores=4, sample=4, takeovers=2, share=0.2)
FEWEST = Effort(stores=2, sample=2, takeovers=2, share=0.2)
LEAST_KILLS, SHORT_KILLS = 200, 30
BOTH_SHARE = 0.2
"""The part of the kills of a whole server that take the client along."""


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["native", "pure", "stack"])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--short", action="store_true", help="the least that says anything")
    options = parser.parse_args()
    budget = Budget(options.seconds, options.seed, options.part)
    if options.part == "stack":
        report = _stack(budget, options.short)
    else:
        report = _engine(budget, options.part, options.short)
    print(json.dumps(vars(report)))
    return 0


def _stack(budget: Budget, short: bool) -> Report:
    stack = Stack(StoreBudget(), budget.seed)
    with stack.running():
        least = SHORT_KILLS if short else LEAST_KILLS
        while True:
            for number, store in stack.chances():
                if least <= 0 and (stack.report.findings or budget.left() <= 0):
                    return stack.report
                kill = stack.kill_both if budget.rng.random() < BOTH_SHARE else stack.kill_writer
                kill(number, store)
                least -= 1


def _engine(budget: Budget, name: str, short: bool) -> Report:
    engines: list[ModuleType] = [pure]
    try:
        engines.append(load_native())
    except ImportError:
        assert name == "pure", "no native engine to be killed"
    if name == "native":
        engines.reverse()
    stores = StoreBudget()
    if name == "pure":
        watch_pure(stores)
    trial = Trial(engines, stores, budget.seed)
    if name == "pure":
        trial.play(FEWEST if short else SOME)
    else:
        trial.play(FEW if short else EVERY)
    while not trial.report.findings and budget.left() > 0:
        trial.play(FEW)
    return trial.report


if __name__ == "__main__":
    sys.exit(main())
