"""Which process is meant, for as long as the machine runs: its id, and the time at which it began.

Ids are used again, ids with their times are not. As bytes the two are a *holder*: whoever has
something in a store for as long as its process lives.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HOLDER_BYTES = 16
"""A holder's process id and its start time, in ticks since the machine began; little-endian."""
_HOLDER = struct.Struct("<QQ")
_START_FIELD = 19
"""Counted from the state, which is the first field behind the name."""
_ENDED = frozenset({"Z", "X", "x"})


class Sight(NamedTuple):
    """A process as /proc shows it."""

    start: int
    ended: bool
    """Whether it is a zombie: dead, and nobody has asked for its status yet."""


def look(pid: int | str = "self") -> Sight | None:
    """Return what /proc says of a process, this one unless told; None if there is none.

    OSError if this process cannot look just now. Zombies are seen.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # a name may hold anything, ")" too
    return Sight(int(fields[_START_FIELD]), fields[0].decode() in _ENDED)


def holder_of(pid: int, start: int) -> bytes:
    """Return the holder that a process is."""
    return _HOLDER.pack(pid, start)


def process_of(holder: bytes) -> tuple[int, int]:
    """Return the process id and the start time of a holder."""
    pid, start = _HOLDER.unpack(holder)
    return pid, start
