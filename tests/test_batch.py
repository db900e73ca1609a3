"""Group commit: together while all goes well, one at a time when it does not."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, cast

import pytest

from shmstore.engine import Owner
from shmstore.errors import InvalidRecord, ProtocolError, RecordNotFound, ShmstoreError, StoreFull
from shmstore.protocol import CLIENT_ID_BYTES, Answer, Request, parse_answer
from shmstore.writer import batch as batches
from shmstore.writer import trouble
from shmstore.writer.batch import Batch
from shmstore.writer.operations import Operations
from shmstore.writer.sessions import Session, Sessions
from tests.segments import nothing


class FakeOperations:
    """Few operations, some of which fail as real ones do not."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.applied: list[Any] = []

    def apply(self, operation: str, arguments: list[Any]) -> Any:
        table, namespace, *rest = arguments
        self.applied.append(rest[0] if rest else operation)
        if operation == "put":
            key, value = rest
            return self._owner.put(table, namespace, key, value)[0]
        if operation == "pop":
            found = self._owner.find(table, namespace, rest[0])
            if found is None:
                raise RecordNotFound("no such record")
            self._owner.remove(table, namespace, rest[0])
            return found.value
        if operation == "put_many":
            for key, value in rest[0]:
                if value == b"bad":
                    raise InvalidRecord("half way")
                self._owner.put(table, namespace, key, value)
            return self._owner.committed + 1
        if operation == "increment":
            raise ZeroDivisionError("a bug\nof ours")
        if operation == "clear":
            return self._owner.clear(table, namespace, [])
        raise AssertionError(operation)


class Receiver:
    """A client that notes what it is answered."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.answers: list[Answer] = []
        self.next_id = session.seen + 1

    def deliver(self, answer: bytes) -> None:
        self.answers.append(parse_answer(answer))

    @property
    def results(self) -> list[Any]:
        return [answer.error or answer.result for answer in self.answers]


class Bench:
    """A batch on a small segment, and the clients that use it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 1 << 20)
        self.owner = Owner.create(self.memory, nothing, nothing)
        self._begin()

    def _begin(self) -> None:
        self.operations = FakeOperations(self.owner)
        self.sessions = Sessions(self.owner, lambda: 0.0)
        self.batch = Batch(self.owner, cast(Operations, self.operations), self.sessions)

    def take_over(self) -> None:
        """The writer dies, and a new one continues."""
        self.owner.close()
        self.owner = Owner.take_over(self.memory, nothing, nothing)
        self._begin()

    def close(self) -> None:
        self.owner.close()
        self.memory.close()

    def client(self, name: bytes = b"one") -> Receiver:
        return Receiver(self.sessions.attach(name.ljust(CLIENT_ID_BYTES)))

    def add(
        self, client: Receiver, operation: str, *arguments: Any, oldest: int | None = None
    ) -> int:
        request_id, client.next_id = client.next_id, client.next_id + 1
        oldest = request_id if oldest is None else oldest
        self.batch.add(client, Request(request_id, oldest, operation, ["t", "", *arguments]))
        return request_id

    def get(self, key: bytes) -> bytes | None:
        return self.owner.reader.get(self.owner.reader.scope("t", ""), key)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


# Together


def test_requests_of_many_clients_are_one_batch(bench: Bench) -> None:
    clients = [bench.client(b"%d" % number) for number in range(5)]
    before = bench.owner.committed
    for number, client in enumerate(clients):
        bench.add(client, "put", b"%d" % number, b"\x01")
        bench.add(client, "put", b"%d too" % number, b"\x01")
    assert [client.answers for client in clients] == [[]] * 5
    assert bench.get(b"0") is None
    bench.batch.commit()
    assert bench.owner.committed == before + 1
    assert bench.batch.committed == 1
    assert [client.results for client in clients] == [[before + 1] * 2] * 5
    assert bench.get(b"4 too") == b"\x01"


