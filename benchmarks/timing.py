"""How calls are timed: blocks of calls for what one costs, single calls for the percentiles.

Reading the clock takes about as long as a lookup in a dict. So a call is timed in blocks of many,
between two readings of the clock, and the median block counts; how calls spread is seen by timing
single calls afterwards, and the clock's own part in those, ``clock_overhead()``, is stated with
them and not subtracted.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .histogram import Histogram

BLOCK_NS = 500_000
"""How long a block should take: long against the clock, short against a time slice."""
BLOCK_CALLS_MAX = 10_000
TRIES = 4
DISTURBED_NS = 50_000_000
"""A block that takes longer does so by itself: no other process is given the core for so long."""
SAMPLES_MAX = 200_000
BLOCK_SHARE = 0.6
"""The part of a measurement that times blocks; the rest times single calls."""


@dataclass
class Measured:
    """What one process measured of one operation."""

    blocks_ns: list[float] = field(default_factory=list)
    """Nanoseconds per operation, block by block."""
    operations: int = 0
    wall_ns: int = 0
    cpu_ns: int = 0
    """Of the blocks alone, as ``wall_ns`` and ``server_cpu_ns``."""
    server_cpu_ns: int = 0
    singles: Histogram = field(default_factory=Histogram)


def pass_none(call: Callable[[], Any], block: Sequence[Any]) -> None:
    """Call once for each item of the block."""
    for _ in block:
        call()


def pass_one(call: Callable[[Any], Any], block: Sequence[Any]) -> None:
    """Call once with each item of the block."""
    for item in block:
        call(item)


def pass_two(call: Callable[[Any, Any], Any], block: Sequence[Any]) -> None:
    """Call once with the two parts of each item of the block."""
    for first, second in block:
        call(first, second)


PASSES: dict[int, Callable[[Any, Sequence[Any]], None]] = {0: pass_none, 1: pass_one, 2: pass_two}


def time_block(call: Callable[..., Any], block: Sequence[Any], arity: int = 1) -> int:
    """Return the nanoseconds that one pass over a block took."""
    walk = PASSES[arity]
    begin = time.perf_counter_ns()
    walk(call, block)
    return time.perf_counter_ns() - begin


def clock_overhead() -> int:
    """Return what timing a call adds to it: the median distance of two readings, in ns."""
    clock = time.perf_counter_ns
    gaps = []
    for _ in range(10_001):
        begin = clock()
        gaps.append(clock() - begin)
    return int(median(gaps))


def measure(
    call: Callable[..., Any],
    arguments: Sequence[Any],
    arity: int,
    scale: int,
    seconds: float,
    start: Callable[[], None],
    server_cpu: Callable[[], int] = lambda: 0,
) -> Measured:
    """Time ``call`` for so long, over and over the ``arguments``; ``start`` waits for the others.

    ``scale`` is how many operations one call does, ``server_cpu`` returns the processor time that
    the server side has used so far. Warms up before ``start``.
    """
    blocks = blocks_of(arguments, calibrated(call, arguments, arity))
    gc.collect()
    gc.freeze()  # what was loaded is none of the garbage of the calls
    measured = Measured()
    start()
    begin = time.perf_counter_ns()
    cpu, server = time.process_time_ns(), server_cpu()
    end = begin + int(seconds * 1e9 * BLOCK_SHARE)
    now = begin
    while now < end:
        block = next(blocks)
        taken = time_block(call, block, arity)
        measured.blocks_ns.append(taken / (len(block) * scale))
        measured.operations += len(block) * scale
        now = time.perf_counter_ns()
    measured.wall_ns = now - begin
    measured.cpu_ns = time.process_time_ns() - cpu
    measured.server_cpu_ns = server_cpu() - server
    end = time.perf_counter_ns() + int(seconds * 1e9 * (1 - BLOCK_SHARE))
    singles = _singles(call, blocks, arity, end)
    measured.singles = Histogram.of(singles)
    gc.unfreeze()
    return measured


def calibrated(
    call: Callable[..., Any],
    arguments: Sequence[Any],
    arity: int,
    block_ns: int = BLOCK_NS,
    calls_max: int = BLOCK_CALLS_MAX,
) -> int:
    """Return how many calls make a block, by doing some: this is the warm-up as well."""
    count, most = 1, min(calls_max, len(arguments))
    while True:
        taken = _undisturbed(call, arguments[:count], arity)
        if taken >= block_ns or count == most:
            return count
        count = min(most, max(count * 2, int(count * block_ns / max(taken, 1))))
        if taken > block_ns / 2:
            return count


def _undisturbed(call: Callable[..., Any], block: Sequence[Any], arity: int) -> int:
    """Return what a block takes if nothing interrupts it, as far as a few tries can tell."""
    taken = time_block(call, block, arity)
    for _ in range(TRIES if taken < DISTURBED_NS else 0):
        taken = min(taken, time_block(call, block, arity))
    return taken


def blocks_of(arguments: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield blocks of the arguments, for ever, of equal size."""
    starts = range(0, max(1, len(arguments) - size + 1), size)
    return itertools.cycle([arguments[at : at + size] for at in starts])


def _singles(
    call: Callable[..., Any], blocks: Iterator[Sequence[Any]], arity: int, end: int
) -> list[int]:
    """Time single calls until ``end``, or until there are enough; at least one."""
    clock, taken = time.perf_counter_ns, list[int]()
    note = taken.append
    for item in itertools.islice(itertools.chain.from_iterable(blocks), SAMPLES_MAX):
        given = (item,) if arity == 1 else tuple(item) if arity == 2 else ()
        begin = clock()
        call(*given)
        note(clock() - begin)
        if begin > end:
            break
    return taken
