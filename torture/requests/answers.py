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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any
from unittest import mock

from shmstore import segment
from shmstore.engine import Owner
from shmstore.errors import ShmstoreError
from shmstore.pipe import Pipe, pipe
from shmstore.pipe.connection import Connection

from .messages import Composer

CAPACITY = 1 << 20
TIMEOUT_SECONDS = 0.001
"""A hostile writer may say nothing at all."""
CALLS = ("put", "ping", "read", "increment", "transaction")
SENT_MAX = 100_000
"""What a socket takes of answers that nobody reads yet."""


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
        with mock.patch.multiple(pipe, open_connection=self._connected, sleep=_hurry):
            client = Pipe("/nowhere", TIMEOUT_SECONDS)
            try:
                for _ in range(3):
                    self._call(client)
            finally:
                client.close()

    def _call(self, client: Pipe) -> None:
        self.calls += 1
        try:
            client.call(self._composer.one_of(CALLS), ["t", "", "k"])
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
