"""The process whose calls fail, and those of its writers.

``python -m torture.failures.subject`` in an environment of orders.py, with the target, the play,
the seed, the most calls of each function, the functions, and how many attempts were made before.
It says on standard output, a JSON object a line, what it did and what broke; on standard error what
it is about to do.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

from .attempt import BURSTS, OF_MEMORY, Attempt, perform
from .orders import CUT, FAILURES, FOR_EVER, Order
from .scenes import PLAYS, emptied
from .stage import Stage

TARGETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "caller": tuple(PLAYS),
        "supervisor": ("restart",),
        "writer": (
            *("connect", "call", "large", "pipeline", "transaction", "store", "growth"),
            *("view", "tie"),
        ),
        "next writer": ("restart", "start", "lazy start"),
        "spare": ("restart",),
    }
)
"""Whose calls fail, and in which plays: those of the process that called start, and is the client;
of its thread that keeps a writer; of the writer; of the next one, from its exec on; of a spare."""
HANG_SECONDS = 60.0


def census(stage: Stage, target: str, name: str) -> dict[str, int]:
    """Return how often each function is called in a play in which nothing fails."""
    trial = Attempt(target, name, "*", 0, 0, 0)
    play = PLAYS[name](stage.server, 0)
    stage.order.count(thread=trial.thread(stage))
    trial.begin(stage)
    perform(play, [0])
    stage.order.end()
    play.clean_up()
    if play.client is not None:
        play.client.close()
    stage.settled()
    emptied(stage.witness)
    return stage.order.counted()


def attempts(
    target: str, name: str, counts: Mapping[str, int], most: int, rng: random.Random
) -> list[Attempt]:
    """Return what is to be tried of a play: up to ``most`` calls of each function."""
    found = []
    for function, calls in sorted(counts.items()):
        outcomes = FAILURES.get(function, ())
        if name == "fork" and function in OF_MEMORY:
            continue
        firsts = list(range(calls + 1))
        if calls >= most:
            few = range(most // 2)
            firsts = sorted({*few, *rng.sample(range(calls), most - len(few))})
        for outcome in outcomes:
            bursts = BURSTS if function == "allocate" else (1,)
            found += [
                Attempt(target, name, function, outcome, first, count)
                for first, count in product(firsts, bursts)
            ]
            if outcome == CUT and name not in ("large", "growth"):
                found.append(Attempt(target, name, function, outcome, 0, FOR_EVER))
    return found


def main(target: str, name: str, seed: str, most: str, only: str, after: str) -> None:
    """Try all of one play; the first ``after`` were tried before."""
    rng = random.Random(f"{seed} {target} {name}")
    stage = Stage(Order())
    if target == "spare":
        stage.keep_spares()
    counts = census(stage, target, name)
    print(json.dumps({"calls": counts}), flush=True)
    chosen = {function: counts[function] for function in only.split(",") if function in counts}
    for number, trial in enumerate(attempts(target, name, chosen, int(most), rng)):
        if number < int(after):
            continue
        print(f"trial {number}: {trial}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        complaints = trial.run(stage, number % 100)
        faulthandler.cancel_dump_traceback_later()
        said = {
            "trial": str(trial),
            "number": number,
            "function": trial.function,
            "made": trial.made,
            "error": type(trial.error).__name__ if trial.error else None,
            "broken": complaints,
        }
        print(json.dumps(said), flush=True)
    stage.close()


if __name__ == "__main__":
    faulthandler.enable()
    main(*sys.argv[1:])
