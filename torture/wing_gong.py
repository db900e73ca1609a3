"""Whether what several processes saw of one thing can be put in one order: linearizability.

The search is that of J. M. Wing and C. Gong, "Testing and Verifying Concurrent Objects" (Journal of
Parallel and Distributed Computing 17, 1993), which takes one operation after the other that nothing
must precede, and goes back where the thing would have answered otherwise. What G. Lowe added,
"Testing for linearizability" (Concurrency and Computation 29, 2017): it never goes on twice from
the same state with the same operations taken.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class Operation:
    """What one process asked for, and what it got."""

    process: int
    name: str
    arguments: tuple[Any, ...]
    called: int
    """When, by a clock that all processes share."""
    returned: int | None = None
    """When the answer was there; None if none came: then it took effect later or not at all."""
    result: Any = None

    def __str__(self) -> str:
        said = f"{self.name}{self.arguments!r}"
        if self.returned is None:
            return f"process {self.process} from {self.called}: {said} without an answer"
        return f"process {self.process} {self.called} to {self.returned}: {said} -> {self.result!r}"


def ordered(
    history: Sequence[Operation],
    start: State,
    step: Callable[[State, Operation], State | None],
) -> list[Operation] | None:
    """Return the operations that took effect, in an order that explains all answers, or None.

    An operation that returned before another was called stands before it. ``step`` returns the
    state after an operation, None if its result is none that the state allows. Costs, at worst, a
    step for each set of operations that overlap.
    """
    operations = sorted(history, key=_hurry)
    answered = sum(1 << i for i, one in enumerate(operations) if one.returned is not None)
    known: set[tuple[int, State]] = set()
    path: list[Operation] = []
    levels = [(0, start, _next(operations, 0))]
    while levels:
        taken, state, candidates = levels[-1]
        if taken & answered == answered:
            return path
        for i in candidates:
            after = step(state, operations[i])
            if after is None or (taken | 1 << i, after) in known:
                continue
            known.add((taken | 1 << i, after))
            path.append(operations[i])
            levels.append((taken | 1 << i, after, _next(operations, taken | 1 << i)))
            break
        else:
            levels.pop()
            del path[len(levels) - 1 :]
    return None


def _hurry(operation: Operation) -> tuple[bool, int]:
    """What returned first most often took effect first; what never returned may wait."""
    return operation.returned is None, operation.returned or operation.called


def _next(operations: list[Operation], taken: int) -> Iterator[int]:
    """Yield what may come next: was called before anything else that is left has returned."""
    left = [i for i in range(len(operations)) if not taken >> i & 1]
    ends = [end for i in left if (end := operations[i].returned) is not None]
    first_end = min(ends, default=0)
    return (i for i in left if operations[i].called <= first_end)
