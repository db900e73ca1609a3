"""Requests staged from their bytes: the same answers, sessions and segment as the general way."""

from __future__ import annotations

import mmap
import random
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import msgpack
import pytest

from shmstore.codec import pack
from shmstore.errors import ShmstoreError
from shmstore.protocol import CLIENT_ID_BYTES, IN_FLIGHT_MAX, build_request, parse_request
from shmstore.writer.batch import Batch
from shmstore.writer.operations import Operations
from shmstore.writer.sessions import Session, Sessions
from tests.segments import nothing

Message = bytes | bytearray
PLAIN = {"put", "insert", "put_many", "delete"}


class GeneralWay:
    """An owner that stages nothing from bytes."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner, name)

    def stage(self, *arguments: object) -> tuple[list[Any], str]:
        return [], "general"

    def run(self, *arguments: object) -> None:
        return None


class Receiver:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.answers: list[bytes] = []

    def deliver(self, answer: bytes) -> None:
        self.answers.append(answer)


class Desk:
    """A writer's batch over a copy of some memory, and two clients of it."""

    def __init__(self, engine: ModuleType, memory: mmap.mmap, general: bool) -> None:
        self.memory = memory
        self.owner = engine.Owner.take_over(memory, nothing, nothing)
        owner: Any = GeneralWay(self.owner) if general else self.owner
        sessions = Sessions(owner, lambda: 0.0)
        self.batch = Batch(owner, Operations(owner), sessions)
        self.clients = [Receiver(sessions.attach(name * CLIENT_ID_BYTES)) for name in (b"a", b"b")]
        self.plain: list[str] = []
        self.ran: list[str] = []

    def serve(self, client: int, messages: list[Message]) -> None:
        """Do with the messages what the loop does."""
        receiver, waiting = self.clients[client], deque(messages)
        if len(waiting) == 1:
            self.batch.commit()
            if operation := self.batch.run(receiver, waiting[0]):
                self.ran.append(operation)
                return
        while waiting:
            self.plain += self.batch.add_plain(receiver, waiting, 50)
            if waiting:
                message = waiting.popleft()
                try:
                    self.batch.add(receiver, parse_request(message))
                except ShmstoreError as error:
                    self.batch.commit()
                    receiver.deliver(repr(error).encode())


@contextmanager
def desks(engine: ModuleType, capacity: int = 4 << 20) -> Iterator[tuple[Desk, Desk]]:
    """Two writers over equal memory; the second does everything the general way."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(mmap.mmap(-1, capacity)) for _ in range(2))
        engine.Owner.create(first, nothing, nothing).close()
        second[:] = first[:]
        both = Desk(engine, first, False), Desk(engine, second, True)
        for desk in both:
            stack.callback(desk.owner.close)
        yield both
        assert both[0].owner.check() == []


def same(fast: Desk, slow: Desk) -> None:
    for one, other in zip(fast.clients, slow.clients, strict=True):
        assert one.answers == other.answers
        assert one.session.answers == other.session.answers
        assert one.session.seen == other.session.seen
    assert fast.memory[:] == slow.memory[:], "the segments differ"


class Requests:
    """Random requests of one client, some odd, some wrong."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next_id = 1

    def message(self) -> Message:
        rng, request_id = self._rng, self._next_id
        self._next_id += 1
        if rng.random() < 0.02:
            request_id = max(1, request_id - rng.randrange(3))  # sent again
        oldest = max(0, request_id - rng.randrange(40))
        if rng.random() < 0.01:
            oldest = request_id + rng.choice((1, -IN_FLIGHT_MAX - 1))
        message = build_request(request_id, oldest, *self._request())
        if rng.random() < 0.02:
            message = message[: rng.randrange(1, len(message))] + b"\xc1" * rng.randrange(2)
        return bytearray(message) if rng.random() < 0.1 else message

    def _request(self) -> tuple[str, list[Any]]:
        rng = self._rng
        table = rng.choice(("t", "t", "t", "u", "tä", "", "x" * 255, "x" * 256))
        place = [table, rng.choice(("", "", "", "", "ns"))]
        operation = rng.choice(("put", "put", "insert", "put_many", "delete", "pop", "increment"))
        if operation == "put_many":
            pairs = [[self._key(), self._value()] for _ in range(rng.choice((0, 1, 3, 20)))]
            return operation, [*place, pairs]
        if operation in ("put", "insert"):
            return operation, [*place, self._key(), self._value()]
        if operation == "increment":
            return operation, [*place, self._key(), None, 1, 0, None, None, False]
        return operation, [*place, self._key()]

    def _key(self) -> Any:
        rng = self._rng
        odd = ("", b"", "é", 5, None, "k" * 70_000, b"k" * 300, "k" * 40, "k" * 300)
        number = rng.randrange(60)
        return (
            rng.choice(odd) if rng.random() < 0.1 else rng.choice((f"k{number}", b"k%d" % number))
        )

    def _value(self) -> Any:
        rng = self._rng
        odd = (
            b"", b"\xc1", b"\x01\x01", b"\x92\x01", "text", 7, b"\xc7\x01\x05x", b"\xd4\x05x",
            b"\x91" * 31 + b"\x01", b"\x91" * 40 + b"\x01", b"\x91" * 2000 + b"\x01", b"\x81\x01",
            pack(bytes(5000)), pack("s" * 70_000), pack({"k": list(range(300))}), b"\xd9\x02ab",
            b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
        )  # fmt: skip
        plain = (None, 1, 2.5, "x" * rng.randrange(300), {"a": [1, {"b": b"c"}], "n": -70_000})
        return rng.choice(odd) if rng.random() < 0.15 else pack(rng.choice(plain))


