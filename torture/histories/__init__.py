"""What many processes saw can be put in one order. Imports point down:

sequence; short                long games, judged by the sequence of commits; short histories
sights; turns                  reads of one client's keys; changes of keys that all clients share
scripts; recorder              what a client does all along; a process of short histories
batches; plans, table_model    several keys at once; what short histories are, and their model
mutations                      single mutations
records                        what is stored
board; crew                    words and processes that do not go through the store
"""

from __future__ import annotations

from itertools import cycle

from ..trial import Budget, Report
from .sequence import FEW_KEYS, LARGE_RECORDS, MANY_KEYS, play
from .short import put_in_order

OPERATIONS_LEAST = 10_000_000
HISTORIES_LEAST = 10_000
SECONDS_FULL = 60.0
"""A budget of so many seconds, or more, gets all that is the least; a smaller one its part."""
GAMES_MIN = 5
GAME_SECONDS = (0.5, 10.0)
HISTORIES_SHARE = 0.35
GAMES = (
    (FEW_KEYS, "nothing"),
    (FEW_KEYS, "writers killed"),
    (LARGE_RECORDS, "writers and readers stopped"),
    (MANY_KEYS, "writers killed"),
    (FEW_KEYS, "writers and readers stopped"),
    (FEW_KEYS, "nothing"),
    (LARGE_RECORDS, "nothing"),
    (FEW_KEYS, "nothing"),
    (MANY_KEYS, "writers and readers stopped"),
    (FEW_KEYS, "writers and readers stopped"),
)
"""Each with what befalls its processes."""


def run(budget: Budget, operations: int | None = None, histories: int | None = None) -> Report:
    """Record short histories and put them in order; play games and judge every answer.

    At least so many: 10,000,000 operations and 10,000 histories unless given, if there is a minute
    or more; for a shorter budget its part.
    """
    scale = min(1.0, budget.seconds / SECONDS_FULL)
    operations = int(OPERATIONS_LEAST * scale) if operations is None else operations
    histories = int(HISTORIES_LEAST * scale) if histories is None else histories
    report = Report()
    put_in_order(budget, report, histories, HISTORIES_SHARE * budget.seconds)
    shortest, longest = GAME_SECONDS
    seconds = max(shortest, min(longest, budget.seconds / 10))
    judged = 0
    for played, (shape, disturbance) in enumerate(cycle(GAMES)):
        done = played >= GAMES_MIN and judged >= operations
        if report.findings or (done and budget.left() <= 0):
            return report
        judged += play(budget, report, shape, disturbance, seconds)
        budget.say(f"{judged:,} operations judged")
    raise AssertionError("there is always another game")
