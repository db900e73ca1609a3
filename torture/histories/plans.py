"""What the processes of one short history do: made from a seed, by each of them alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

PROCESSES_MIN, PROCESSES_MAX = 3, 5
KEYS_MIN, KEYS_MAX = 2, 3
OPERATIONS_MIN, OPERATIONS_MAX = 10, 30
PAUSE_NANOSECONDS_MAX = 150_000
TIMEOUT_SECONDS = (1e-5, 2e-4)
"""Of a client that is short of time: about as long as an answer takes."""
CALM, WRITER_KILLED, CLIENT_KILLED, SHORT_OF_TIME = range(4)
HASTY = (WRITER_KILLED, SHORT_OF_TIME)
"""Where a process does not wait long for answers."""

CHANGES = {
    "put": 5,
    "insert_new": 3,
    "setdefault": 2,
    "swap": 4,
    "increment": 4,
    "delete": 4,
    "pop": 2,
    "put_many": 3,
    "delete_many": 1,
    "clear": 1,
    "transaction": 4,
}
READS = {"get": 6, "contains": 2, "get_versioned": 6, "get_many": 8, "copy": 3, "len": 3}
IN_TRANSACTIONS = ("put", "insert_new", "increment", "delete", "pop")


class Turn(NamedTuple):
    """One operation, and how long to wait before it."""

    name: str
    arguments: tuple[Any, ...]
    pause: int
    """In nanoseconds, so that quick reads fall among slow mutations."""


@dataclass
class Plan:
    """One short history: who does what."""

    number: int
    keys: int
    start: tuple[tuple[int, int], ...]
    """What some of the keys hold before."""
    turns: list[list[Turn]]
    """Of each process."""
    kind: int
    victim: int
    """The process that kills the writer, or is killed."""
    moment: int
    """The turn of the victim at which that happens."""
    pause: int
    hasty: int | None
    """The process that is short of time."""
    timeout: float

    @classmethod
    def made(cls, seed: int, number: int, kind: int) -> Plan:
        """Return the plan of a history."""
        rng = random.Random(f"{seed}/{number}")
        processes = rng.randint(PROCESSES_MIN, PROCESSES_MAX)
        keys = rng.randint(KEYS_MIN, KEYS_MAX)
        count = rng.randint(OPERATIONS_MIN, OPERATIONS_MAX)
        shares = [count // processes + (i < count % processes) for i in range(processes)]
        values = iter(range(1, 1 << 30))
        turns = [[_turn(rng, keys, values) for _ in range(share)] for share in shares]
        victim = rng.randrange(processes)
        return cls(
            number,
            keys,
            tuple((key, -1 - key) for key in range(keys) if rng.random() < 0.7),
            turns,
            kind,
            victim,
            moment=rng.randrange(len(turns[victim])),
            pause=rng.randrange(PAUSE_NANOSECONDS_MAX),
            hasty=rng.randrange(processes) if kind in HASTY else None,
            timeout=rng.uniform(*TIMEOUT_SECONDS),
        )

    @property
    def table(self) -> str:
        """Each history has its own: what comes too late can disturb no other."""
        return f"history {self.number}"

    def does(self, kind: int, process: int) -> bool:
        """Tell whether this befalls a process."""
        return kind == self.kind and process == self.victim


def _turn(rng: random.Random, keys: int, values: Iterator[int]) -> Turn:
    kinds = CHANGES if rng.random() < 0.55 else READS
    name = rng.choices(list(kinds), list(kinds.values()))[0]
    pause = rng.choice((0, 0, rng.randrange(PAUSE_NANOSECONDS_MAX)))
    if name == "transaction":
        return Turn(name, tuple(_parts(rng, keys, values)), pause)
    return Turn(name, _arguments(rng, keys, values, name), pause)


def _parts(rng: random.Random, keys: int, values: Iterator[int]) -> Iterator[Any]:
    """Yield the mutations of a transaction: on several keys, or one deleted and made again."""
    if rng.random() < 0.2:
        key = rng.randrange(keys)
        yield "delete", (key,)
        yield "put", (key, next(values))
        return
    for key in rng.sample(range(keys), rng.randint(2, keys)):
        name = rng.choice(IN_TRANSACTIONS)
        yield name, (key, *_arguments(rng, keys, values, name)[1:])


def _arguments(rng: random.Random, keys: int, values: Iterator[int], name: str) -> tuple[Any, ...]:
    several = rng.sample(range(keys), rng.randint(2, keys))
    key = several[0]
    if name in ("put", "insert_new", "setdefault"):
        return key, next(values)
    if name == "swap":
        return key, None, next(values)  # the version is what the process has learnt by then
    if name == "increment":
        return key, 1
    if name == "put_many":
        return tuple((one, next(values)) for one in several)
    if name in ("delete_many", "get_many"):
        return tuple(several)
    return () if name in ("clear", "copy", "len") else (key,)
