"""Waiting for a record to change: who is told, when, and what a wait must not hold up."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing
from types import ModuleType
from typing import Any

import pytest

from shmstore import (
    InvalidArgument,
    InvalidKey,
    LimitReached,
    ProtocolError,
    RequestTimeout,
    ShmstoreError,
    WriterUnavailable,
    processes,
)
from shmstore.protocol import IN_FLIGHT_MAX, WAIT_ID_MIN, WAITS_MAX, parse_answer
from shmstore.writer.border import Place
from shmstore.writer.holders import LOOK_SECONDS
from shmstore.writer.waits import Waits
from tests.children import forked
from tests.segments import Segment
from tests.test_loop import ONE, Bench
from tests.waiting import eventually, writer_of

SHORT = 0.02


class Waiting:
    """A thread that waits for a change, and what came of it."""

    def __init__(self, table, key: Any, version: int | None = 0) -> None:
        self._outcome: Any = None
        self._thread = threading.Thread(target=self._run, args=(table, key, version))
        self._thread.start()

    def _run(self, table, key, version) -> None:
        try:
            self._outcome = table.wait_changed(key, version)
        except BaseException as error:
            self._outcome = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def outcome(self) -> Any:
        self._thread.join()
        return self._outcome


@pytest.fixture
def table(client):
    return client.table("t")


@pytest.fixture
def others(server):
    """The table as another client has it."""
    with server.connect() as other:
        yield other.table("t")


def until_waits(table, number: int) -> None:
    """Return when the writer knows of so many waits."""
    eventually(lambda: table._handle.stats()["waits"] == number)


def many(table):
    with table.pipeline() as pipeline:
        for n in range(600):
            pipeline[f"{n}"] = n
        pipeline["k"] = 2


def transact(table):
    with table._handle.transaction() as transaction:
        transaction.table("u")["x"] = 1
        transaction.table("t").delete("k")


CHANGES = {
    "put": lambda table: table.put("k", 2),
    "put_many": lambda table: table.put_many({"k": 2, "b": 3}),
    "delete": lambda table: table.delete("k"),
    "delete_many": lambda table: table.delete_many(["a", "k"]),
    "pop": lambda table: table.pop("k"),
    "popitem": lambda table: table.popitem(),
    "increment": lambda table: table.increment("k"),
    "compare_and_swap": lambda table: table.compare_and_swap("k", table.version("k"), 5),
    "clear": lambda table: table.clear(),
    "transaction": transact,
    "pipeline": many,
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_mutation_is_told_of(table, others, change):
    table.put_many({"a": 1, "k": 1})
    version = table.version("k")
    waiting = Waiting(table, "k", version)
    until_waits(others, 1)
    CHANGES[change](others)
    assert waiting.outcome() == others.version("k") != version
    until_waits(others, 0)


@pytest.mark.parametrize("insert", ["insert_new", "setdefault"])
def test_what_is_missing_can_be_waited_for(table, others, insert):
    waiting = Waiting(table, b"k", None)
    until_waits(others, 1)
    others[b"other"] = others["k"] = 1
    assert waiting.waits
    getattr(others, insert)(b"k", 2)
    assert waiting.outcome() == table.version(b"k")


def test_what_has_changed_already_is_told_at_once(table, others):
    assert table.wait_changed("k", 17) == 0
    others["k"] = 1
    assert table.wait_changed("k") == table.version("k")
    assert "wait" not in others._handle.stats()["requests"]


def test_the_writer_looks_once_more(table, others):
    version = others.put("k", 1)
    arguments = ["t", "", "k", 0]
    assert others._handle.wait_changed(arguments, None) == version


def test_a_store_s_records_can_be_waited_for(client, table, others):
    found: list[int] = []
    arguments = ["hooks", "ns", "id", 0]
    thread = threading.Thread(target=lambda: found.append(client.wait_changed(arguments, None)))
    thread.start()
    until_waits(others, 1)
    record = b"\x82\xa2id\xa2id\xa7created\x01"
    others._handle.call("upsert", ["hooks", "ns", "id", record])
    thread.join()
    assert found[0] > 0


def test_a_wait_that_lasts_too_long_is_forgotten(table, others):
    with pytest.raises(RequestTimeout, match=r"no change of 'k' in table 't' within 0\.02 s"):
        table.wait_changed("k", timeout=SHORT)
    with pytest.raises(TimeoutError):
        table.wait_changed("k", 0, SHORT)
    until_waits(others, 0)
    others["k"] = 1
    assert table["k"] == 1


def test_a_wait_is_not_bound_by_the_client_s_time_limit(table, others):
    table._handle.timeout = SHORT
    waiting = Waiting(table, "k")
    until_waits(others, 1)
    waiting._thread.join(4 * SHORT)
    assert waiting.waits
    others["k"] = 1
    assert waiting.outcome() > 0


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
def test_a_senseless_time_limit(table, timeout):
    with pytest.raises(InvalidArgument):
        table.wait_changed("k", 5, timeout)


@pytest.mark.parametrize(
    ("key", "version", "error"),
    [(1, 0, InvalidKey), ("k", -1, InvalidArgument), ("k", "1", InvalidArgument)],
)
def test_senseless_arguments(table, key, version, error):
    with pytest.raises(error):
        table.wait_changed(key, version)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [([], ProtocolError), (["t", "", "k"], ProtocolError), (["t", "", 7, 0], InvalidKey),
     (["", "", "k", 0], InvalidKey), (["t", 1, "k", 0], InvalidKey),
     (["t", "", "k", None], InvalidArgument), (["t", "", "k", -1], InvalidArgument)],
)  # fmt: skip
def test_hostile_waits(client, arguments, error):
    with pytest.raises(error):
        client.wait_changed(arguments, 30.0)
    assert client.stats()["waits"] == 0


def test_blocks_do_not_wait(client, table):
    with pytest.raises(ShmstoreError, match="mutations only"), table.pipeline() as pipeline:
        pipeline.wait_changed("k")
    with pytest.raises(ShmstoreError), client.transaction() as transaction:
        transaction.wait_changed(["t", "", "k", 0], None)


# What a wait must not hold up


def test_any_number_of_threads_wait_while_others_work(table, others):
    waiting = [Waiting(table, f"w{n % 7}") for n in range(IN_FLIGHT_MAX + 44)]
    until_waits(others, len(waiting))
    for n in range(2 * IN_FLIGHT_MAX):
        table["k"] = n
    with table.pipeline() as pipeline:
        for n in range(2 * IN_FLIGHT_MAX):
            pipeline["k"] = n
    assert table.pop("k") == n
    assert all(each.waits for each in waiting)
    version = table.put_many({f"w{n}": 1 for n in range(7)})
    assert {each.outcome() for each in waiting} == {version}
    until_waits(others, 0)


def test_a_request_that_no_socket_takes_at_once_goes_out_while_others_wait(table, others):
    """Who receives for all has nothing to receive, and does not see that there is more to send."""
    waiting = Waiting(table, "k")
    until_waits(others, 1)
    table["big"] = value = bytes(3_000_000)
    assert table["big"] == value
    others["k"] = 1
    waiting.outcome()


def test_waits_that_no_socket_takes_at_once_are_begun(server, table, others):
    pid = writer_of(server)
    os.kill(pid, signal.SIGSTOP)
    keys = [f"{n}" * 20_000 for n in range(10)] * 3
    waiting = [Waiting(table, key) for key in keys]
    eventually(lambda: table._handle._pipe._courier.awake)
    os.kill(pid, signal.SIGCONT)
    until_waits(others, len(keys))
    version = others.put_many(dict.fromkeys(keys, 1))
    assert {each.outcome() for each in waiting} == {version}


def test_answers_are_forgotten_while_somebody_waits(server, table, others):
    """What a session remembers does not grow, so writers after this one start as fast."""
    table["k"] = 0
    waiting = Waiting(table, "never")
    until_waits(others, 1)
    used = others._handle.stats()["used"]
    for n in range(2 * IN_FLIGHT_MAX):
        table["k"] = n
    assert others._handle.stats()["used"] < used + 4096
    others["never"] = 1
    waiting.outcome()


def test_the_leader_may_be_who_waits_and_leave(table, others):
    first, second = Waiting(table, "a"), Waiting(table, "b")
    until_waits(others, 2)
    others["a"] = 1
    first.outcome()
    table["k"] = 1
    others["b"] = 1
    second.outcome()


# Ends


def test_it_outlasts_writers(server, table, others):
    waiting = Waiting(table, "k")
    until_waits(others, 1)
    for n in range(3):
        os.kill(writer_of(server), signal.SIGKILL)
        others["other"] = n
        until_waits(others, 1)
    others["k"] = 1
    assert waiting.outcome() == table.version("k")


def test_a_change_that_the_dead_writer_did_not_tell_of_is_told(server, table, others):
    waiting = Waiting(table, "k")
    until_waits(others, 1)
    os.kill(table._handle.stats()["pid"], signal.SIGKILL)
    others["k"] = 1
    assert waiting.outcome() == table.version("k")


def test_it_ends_with_the_server(table, others, server):
    waiting = Waiting(table, "k")
    until_waits(others, 1)
    server.close()
    assert isinstance(waiting.outcome(), WriterUnavailable)
    with pytest.raises(WriterUnavailable):
        table.wait_changed("k")


def test_it_ends_with_the_client(client, table, others):
    waiting = Waiting(table, "k")
    until_waits(others, 1)
    client.close()
    assert isinstance(waiting.outcome(), WriterUnavailable)
    until_waits(others, 0)
    with pytest.raises(WriterUnavailable):
        table.wait_changed("k")


def test_it_is_forgotten_with_its_process(table, others):
    with forked(lambda: Waiting(table, "k"), wait=False) as child:
        until_waits(others, 1)
        child.kill()
        until_waits(others, 0)


class Interruption(BaseException):
    pass


@pytest.mark.parametrize("leads", [True, False])
def test_an_interrupted_wait_is_forgotten_and_those_of_other_threads_go_on(table, others, leads):
    """Whether or not it is the interrupted thread that receives for all."""

    def interrupt(number, frame):
        raise Interruption

    def interrupt_when_both_wait():
        if leads:
            until_waits(others, 1)
            second.append(Waiting(table, "b"))
        until_waits(others, 2)
        os.kill(os.getpid(), signal.SIGALRM)

    second: list[Waiting] = []
    if not leads:
        second.append(Waiting(table, "b"))
        until_waits(others, 1)
    thread = threading.Thread(target=interrupt_when_both_wait)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        thread.start()
        with pytest.raises(Interruption):
            table.wait_changed("a")
    finally:
        thread.join()
        signal.signal(signal.SIGALRM, before)
    until_waits(others, 1)
    assert second[0].waits
    others["b"] = 1
    assert second[0].outcome() > 0


def test_a_connection_that_was_given_up_ends_no_wait(table, others):
    """As by a thread that was interrupted while it sent, before the one that leads receives."""
    table["k"] = 1
    table._handle._pipe._connection.torn = True
    waiting = Waiting(table, "a")
    until_waits(others, 1)
    others["a"] = 1
    assert waiting.outcome() > 0


def test_after_a_fork_both_may_wait(table, others):
    waiting = Waiting(table, "a")
    until_waits(others, 1)
    with forked(lambda: table.wait_changed("b"), wait=False) as child:
        until_waits(others, 2)
        others["b"] = 1
        child.wait_done()
    others["a"] = 1
    assert waiting.outcome() > 0


# What the writer keeps


class Ear:
    """A peer that hears answers."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Any]] = []

    def deliver(self, answer: bytes) -> None:
        parsed = parse_answer(answer)
        self.heard.append((parsed.id, parsed.result))


