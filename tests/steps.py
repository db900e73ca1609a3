"""What tests of a suite, in whatever process, tell each other and the test that runs the suite."""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "STEPS_FILE"
SECONDS_MAX = 30.0


def me() -> str:
    """Return the name of this worker; "main" where there are none."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def note(text: str) -> None:
    """Write down that this worker came so far."""
    with open(os.environ[VARIABLE], "a") as file:
        file.write(f"{me()} {text}\n")


def notes() -> list[str]:
    """Return what was written down, each with its worker before it."""
    path = Path(os.environ[VARIABLE])
    return path.read_text().splitlines() if path.exists() else []


def await_note(text: str) -> None:
    """Return when any worker has noted this; AssertionError if none does."""
    deadline = time.monotonic() + SECONDS_MAX
    while not any(line.partition(" ")[2] == text for line in notes()):
        assert time.monotonic() < deadline, f"nobody noted {text!r}: {notes()}"
        time.sleep(0.002)
