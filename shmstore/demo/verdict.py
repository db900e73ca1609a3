"""What came of the demo: everything that was counted, compared with what is in the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import shmstore
from shmstore.demo.sample import is_whole
from shmstore.demo.workers import RECORDS_TABLE, TOTAL, TOTALS_TABLE, Lookups, Mutations


@dataclass
class Death:
    """The end of the writer, as observed, and the sequence number it had committed by then."""

    pid: int
    moment: float
    committed: int


@dataclass
class Verdict:
    """The figures of the final table; ``is_good`` if none of them is a broken promise."""

    rows: list[tuple[str, str]]
    is_good: bool


def judge(
    client: shmstore.Client,
    readers: Sequence[Lookups],
    clients: Sequence[Mutations],
    death: Death,
) -> Verdict:
    """Compare the accounts with the store."""
    torn = sum(account.torn for account in readers) + _torn_in_store(client)
    lost, twice = _lost_and_twice(client, clients)
    revived = revival(clients, death)
    broken = {
        "torn reads": torn,
        "acknowledged mutations lost": lost,
        "mutations applied twice": twice,
        "records not found though never deleted": sum(account.missing for account in readers),
        "lookups that found an older revision than before": sum(
            account.reversed for account in readers
        ),
        "broken invariants of the segment": len(client.check()),
    }
    rows = [
        ("lookups", f"{sum(account.lookups for account in readers):,}"),
        ("lookups per second, each reader", _rates([(a.lookups, a.seconds) for a in readers])),
        ("acknowledged mutations", f"{sum(account.mutations for account in clients):,}"),
        ("mutations per second, each client", _rates([(a.mutations, a.seconds) for a in clients])),
        ("mutations that failed", f"{sum(account.failed for account in clients):,}"),
        ("longest wait for an acknowledgement", _longest(clients)),
        ("from the writer's death to the next acknowledgement", _downtime(revived, death)),
        ("lookups answered in that time", _meanwhile(readers, death, revived)),
        *((name, f"{count:,}") for name, count in broken.items()),
    ]
    return Verdict(rows, revived is not None and not any(broken.values()))


def revival(clients: Sequence[Mutations], death: Death) -> float | None:
    """Return when the first mutation of the next writer was acknowledged.

    It has a version that the dead writer never committed, so an acknowledgement that was still on
    its way when that died is not taken for it.
    """
    return min(
        (
            moment
            for account in clients
            for moment, version in account.acknowledged
            if version > death.committed
        ),
        default=None,
    )


def answered_between(account: Lookups, start: float, end: float) -> int:
    """Return how many lookups began and ended between the two times, at the least."""
    counts = [count for moment, count in account.moments if start <= moment <= end]
    return counts[-1] - counts[0] if counts else 0


def _torn_in_store(client: shmstore.Client) -> int:
    return sum(not is_whole(record) for record in client.table(RECORDS_TABLE).values())


def _lost_and_twice(client: shmstore.Client, clients: Sequence[Mutations]) -> tuple[int, int]:
    records = client.table(RECORDS_TABLE)
    lost = sum(
        max(0, revision - records.get_field(key, "revision", 0))
        for account in clients
        for key, revision in account.revisions.items()
    )
    promised = sum(account.increments for account in clients)
    unknown = sum(account.increments_unknown for account in clients)
    total = client.table(TOTALS_TABLE).get(TOTAL, 0)
    return lost + max(0, promised - total), max(0, total - promised - unknown)


def _rates(figures: Sequence[tuple[int, float]]) -> str:
    return ", ".join(f"{count / max(seconds, 1e-9):,.0f}" for count, seconds in figures)


def _longest(clients: Sequence[Mutations]) -> str:
    return f"{max(account.slowest for account in clients) * 1000:,.0f} ms"


def _downtime(revived: float | None, death: Death) -> str:
    if revived is None:
        return "ever: no mutation was acknowledged any more"
    return f"{(revived - death.moment) * 1000:,.0f} ms"


def _meanwhile(readers: Sequence[Lookups], death: Death, revived: float | None) -> str:
    if revived is None:
        return "not counted"
    return f"{sum(answered_between(account, death.moment, revived) for account in readers):,}"
