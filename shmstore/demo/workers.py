"""What the processes of the demo do: look records up and change them, and count what happens."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field

from multiprocess.connection import Connection

import shmstore
from shmstore.demo.sample import Record, certified, is_whole
from shmstore.errors import ShmstoreError
from shmstore.table import Table

READY = "ready"
GO = "go"
STOP = "stop"
RECORDS_TABLE = "packages"
TOTALS_TABLE = "totals"
TOTAL = "increments"
LOOKUPS_PER_MOMENT = 16
MUTATIONS_PER_INCREMENT = 8
TALLY_SECONDS = 0.2
WATCHER_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


class Talk:
    """A worker's connection to the process that watches.

    It says READY, waits for GO, sends its tally from time to time until STOP comes, then its
    account of everything. The end of the other process ends it as well.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told = 0.0
        self.seconds = 0.0

    def begin(self) -> None:
        """Wait for GO. A Ctrl-C at the terminal is for the process that watches."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._connection.send(READY)
        self._connection.recv()
        self._started = self._told = time.monotonic()

    def goes_on(self, tally: int) -> bool:
        """Tell whether to go on; send ``tally`` if it is time to."""
        now = time.monotonic()
        self.seconds = now - self._started
        if now - self._told >= TALLY_SECONDS:
            self._told = now
            self._connection.send(tally)
        return not self._connection.poll()

    def end(self, account: Lookups | Mutations) -> None:
        """Send the account."""
        account.seconds = self.seconds
        self._connection.send(account)


@dataclass
class Lookups:
    """The account of a reader."""

    seconds: float = 0.0
    lookups: int = 0
    torn: int = 0
    missing: int = 0
    reversed: int = 0
    """Lookups that found an older revision than an earlier lookup had."""
    moments: list[tuple[float, int]] = field(default_factory=list)
    """Every few lookups: the time, and how many had been answered by then."""
    seen: dict[str, int] = field(default_factory=dict)
    """The last revision found of each record."""

    def judge(self, key: str, record: Record | None) -> None:
        """Count one lookup and what is wrong with what it found."""
        self.lookups += 1
        if record is None:
            self.missing += 1
        elif not is_whole(record):
            self.torn += 1
        else:
            self.reversed += record["revision"] < self.seen.get(key, 0)
            self.seen[key] = record["revision"]


@dataclass
class Mutations:
    """The account of a client."""

    seconds: float = 0.0
    mutations: int = 0
    failed: int = 0
    slowest: float = 0.0
    """Longest wait for an acknowledgement, in seconds."""
    revisions: dict[str, int] = field(default_factory=dict)
    """The last revision of each record whose storing was acknowledged."""
    increments: int = 0
    increments_unknown: int = 0
    """Increments that failed in a way that leaves open whether they were applied."""
    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    """Per stored revision: when it was acknowledged, and the version it was given."""


def read(connection: Connection, address: str, keys: list[str], seed: int) -> None:
    """Look records up until told to stop."""
    chance = random.Random(seed)
    account = Lookups()
    talk = Talk(connection)
    with suppress(*WATCHER_GONE), shmstore.connect(address) as client:
        table = client.table(RECORDS_TABLE)
        talk.begin()
        while talk.goes_on(account.lookups):
            account.moments.append((time.monotonic(), account.lookups))
            for key in chance.choices(keys, k=LOOKUPS_PER_MOMENT):
                account.judge(key, table.get(key))
        account.seen.clear()
        talk.end(account)


def change(connection: Connection, address: str, keys: list[str], seed: int) -> None:
    """Store new revisions of records that no other client changes, until told to stop.

    Now and then, increment a number that all clients increment.
    """
    chance = random.Random(seed)
    account = Mutations()
    talk = Talk(connection)
    with suppress(*WATCHER_GONE), shmstore.connect(address) as client:
        records, totals = client.table(RECORDS_TABLE), client.table(TOTALS_TABLE)
        talk.begin()
        while talk.goes_on(account.mutations):
            began = time.monotonic()
            if account.mutations % MUTATIONS_PER_INCREMENT:
                _store_revision(account, records, chance.choice(keys))
            else:
                _increment(account, totals)
            account.slowest = max(account.slowest, time.monotonic() - began)
        talk.end(account)


def _store_revision(account: Mutations, records: Table, key: str) -> None:
    revision = account.revisions.get(key, 0) + 1
    try:
        version = records.put(key, certified(records[key], revision))
    except ShmstoreError:
        account.failed += 1
        return
    account.mutations += 1
    account.revisions[key] = revision
    account.acknowledged.append((time.monotonic(), version))


def _increment(account: Mutations, totals: Table) -> None:
    try:
        totals.increment(TOTAL)
    except ShmstoreError:
        account.failed += 1
        account.increments_unknown += 1
        return
    account.mutations += 1
    account.increments += 1
