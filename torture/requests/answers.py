"""Hostile writers: what a client makes of answers that nobody should give.

The client's end of a connection is given what a hostile writer has sent before anyone asked. Every
call then returns, or raises an error of shmstore's own.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any
from unittest import mock

from shmstore import segment
from shmstore.client import Client
from shmstore.engine import Owner
from shmstore.errors import ShmstoreError
from shmstore.pipe import line
from shmstore.pipe.connection import Connection
from shmstore.stores import Customers

from .messages import Composer

CAPACITY = 1 << 20
TIMEOUT_SECONDS = 0.001
"""A hostile writer may say nothing at all."""
SENT_MAX = 100_000
"""What a socket takes of answers that nobody reads yet."""


def _pipeline(client: Client) -> None:
    with client.pipeline() as pipeline:
        replies = [pipeline.table("t").pop("k", None), pipeline.table("t").put("k", 1)]
    for reply in replies:
        reply.result()


def _transaction(client: Client) -> None:
    with client.transaction() as transaction:
        replies = [transaction.table("t").setdefault("k", 1), transaction.table("t").popitem()]
    for reply in replies:
        reply.result()


CALLS: tuple[Callable[[Client], object], ...] = (
    Client.ping,
    Client.stats,
    Client.check,
    _pipeline,
    _transaction,
    lambda client: client.table("t").put("k", 1),
    lambda client: client.table("t").put_many({"k": 1}),
    lambda client: client.table("t").insert_new("k", 1),
    lambda client: client.table("t").insert_new("k", 1, while_alive=True),
    lambda client: client.table("t").setdefault("k", 1),
    lambda client: client.table("t").wait_changed("k", timeout=TIMEOUT_SECONDS),
    lambda client: client.view("t", "", "k", 1),
    lambda client: client.table("t").pop("k"),
    lambda client: client.table("t").popitem(),
    lambda client: client.table("t").delete("k"),
    lambda client: client.table("t").increment("k"),
    lambda client: client.table("t").patch("k", field=1),
    lambda client: client.table("t").clear(),
    lambda client: Customers(client).clear(),
    lambda client: Customers(client).pop("k", None),
    lambda client: Customers(client).insert({"id": "k", "created": 1}),
    lambda client: client.reader,
)
"""What a client may ask."""


def fuzz(rng: random.Random, seconds: float) -> dict[str, Any]:
    """Fuzz for so long; return counts and findings."""
    with _descriptors() as descriptors:
        writers = HostileWriters(rng, descriptors)
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(writers.findings) < 10:
            writers.play()
    counts: dict[str, float] = {"executions on clients of hostile writers": writers.calls}
    return {"counts": counts, "findings": writers.findings}


class HostileWriters:
    """Connects pipes to writers that have spoken already."""

    def __init__(self, rng: random.Random, descriptors: list[int]) -> None:
        self.calls = 0
        self.findings: list[str] = []
        self._rng = rng
        self._composer = Composer(rng)
        self._descriptors = descriptors
        self._said: list[bytes] = []

    def play(self) -> None:
        """Have one client call some things of writers that follow each other."""
        self._said = []
        with (
            mock.patch.multiple(line, open_connection=self._connected, sleep=_hurry),
            Client("/nowhere", TIMEOUT_SECONDS) as client,
        ):
            for _ in range(3):
                self._call(client)

    def _call(self, client: Client) -> None:
        self.calls += 1
        try:
            self._composer.one_of(CALLS)(client)
        except ShmstoreError:
            pass
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            said = b" | ".join(self._said).hex()
            self.findings.append(f"a client raises {told:.300} after it heard {said:.2000}")

    def _connected(self, address: str, seconds: float, lock: Lock) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            if self._rng.random() * 4 < 1:
                ours.close()
                raise ConnectionRefusedError(111, "nobody listens")
            theirs.setblocking(False)
            hello = self._hello()
            chosen = [self._composer.one_of(self._descriptors)] if self._rng.random() < 0.9 else []
            data = hello + b"".join(self._answer(number) for number in range(1, 4))
            data = data[:SENT_MAX]
            self._said.append(data)
            with suppress(OSError):
                cut = len(hello) if self._rng.random() < 0.8 else 1
                socket.send_fds(theirs, [data[:cut]], chosen)
                theirs.send(data[cut:])
        return Connection(ours, lock)

    def _hello(self) -> bytes:
        facts: Any = {"pid": 1, "segment": b"s" * 16, "capacity": CAPACITY, "format": 1}
        choice = self._rng.random()
        if choice < 0.1:
            facts = self._composer.anything()
        elif choice < 0.2:
            facts["segment"] = self._composer.anything()
        if choice > 0.95:
            return self._framed(self._composer.encoded(self._composer.anything()))
        return self._framed(self._composer.encoded([0, 0, facts]))

    def _answer(self, request_id: int) -> bytes:
        composer = self._composer
        answer: list[Any] = [request_id, 0, composer.anything()]
        if composer.often(2):
            code = composer.one_of((*range(18), composer.anything()))
            details = composer.one_of(
                ({}, {"a": 1}, {"self": 1, "message": 2}, composer.anything())
            )
            answer = [request_id, code, composer.one_of(("why", composer.anything())), details]
        data = composer.encoded(composer.bent(answer))
        return self._framed(composer.changed(data) if composer.often(5) else data)

    def _framed(self, message: bytes) -> bytes:
        size = len(message)
        if self._composer.often(40):
            size = self._composer.one_of((-1, -2, size + 1, max(0, size - 1), (1 << 31) - 1))
        return struct.pack(">i", size) + message


def _hurry(seconds: float) -> None:
    """What stands in the place of a pause."""


@contextmanager
def _descriptors() -> Iterator[list[int]]:
    """What a hostile writer hands out: the memory of a store, and what is none."""
    sound = segment.create(CAPACITY)
    memory = segment.map_writable(sound)
    extents = segment.Extents(sound, memory)
    owner = Owner.create(memory, extents.extend, extents.release)
    made = [
        sound,
        segment.open_readonly(sound),
        os.memfd_create("empty"),
        os.open("/dev/null", os.O_RDWR),
        os.open("/", os.O_RDONLY),
        *os.pipe(),
    ]
    small = os.memfd_create("small")
    os.write(small, b"small")
    page = os.memfd_create("page")
    os.ftruncate(page, 1 << 16)
    try:
        yield [*made, small, page]
    finally:
        owner.close()
        memory.close()
        for fd in (*made, small, page):
            os.close(fd)