def test_an_empty_batch_is_not_committed(bench: Bench) -> None:
    before = bench.owner.committed
    bench.batch.commit()
    assert bench.owner.committed == before


def test_each_version_of_a_key_is_unique(bench: Bench) -> None:
    client, other = bench.client(), bench.client(b"other")
    for value in (b"\x01", b"\x02"):
        bench.add(client, "put", b"k", value)
        bench.add(other, "put", b"k", value)
    bench.batch.commit()
    versions = client.results + other.results
    assert len(set(versions)) == 4
    assert bench.get(b"k") == b"\x02"


@pytest.mark.parametrize("pairs", [[[b"k", b"\x02"]], [[b"x", b"\x02"], [b"k", b"\x02"]]])
def test_a_key_among_many_counts(bench: Bench, pairs: list[list[bytes]]) -> None:
    client = bench.client()
    bench.add(client, "put", b"k", b"\x01")
    bench.add(client, "put_many", pairs)
    bench.batch.commit()
    assert len(set(client.results)) == 2


def test_a_request_may_name_a_key_twice(bench: Bench) -> None:
    client = bench.client()
    before = bench.owner.committed
    bench.add(client, "put_many", [[b"k", b"\x01"], [b"k", b"\x02"]])
    bench.batch.commit()
    assert bench.owner.committed == before + 1
    assert bench.get(b"k") == b"\x02"


def test_some_operations_are_a_batch_of_their_own(bench: Bench) -> None:
    client = bench.client()
    before = bench.owner.committed
    bench.add(client, "put", b"k", b"\x01")
    bench.add(client, "clear")
    assert bench.owner.committed == before + 2
    assert client.results == [before + 1, 1]
    bench.add(client, "put", b"k", b"\x01")
    assert len(client.answers) == 2


def test_a_batch_has_a_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "REQUESTS_MAX", 3)
    client = bench.client()
    for number in range(7):
        bench.add(client, "put", b"%d" % number, b"\x01")
    assert len(client.answers) == 6
    assert bench.batch.committed == 2


def test_large_answers_end_a_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    client = bench.client()
    bench.add(client, "put", b"a", bytes(200))
    bench.add(client, "put", b"b", bytes(200))
    bench.batch.commit()
    monkeypatch.setattr(batches, "ANSWER_BYTES_MAX", 300)
    bench.add(client, "pop", b"a")
    bench.add(client, "pop", b"b")
    assert client.results[2:] == [bytes(200)] * 2


@pytest.mark.parametrize(
    "arguments", [[], [[b"k"], b""], [None], [{}, b"\x01"], ["\ud800", b"\x01"], [7, 8, 9]]
)
@pytest.mark.parametrize("operation", ["put", "put_many", "delete_many"])
def test_arguments_that_make_no_sense_are_the_operations_to_refuse(
    bench: Bench, operation: str, arguments: list[Any]
) -> None:
    bench.operations.apply = refuse  # type: ignore[method-assign]
    client = bench.client()
    bench.add(client, operation, *arguments)
    bench.add(client, operation, *arguments)
    bench.batch.commit()
    assert [type(result) for result in client.results] == [InvalidRecord] * 2


def refuse(operation: str, arguments: list[Any]) -> Any:
    raise InvalidRecord("makes no sense")


# One at a time


def test_a_clean_failure_leaves_the_batch(bench: Bench) -> None:
    client, other = bench.client(), bench.client(b"other")
    bench.add(client, "put", b"a", b"\x01")
    bench.add(other, "pop", b"missing")
    bench.add(client, "put", b"b", b"\x01")
    bench.batch.commit()
    assert bench.batch.committed == 1
    assert isinstance(other.results[0], RecordNotFound)
    assert bench.operations.applied == [b"a", b"missing", b"b"]


