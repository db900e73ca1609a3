"""How a command ends, and how it says so."""

from __future__ import annotations

import sys
from enum import IntEnum

from shmstore.engine import WHY_PURE


class Exit(IntEnum):
    """The exit status of every command."""

    DONE = 0
    PROBLEM = 1
    USAGE = 2
    STORE = 3
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class Misuse(Exception):
    """The command line, or a file that it names, is not what the command can work with."""


def complain(message: str) -> None:
    """Say on standard error what is wrong."""
    print(f"shmstore: {message}", file=sys.stderr)


def mention_engine() -> None:
    """Say on standard error that the pure engine runs, unless the native one does or none asks."""
    if WHY_PURE:
        complain(f"warning: the pure engine runs, which is slower: {WHY_PURE}")