@pytest.mark.parametrize("seed", range(4))
def test_staging_from_bytes_is_the_general_way(engine: ModuleType, seed: int) -> None:
    rng = random.Random(seed)
    clients = [Requests(rng), Requests(rng)]
    with desks(engine) as (fast, slow):
        for _ in range(150):
            client = rng.randrange(2)
            messages = [clients[client].message() for _ in range(rng.choice((1, 3, 30)))]
            for desk in (fast, slow):
                desk.serve(client, messages)
                desk.batch.commit()
            same(fast, slow)
        assert set(fast.plain) == (PLAIN if engine.NAME == "native" else set())
        assert bool(fast.ran) == (engine.NAME == "native")


def test_a_full_store_refuses_what_does_not_fit_and_nothing_else(engine: ModuleType) -> None:
    rng = random.Random(5)
    with desks(engine, 1 << 20) as (fast, slow):
        for number in range(1, 160):
            size = rng.choice((10, 30_000))
            messages: list[Message] = [
                build_request(
                    3 * number, 3 * number, "put", ["t", "", f"k{number}", pack(bytes(size))]
                ),
                build_request(3 * number + 1, 3 * number, "put", ["t", "", f"s{number}", b"\x01"]),
                build_request(3 * number + 2, 3 * number, "delete", ["t", "", f"s{number - 3}"]),
            ]
            for desk in (fast, slow):
                desk.serve(0, messages)
                desk.batch.commit()
            same(fast, slow)
        results = [msgpack.unpackb(answer) for answer in fast.clients[0].answers]
        assert any(result[1] for result in results), "the store must have been full"
        assert not results[-1][1], "a delete has room"


def test_a_key_of_the_open_batch_ends_it(engine: ModuleType) -> None:
    def put(request_id: int, key: str) -> Message:
        return build_request(request_id, 1, "put", ["t", "", key, b"\x01"])

    with desks(engine) as (fast, slow):
        for desk in (fast, slow):
            desk.serve(0, [put(1, "a")])
            desk.batch.commit()
            desk.serve(0, [put(2, "a"), put(3, "b"), put(4, "a"), put(5, "a")])
            desk.batch.commit()
        same(fast, slow)
        versions = [msgpack.unpackb(answer)[2] for answer in fast.clients[0].answers]
        assert len(set(versions[1:])) == 3, "each put of a key has a version of its own"