def test_a_failure_half_way_takes_nobody_along(bench: Bench) -> None:
    client, other = bench.client(), bench.client(b"other")
    before = bench.owner.committed
    bench.add(client, "put", b"a", b"\x01")
    bench.add(client, "put", b"b", b"\x01")
    bench.add(other, "put_many", [[b"c", b"\x01"], [b"d", b"bad"]])
    bench.add(client, "put", b"e", b"\x01")
    bench.batch.commit()
    assert client.results == [before + 1, before + 2, before + 3]
    assert isinstance(other.results[0], InvalidRecord)
    assert [bench.get(key) for key in (b"a", b"b", b"c", b"e")] == [b"\x01", b"\x01", None, b"\x01"]


def test_a_failure_half_way_alone_changes_nothing(bench: Bench) -> None:
    client = bench.client()
    before = bench.owner.committed
    bench.add(client, "put_many", [[b"c", b"\x01"], [b"d", b"bad"]])
    bench.batch.commit()
    assert isinstance(client.results[0], InvalidRecord)
    assert bench.owner.committed == before
    assert not bench.owner.staged


def test_an_answer_that_cannot_be_sent_undoes_its_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = bench.client()
    bench.add(client, "put", b"a", bytes(200))
    bench.batch.commit()
    monkeypatch.setattr("shmstore.protocol.FRAME_BYTES_MAX", 150)
    bench.add(client, "pop", b"a")
    bench.batch.commit()
    assert isinstance(client.results[1], ShmstoreError)
    assert bench.get(b"a") == bytes(200)


def test_who_does_not_fit_is_refused_and_the_others_served(bench: Bench) -> None:
    small, large = bench.client(b"small"), bench.client(b"large")
    for number in range(5):
        bench.add(small, "put", b"small %d" % number, b"\x01")
        bench.add(large, "put", b"large %d" % number, bytes(300_000))
    bench.batch.commit()
    stored = [bench.get(b"large %d" % number) is not None for number in range(5)]
    assert [isinstance(result, StoreFull) for result in large.results] == [not x for x in stored]
    assert stored[0]
    assert not all(stored)
    assert [bench.get(b"small %d" % number) for number in range(5)] == [b"\x01"] * 5
    assert not any(isinstance(result, ShmstoreError) for result in small.results)


class Watched:
    """An owner one of whose methods is another."""

    def __init__(self, owner: Owner, **methods: Callable[[], int]) -> None:
        self._owner = owner
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._owner, name)


def full_beyond(owner: Owner, changes_max: int) -> Callable[[], int]:
    commit = owner.commit

    def limited() -> int:
        if owner.changes > changes_max:
            owner.abort()
            raise StoreFull("does not fit")
        return commit()

    return limited


def test_a_commit_that_does_not_fit_is_taken_apart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = bench.client(), bench.client(b"other")
    pairs = [[b"%d" % number, b"\x01"] for number in range(20)]
    watched = Watched(bench.owner, commit=full_beyond(bench.owner, 10))
    monkeypatch.setattr(bench.batch, "_owner", watched)
    bench.add(client, "put", b"a", b"\x01")
    bench.add(other, "put_many", pairs)
    bench.add(client, "put", b"b", b"\x01")
    assert client.answers == []
    bench.batch.commit()
    assert len(set(client.results)) == 2
    assert isinstance(other.results[0], StoreFull)
    assert (bench.get(b"a"), bench.get(b"b"), bench.get(b"0")) == (b"\x01", b"\x01", None)
    assert other.session.answers == {}


def test_a_bug_of_ours_is_answered_and_logged_in_one_line(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "_lines_logged", 0)
    client = bench.client()
    bench.add(client, "put", b"a", b"\x01")
    bench.add(client, "increment")
    bench.batch.commit()
    assert type(client.results[1]) is ShmstoreError
    assert "ZeroDivisionError" in str(client.results[1])
    assert bench.get(b"a") == b"\x01"
    logged = capsys.readouterr().err
    assert logged.count("\n") == 1
    assert "a bug of ours" in logged


def test_the_log_ends_before_it_fills_what_nobody_reads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "_lines_logged", 0)
    for number in range(trouble.LOG_LINES_MAX + 5):
        trouble.log(f"line {number}")
    assert capsys.readouterr().err.count("\n") == trouble.LOG_LINES_MAX


