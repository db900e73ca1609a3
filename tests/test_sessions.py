"""What the writer remembers of its clients, in the segment, and for how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import msgpack
import pytest

from shmstore import segment
from shmstore.engine import Owner
from shmstore.errors import CorruptSegment, StoreFull
from shmstore.protocol import CLIENT_ID_BYTES, SESSION_SECONDS, Request
from shmstore.writer.sessions import NAMESPACE, TABLE, Session, Sessions

CLIENT = b"c" * CLIENT_ID_BYTES
OTHER = b"o" * CLIENT_ID_BYTES


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def take_over() -> Iterator[Callable[[], Owner]]:
    """Returns the owner of an empty segment, and then its successors, one after another."""
    owners: list[Owner] = []
    fd = segment.create(1 << 20)
    with closing(segment.map_writable(fd)) as memory:
        extents = segment.Extents(fd, memory)

        def next_owner() -> Owner:
            take = Owner.take_over if owners else Owner.create
            owners.append(take(memory, extents.extend, extents.release))
            return owners[-1]

        yield next_owner
        for each in owners:
            each.close()
    os.close(fd)


@pytest.fixture
def owner(take_over: Callable[[], Owner]) -> Owner:
    return take_over()


@pytest.fixture
def sessions(owner: Owner, clock: Clock) -> Sessions:
    return Sessions(owner, clock)


def request(request_id: int, oldest: int) -> Request:
    return Request(request_id, oldest, "put", [])


def stored(owner: Owner, client_id: bytes = CLIENT) -> bool:
    return owner.find(TABLE, NAMESPACE, client_id) is not None


def mutate(owner: Owner, sessions: Sessions, client_id: bytes, *ids: int) -> Session:
    """Have a client apply requests and receive none of the answers."""
    session = sessions.attach(client_id)
    for request_id in ids:
        session.remember(request(request_id, ids[0]), b"answer %d" % request_id)
    sessions.stage(session)
    owner.commit()
    return session


# One session


def test_answers_are_kept_until_the_client_has_them() -> None:
    session = Session(CLIENT)
    for request_id, oldest in [(1, 1), (2, 1), (3, 3), (7, 3)]:
        session.remember(request(request_id, oldest), b"%d" % request_id)
    assert session.answers == {3: b"3", 7: b"7"}
    session.retract(request(7, 3))
    session.retract(request(8, 3))
    assert session.answers == {3: b"3"}


def test_a_session_comes_back_from_its_record() -> None:
    session = Session(CLIENT)
    session.remember(request(5, 5), b"five")
    session.remember(request(6, 5), b"six")
    found = Session.unpacked(CLIENT, session.packed())
    assert (found.seen, found.answers, found.stored) == (6, {5: b"five", 6: b"six"}, True)
    empty = Session(CLIENT)
    empty.seen = 4
    assert Session.unpacked(CLIENT, empty.packed()).seen == 4


@pytest.mark.parametrize(
    ("client_id", "record"),
    [
        (CLIENT, b""),
        (CLIENT, b"\xc1"),
        (CLIENT, msgpack.packb(None)),
        (CLIENT, msgpack.packb([1])),
        (CLIENT, msgpack.packb([1, {}, 2])),
        (CLIENT, msgpack.packb(["1", {}])),
        (CLIENT, msgpack.packb([1, []])),
        (CLIENT, msgpack.packb([1, {"1": b""}])),
        (CLIENT, msgpack.packb([1, {1: "answer"}])),
        (CLIENT[1:], msgpack.packb([1, {}])),
        ("c" * CLIENT_ID_BYTES, msgpack.packb([1, {}])),
    ],
)
def test_a_damaged_record_is_named(client_id: object, record: bytes) -> None:
    with pytest.raises(CorruptSegment, match="session"):
        Session.unpacked(client_id, record)


# All sessions


def test_a_new_writer_finds_the_sessions(take_over: Callable[[], Owner], clock: Clock) -> None:
    owner = take_over()
    sessions = Sessions(owner, clock)
    mutate(owner, sessions, CLIENT, 3, 4)
    mutate(owner, sessions, OTHER, 9)
    found = Sessions(take_over(), clock)
    assert len(found) == 2
    assert found.attach(CLIENT).answers == {3: b"answer 3", 4: b"answer 4"}
    assert found.attach(OTHER).seen == 9


def test_a_damaged_session_stops_a_new_writer(owner: Owner, clock: Clock) -> None:
    owner.put(TABLE, NAMESPACE, CLIENT, b"\xc1")
    owner.commit()
    with pytest.raises(CorruptSegment):
        Sessions(owner, clock)


def test_a_session_is_the_same_for_the_next_connection(
    take_over: Callable[[], Owner], clock: Clock
) -> None:
    owner = take_over()
    mutate(owner, Sessions(owner, clock), CLIENT, 1)
    sessions = Sessions(take_over(), clock)
    session = sessions.attach(CLIENT)
    assert sessions.attach(CLIENT) is session
    assert sessions.due_seconds() is None


def test_sessions_of_the_writer_before_are_forgotten_in_time(
    take_over: Callable[[], Owner], clock: Clock
) -> None:
    owner = take_over()
    mutate(owner, Sessions(owner, clock), CLIENT, 1)
    mutate(owner, Sessions(owner, clock), OTHER, 1)
    owner = take_over()
    sessions = Sessions(owner, clock)
    assert sessions.due_seconds() == SESSION_SECONDS
    sessions.attach(OTHER)
    clock.now += SESSION_SECONDS - 1
    assert sessions.due_seconds() == 1
    sessions.sweep()
    assert stored(owner)
    clock.now += 1
    assert sessions.due_seconds() == 0
    sessions.sweep()
    assert not stored(owner)
    assert stored(owner, OTHER)


def test_a_client_of_the_writer_before_may_hang_up_and_come_back(
    take_over: Callable[[], Owner], clock: Clock
) -> None:
    owner = take_over()
    mutate(owner, Sessions(owner, clock), CLIENT, 1)
    owner = take_over()
    sessions = Sessions(owner, clock)
    session = sessions.attach(CLIENT)
    sessions.hang_up(session)  # it got no further than the hello
    sessions.sweep()
    assert sessions.attach(CLIENT) is session
    sessions.hang_up(session)
    clock.now += SESSION_SECONDS
    sessions.sweep()
    assert not stored(owner)


def test_a_client_that_hangs_up_is_forgotten_at_once(owner: Owner, sessions: Sessions) -> None:
    session = mutate(owner, sessions, CLIENT, 1)
    sessions.forget(session)
    assert sessions.due_seconds() == 0
    sessions.sweep()
    assert not stored(owner)
    assert len(sessions) == 0
    assert sessions.due_seconds() is None


def test_a_client_that_changed_nothing_leaves_nothing(owner: Owner, sessions: Sessions) -> None:
    before = owner.committed
    sessions.forget(sessions.attach(CLIENT))
    assert len(sessions) == 0
    assert sessions.due_seconds() is None
    assert owner.committed == before


def test_a_client_may_come_back_before_it_is_swept(owner: Owner, sessions: Sessions) -> None:
    sessions.forget(mutate(owner, sessions, CLIENT, 1))
    session = sessions.attach(CLIENT)
    assert (session.seen, session.answers) == (0, {})
    sessions.forget(session)
    sessions.sweep()
    assert not stored(owner)


def test_a_sweep_that_fails_leaves_the_records_and_the_service(
    owner: Owner, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions.forget(mutate(owner, sessions, CLIENT, 1))

    class Full:
        def commit(self) -> int:
            raise StoreFull("as asked")

        def __getattr__(self, name: str) -> Any:
            return getattr(owner, name)

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "_owner", Full())
        sessions.sweep()
    assert not owner.staged
    assert stored(owner)
    assert sessions.due_seconds() is None
