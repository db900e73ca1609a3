"""What every file of results says besides its figures."""

from __future__ import annotations

import time
from typing import Any

from . import machine
from .records import SEED
from .timing import clock_overhead


def header_of(group: str, said: dict[str, str], quick: bool) -> dict[str, Any]:
    """Return what a file of results says besides its cells."""
    return {
        "group": group,
        "made": {
            "command": machine.command_line(),
            "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "quick": quick,
            "seed": SEED,
        },
        "machine": machine.describe_machine(),
        "versions": machine.describe_versions(),
        "clock": {"overhead_ns": clock_overhead()},
        "rivals": said,
    }
