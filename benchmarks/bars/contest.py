"""Contestants in one process, in short turns: block by block, each round in another order.

A turn begins with calls that are not timed, which find the caches as the one before left them.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..records import SEED
from ..timing import blocks_of, calibrated, time_block

BLOCK_CALLS_MAX = 50_000
LEAD_IN = 4
"""One part in so many of a block is called beforehand, untimed."""


@dataclass
class Contestant:
    """What one of them calls, and with what; ``scale`` operations a call."""

    call: Callable[..., Any]
    arguments: Sequence[Any]
    arity: int = 1
    scale: int = 1


def contest(contestants: dict[str, Contestant], rounds: int) -> dict[str, float]:
    """Return the median nanoseconds per operation, by contestant."""
    chance = random.Random(SEED)
    blocks: dict[str, Iterator[Sequence[Any]]] = {}
    for name, one in contestants.items():
        calls = calibrated(one.call, one.arguments, one.arity, calls_max=BLOCK_CALLS_MAX)
        blocks[name] = blocks_of(one.arguments, calls)
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name in chance.sample(list(contestants), len(contestants)):
            one, block = contestants[name], next(blocks[name])
            time_block(one.call, block[: len(block) // LEAD_IN], one.arity)
            spent = time_block(one.call, block, one.arity)
            taken[name].append(spent / (len(block) * one.scale))
    gc.unfreeze()
    return {name: median(series) for name, series in taken.items()}
