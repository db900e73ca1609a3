"""What is measured: one group of workloads to a file, each a function of a Run."""

from __future__ import annotations

from collections.abc import Callable

from ..harness import Run
from . import growing, listing, memory, reading, sharing, starting, writing

GROUPS: dict[str, Callable[[Run], None]] = {
    "reading": reading.measure,
    "sharing": sharing.measure,
    "writing": writing.measure,
    "listing": listing.measure,
    "starting": starting.measure,
    "memory": memory.measure,
    "growing": growing.measure,
}
"""In the order in which a full run does them; each has a file of results of its own."""

__all__ = ["GROUPS"]
