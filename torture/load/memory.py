"""The same work again and again: neither memory nor descriptors may grow with it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from ..trial import Report
from .rounds import Round, opened
from .starter import children_of

WARM_LAPS = 4
"""The first laps of a phase; the medians of these and of as many last ones are compared."""
LAP_SECONDS = 0.5
GROWTH = {"bytes": 1.1}
ALLOWANCES = {"bytes": 2 << 20, "descriptors": 3, "sessions": 3}
"""So many times as much, and so much more, there may be at the end, by the last word of the name:
what lies where is different in each lap."""
REPORTED = (
    "real bytes",
    "writer's private bytes",
    "clients' private bytes",
    "supervisor's descriptors",
)

Figures = dict[str, int]


def steady(report: Report, rng: random.Random, what: str, laps: int) -> None:
    """Do so many laps of work with the writer killed in each, then as many with a reader killed."""
    with opened(report, rng, what) as played:
        for whom in ("writer", "reader"):
            phase = f"{whom} killed in each lap"
            figures = list(_laps(played, WARM_LAPS + laps, whom))
            report.add("laps of the same work, to see what grows", len(figures))
            for name in figures[0]:
                first = round(median(lap[name] for lap in figures[:WARM_LAPS]))
                last = round(median(lap[name] for lap in figures[-WARM_LAPS:]))
                if name in REPORTED:
                    report.counts[f"{name}, {phase}, in the first laps"] = first
                    report.counts[f"{name}, {phase}, in the last laps"] = last
                kind = name.split()[-1]
                if last > first * GROWTH.get(kind, 1) + ALLOWANCES[kind]:
                    played.find("grows", f"{phase}: {name} from {first:,} to {last:,}")
        played.audit_at_rest()


def _laps(played: Round, laps: int, whom: str) -> Iterator[Figures]:
    for _ in range(laps):
        played.kill(whom)
        time.sleep(LAP_SECONDS)
        with played.at_rest():
            yield _figures(played)


def _figures(played: Round) -> Figures:
    stats = played.auditor.stats()
    clients = [process.pid for process in played.clients]
    readers = [process.pid for process in played.readers]
    starter = played.starter.pid
    return {
        "used bytes": stats["used"],
        "real bytes": stats["real"],
        "sessions": stats["sessions"],
        "writer's private bytes": _private_bytes(stats["pid"]),
        "writer's descriptors": _descriptors(stats["pid"]),
        "supervisor's private bytes": _private_bytes(starter),
        "supervisor's descriptors": _descriptors(starter),
        "supervisor's children and descriptors": len(list(children_of(starter))),
        "clients' private bytes": sum(map(_private_bytes, clients)),
        "clients' descriptors": sum(map(_descriptors, clients)),
        "readers' private bytes": sum(map(_private_bytes, readers)),
        "readers' descriptors": sum(map(_descriptors, readers)),
    }


def _private_bytes(pid: int) -> int:
    """Return the memory that a process has for itself."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = status.partition("RssAnon:")[2].split()[0]
    return int(kilobytes) << 10


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
