"""Bounded waits for what the kernel sends no event for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from shmstore import Server

Value = TypeVar("Value")

SECONDS_MAX = 30.0
POLL_SECONDS = 0.002


def eventually(condition: Callable[[], Value]) -> Value:
    """Return the first true value of ``condition``; fail the test if it stays false."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {SECONDS_MAX:g} s: {condition}"
        time.sleep(POLL_SECONDS)
    return value


def writer_of(server: Server) -> int:
    """Return the process id of the server's writer, once there is one."""
    pid = eventually(lambda: server.writer_pid)
    assert pid is not None
    return pid