def test_a_log_that_is_closed_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "_lines_logged", 0)
    monkeypatch.setattr("sys.stderr", None)
    trouble.log("nobody hears this")


# Exactly once


def test_what_is_sent_again_to_a_new_writer_is_applied_once(bench: Bench) -> None:
    client = bench.client()
    bench.add(client, "put", b"a", b"\x01")
    bench.batch.commit()
    bench.add(client, "pop", b"a", oldest=1)
    bench.add(client, "pop", b"missing", oldest=1)
    bench.add(client, "put", b"a", b"\x02", oldest=1)
    bench.batch.commit()
    said = client.results
    bench.take_over()
    client = bench.client()
    client.next_id = 1
    before = bench.owner.committed
    bench.add(client, "put", b"a", b"\x01", oldest=1)
    bench.add(client, "pop", b"a", oldest=1)
    bench.add(client, "pop", b"missing", oldest=1)
    bench.add(client, "put", b"a", b"\x02", oldest=1)
    bench.batch.commit()
    assert [str(result) for result in client.results] == [str(result) for result in said]
    assert bench.owner.committed == before
    assert bench.operations.applied == []
    bench.add(client, "put", b"b", b"\x03")
    bench.batch.commit()
    assert bench.get(b"a") == b"\x02"
    assert bench.get(b"b") == b"\x03"


def test_what_was_not_committed_is_applied_by_the_new_writer(bench: Bench) -> None:
    client = bench.client()
    bench.add(client, "put", b"a", b"\x01")
    bench.batch.commit()
    bench.add(client, "put", b"b", b"\x01")
    bench.owner.abort()
    bench.take_over()
    client = bench.client()
    client.next_id = 2
    bench.add(client, "put", b"b", b"\x01")
    bench.batch.commit()
    assert bench.operations.applied == [b"b"]
    assert bench.get(b"b") == b"\x01"


def test_the_record_never_speaks_of_what_was_taken_back(bench: Bench) -> None:
    """A writer killed while it applies a batch one by one must find only what it had done."""
    client = bench.client()
    bench.add(client, "put", b"a", b"\x01", oldest=1)
    bench.add(client, "put", b"b", b"\x01", oldest=1)
    commit = bench.owner.commit
    deaths: list[int] = []

    def die_after_the_first() -> int:
        if deaths:
            raise KeyboardInterrupt
        deaths.append(1)
        return commit()

    bench.batch._owner = Watched(bench.owner, commit=die_after_the_first)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        bench.add(client, "put_many", [[b"c", b"\x01"], [b"d", b"bad"]], oldest=1)
    bench.take_over()
    session = bench.client().session
    assert (session.seen, list(session.answers)) == (1, [1])
    assert (bench.get(b"a"), bench.get(b"b")) == (b"\x01", None)


def test_a_received_answer_is_not_kept(bench: Bench) -> None:
    client = bench.client()
    for number in range(5):
        bench.add(client, "put", b"%d" % number, b"\x01")
    bench.batch.commit()
    assert list(client.session.answers) == [5]
    client.next_id = 2
    with pytest.raises(ProtocolError, match="request 2 was sent before"):
        bench.add(client, "put", b"2", b"\x01")


def test_the_same_request_twice_in_one_batch_is_refused(bench: Bench) -> None:
    client = bench.client()
    bench.add(client, "put", b"1", b"\x01")
    client.next_id = 1
    with pytest.raises(ProtocolError):
        bench.add(client, "put", b"1", b"\x01")
    bench.batch.commit()
    assert len(client.answers) == 1


def test_failures_alone_are_not_recorded(bench: Bench) -> None:
    client = bench.client()
    before = bench.owner.committed
    bench.add(client, "pop", b"missing")
    bench.batch.commit()
    assert bench.owner.committed == before
    assert not client.session.stored
    assert list(client.session.answers) == [1]
