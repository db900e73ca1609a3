"""Many short histories, recorded from real processes and put in order."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .. import wing_gong
from ..trial import Budget, Report
from ..wing_gong import Operation
from . import table_model
from .crew import crew, gather, shared_words
from .plans import CALM, CLIENT_KILLED, PROCESSES_MAX, SHORT_OF_TIME, WRITER_KILLED, Plan
from .recorder import record

SESSION = 150
"""How many histories have a server in common."""
KILLED = 3
"""In how many of these the writer is killed, and in how many a client: all at the end.

Few, as a writer that dies again and again is started with ever longer pauses."""
CHUNK = 20
SHORT_OF_TIME_EVERY = 8
FINDINGS_MAX = 5


def put_in_order(budget: Budget, report: Report, least: int, seconds: float) -> None:
    """Record and judge histories: at least so many, and for so many seconds of the budget."""
    until = budget.left() - seconds
    first = 0
    while len(report.findings) < FINDINGS_MAX and (first < least or budget.left() > until):
        count = SESSION if least - first > SESSION or budget.left() > until else least - first
        try:
            for plan, history in _recorded(budget.seed, first, count):
                _judge(plan, history, budget.seed, report)
        except RuntimeError as error:
            where = f"histories {first} to {first + count} of seed {budget.seed}"
            report.findings.append(f"{where} came to no end: {error}")
        first += count


def _recorded(seed: int, first: int, count: int) -> Iterator[tuple[Plan, list[Operation]]]:
    """Yield histories; while one chunk is judged, the next one is recorded."""
    plans = [Plan.made(seed, first + i, _kind(i, count)) for i in range(count)]
    chunks = [plans[at : at + CHUNK] for at in range(0, count, CHUNK)]
    words = shared_words(2 * PROCESSES_MAX)  # two places to meet, with a word for each process
    jobs = [
        partial(record, words=words, process=i, processes=PROCESSES_MAX)
        for i in range(PROCESSES_MAX)
    ]
    with crew(jobs) as (_, members):
        for member in members:
            member.send(chunks[0])
        for chunk, following in zip(chunks, [*chunks[1:], []], strict=True):
            done = gather(members)
            for member in members:
                member.send(following)
            for plan, *parts in zip(chunk, *done, strict=True):
                yield plan, [operation for part in parts for operation in part]


def _kind(place: int, count: int) -> int:
    """What befalls the history at a place of its session."""
    from_end = count - place
    if from_end <= KILLED:
        return WRITER_KILLED
    if from_end <= 2 * KILLED:
        return CLIENT_KILLED
    return CALM if place % SHORT_OF_TIME_EVERY else SHORT_OF_TIME


def _judge(plan: Plan, history: list[Operation], seed: int, report: Report) -> None:
    start = (table_model.Cell(),) * plan.keys
    if wing_gong.ordered(history, start, table_model.step) is None:
        shown = "\n".join(map(str, sorted(history, key=lambda one: one.called)))
        report.findings.append(
            f"history {plan.number} of seed {seed} cannot be put in any order:\n{shown}"
        )
        return
    report.add("short histories that could be put in order")
    report.add("operations in short histories", len(history))
    report.add("short histories with the writer killed in their midst", plan.kind == WRITER_KILLED)
    unanswered = sum(one.returned is None for one in history)
    report.add("operations in short histories without an answer", unanswered)
    report.add("pairs of operations that overlapped", _overlaps(history))


def _overlaps(history: list[Operation]) -> int:
    return sum(
        one.called < other.called and (one.returned is None or other.called < one.returned)
        for one in history
        for other in history
    )
