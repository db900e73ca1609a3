"""Memory shared by judge and workers: what was begun, what was acknowledged, what is found wrong.

It is an order of events that does not go through the store, and it outlives whoever is killed.
Each word has one process that stores it; a store of an aligned word is atomic.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Iterator
from enum import IntEnum, auto
from typing import NamedTuple

CLIENTS_MAX = 64
"""Clients of one round, with those that replace others."""
READERS_MAX = 64
ITEMS_MAX = 1 << 14
"""Items that one client may put into the queue."""
TEXT_BYTES_MAX = 3000
"""What a process may report at once: the kernel keeps so much together."""


class Flag(IntEnum):
    """Words of the judge."""

    PAUSE = 0
    GONE = auto()
    """The server may be gone from now on."""
    END = auto()
    CLIENTS = auto()
    """So many clients were started in this round."""


class State(IntEnum):
    """Words of one worker."""

    PAUSED = 0
    DEADLINE = auto()
    """When the operation under way has to have ended, in milliseconds; 0 if there is none."""
    DONE = auto()
    """Mutations that were acknowledged, or reads."""
    TIMEOUTS = auto()
    """Operations that ended with RequestTimeout."""


class Count(IntEnum):
    """What a client counts twice: before it sends, and after the acknowledgement."""

    SUM = 0
    """Increments of the number that all clients increment."""
    LINE = auto()
    """Increments of a number that this client alone increments, many in one pipeline."""
    TWIN = auto()
    """Transactions that increment a number of all and one of the client's own."""
    SWAPS = auto()
    """Compare-and-swaps of the record that all clients change."""
    PUSHED = auto()
    POPPED = auto()
    PAIR = auto()
    """The number that the client writes into two tables together."""
    GROUP = auto()
    """The number that it writes into several records together."""
    REGISTER = auto()
    """The number in its first register; the others follow."""


REGISTERS = 4
COUNTS = Count.REGISTER + REGISTERS
STATES = len(State)
STRIDE = STATES + 2 * COUNTS
FLAGS = len(Flag)


class Finding(NamedTuple):
    """A promise that did not hold."""

    kind: str
    """One of KINDS."""
    text: str


KINDS = {
    "lost": "lost",
    "twice": "applied twice",
    "torn": "torn",
    "stale": "stale",
    "late": "operations beyond their time limit",
    "grows": "memory or descriptors that grow",
    "other": "other findings",
}
"""What is counted under which name."""


class Ledger:
    """The shared words of one round, and the pipe for findings."""

    def __init__(self) -> None:
        words = FLAGS + (CLIENTS_MAX + READERS_MAX) * STRIDE
        self._memory = mmap.mmap(-1, words * 8 + CLIENTS_MAX * ITEMS_MAX)
        self._bytes = memoryview(self._memory)
        self.words = self._bytes[: words * 8].cast("Q")
        self.taken = self._bytes[words * 8 :]
        """Per item of the queue how often it was taken out."""
        self._receiver, self._sender = os.pipe()
        os.set_blocking(self._receiver, False)

    def close(self) -> None:
        """Let go of memory and pipe, in this process."""
        for view in (self.words, self.taken, self._bytes):
            view.release()
        self._memory.close()
        os.close(self._receiver)
        os.close(self._sender)

    def report(self, kind: str, text: str) -> None:
        """Tell the judge; any process may."""
        if len(text.encode()) > TEXT_BYTES_MAX:
            text = text.encode()[-TEXT_BYTES_MAX:].decode(errors="replace")
        os.write(self._sender, json.dumps([kind, text]).encode() + b"\n")

    def reported(self) -> Iterator[Finding]:
        """Yield what was reported since the last call."""
        data = b""
        try:
            while piece := os.read(self._receiver, 1 << 16):
                data += piece
        except BlockingIOError:
            pass
        for line in data.splitlines():
            yield Finding(*json.loads(line))

    def state(self, worker: int, state: State) -> int:
        """Return a word of a worker."""
        return int(self.words[FLAGS + worker * STRIDE + state])

    def set_state(self, worker: int, state: State, value: int) -> None:
        """Store a word of a worker."""
        self.words[FLAGS + worker * STRIDE + state] = value

    def begun(self, client: int, count: int) -> int:
        """Return how much of this a client has begun."""
        return int(self.words[FLAGS + client * STRIDE + STATES + 2 * count])

    def acknowledged(self, client: int, count: int) -> int:
        """Return how much of this was acknowledged."""
        return int(self.words[FLAGS + client * STRIDE + STATES + 2 * count + 1])

    def begin(self, client: int, count: int, by: int = 1) -> int:
        """Count what is about to be sent; return the new number."""
        self.words[FLAGS + client * STRIDE + STATES + 2 * count] += by
        return self.begun(client, count)

    def acknowledge(self, client: int, count: int, number: int) -> None:
        """Note up to which number all was acknowledged."""
        self.words[FLAGS + client * STRIDE + STATES + 2 * count + 1] = number

    @property
    def clients(self) -> range:
        """All clients that were started in this round, dead ones too."""
        return range(self.words[Flag.CLIENTS])

    def total_begun(self, count: int) -> int:
        """Return how much of this all clients have begun."""
        return sum(self.begun(client, count) for client in self.clients)

    def total_acknowledged(self, count: int) -> int:
        """Return how much of this was acknowledged to any client."""
        return sum(self.acknowledged(client, count) for client in self.clients)


def milliseconds() -> int:
    """Return the time by the clock that all processes share."""
    return time.monotonic_ns() // 1_000_000