@pytest.fixture
def segment(engine: ModuleType):
    opened = Segment(engine)
    yield opened
    opened.close()


PLACE = Place("t", "")


def test_a_peer_may_wait_for_so_many_and_another_one_for_as_many(segment):
    waits: Waits[Ear] = Waits(segment.owner)
    first, second = Ear(), Ear()
    for n in range(WAITS_MAX):
        assert waits.begin(first, n, PLACE, f"{n}", 0) is None
        assert waits.begin(second, n, PLACE, "k", 0) is None
    with pytest.raises(LimitReached, match="1024"):
        waits.begin(first, WAITS_MAX, PLACE, "k", 0)
    waits.end(first, 5)
    assert waits.begin(first, WAITS_MAX, PLACE, "k", 0) is None
    segment.put("k", b"\x01")
    assert waits.wake() == [second, first]
    assert len(second.heard) == WAITS_MAX
    assert first.heard == [(WAITS_MAX, 1)]
    assert len(waits) == WAITS_MAX - 1
    assert waits.begin(first, WAITS_MAX, PLACE, "k", 0) == 1
    waits.end_all(first)
    assert not waits._records
    assert not waits._waiters


def test_a_wait_that_is_begun_again_takes_the_place_of_the_first(segment):
    waits: Waits[Ear] = Waits(segment.owner)
    ear = Ear()
    waits.begin(ear, 1, PLACE, "a", 0)
    waits.begin(ear, 1, PLACE, "b", 0)
    segment.put("a", b"\x01")
    assert waits.wake() == []
    segment.put("b", b"\x01")
    assert waits.wake() == [ear]
    assert ear.heard == [(1, 2)]
    waits.end(ear, 1)
    waits.end_all(Ear())


