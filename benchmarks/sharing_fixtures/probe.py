"""Loaded into every process of a measured run: each worker notes what happens to it, and when.

The monotonic clock is the same for all processes of a machine, so moments can be compared. What is
noted costs one look at the memory of the process before its first test and one after its last.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..machine import private_bytes_of

FOLDER_VARIABLE = "BENCHMARK_NOTES"
"""Where the workers put their notes."""

ready: list[tuple[str, int]] = []
moments: dict[str, int] = {}


def computed(name: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """Do what a fixture has to do, and note when it is done."""
    value = make(*arguments)
    ready.append((name, time.monotonic_ns()))
    return value


def in_hand() -> None:
    """Note that this worker's first test has its values."""
    moments.setdefault("in_hand", time.monotonic_ns())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Note when the first test asks for its fixtures, and what its worker has until then."""
    if "asked" not in moments:
        moments["private_before"] = private_bytes_of()["private"]
        moments["cpu_before"] = time.process_time_ns()
        moments["asked"] = time.monotonic_ns()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Put the notes down after the last test, while its fixtures are still there."""
    if nextitem is not None:
        return
    moments["cpu_after"] = time.process_time_ns()
    moments["private_after"] = private_bytes_of()["private"]
    worker = getattr(item.config, "workerinput", {"workerid": "master"})["workerid"]
    notes = {"worker": worker, "ready": ready, **moments}
    Path(os.environ[FOLDER_VARIABLE], f"{worker}.json").write_text(json.dumps(notes))