# Turn by turn


@pytest.fixture
def bench(runtime_dir):
    with closing(Bench(runtime_dir)) as opened:
        yield opened


def told(talker) -> list[tuple[int, Any]]:
    return [(answer.id, answer.result) for answer in talker.heard()]


def test_a_change_is_told_of_in_the_turn_in_which_it_is_committed(bench):
    """Whether the engine applied it by itself, in one step or with others, or not."""
    waiter, other, third = (bench.talker(number) for number in (1, 2, 3))
    other.ask("put", "t", "", b"first", ONE)
    for n, send in enumerate(
        (
            lambda: other.put(b"k"),
            lambda: [other.put(b"k"), third.put(b"l")],
            lambda: other.send("transaction", ["put", ["t", "", b"k", ONE]]),
            lambda: other.send("delete", "t", "", b"k"),
        )
    ):
        version = bench.owner.reader.version(bench.owner.reader.scope("t", ""), b"k") or 0
        wait_id = waiter.send("wait", "t", "", b"k", version, request_id=WAIT_ID_MIN + n)
        bench.turns(2)
        assert told(waiter) == []
        send()
        bench.turns(1)
        assert told(waiter) == [(wait_id, 0 if n == 3 else bench.owner.committed)]


def test_the_end_of_a_holder_is_told_of_in_the_turn_in_which_it_is_seen(bench, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    waiter = bench.talker()
    with forked(lambda: None) as child:
        sight = processes.look(child.pid)
        assert sight is not None
        holder = bench.loop._holders.hold(child.pid, sight.start)
        version = waiter.ask("insert", "t", "", b"k", ONE, holder)
        wait_id = waiter.send("wait", "t", "", b"k", version, request_id=WAIT_ID_MIN)
        bench.turns(2)
        child.kill()
        bench.clock.now += LOOK_SECONDS
        bench.turns(1)
        assert told(waiter) == [(wait_id, 0)]
