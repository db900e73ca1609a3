"""Records that are there as long as a process is: made, kept, and gone with it, however it ends."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from types import ModuleType
from typing import Any

import pytest

import shmstore
from shmstore import InvalidArgument, ProcessUnseen, ProtocolError, StoreFull, processes
from shmstore.errors import CorruptSegment
from shmstore.pipe import Pipe
from shmstore.processes import Sight, holder_of, look
from shmstore.writer.holders import LOOK_SECONDS, PIN_SECONDS, Holders
from shmstore.writer.operations import Operations
from shmstore.writer.ties import HOLDERS, SWEEP_LEAST, TABLE
from shmstore.writer.ties import NAMESPACE as TIES
from tests.children import forked
from tests.desk import Desk, open_desk
from tests.waiting import eventually, writer_of

MANY = 24


@pytest.fixture
def table(client):
    return client.table("claims")


def claim(table, key="claim") -> None:
    assert table.insert_new(key, os.getpid(), while_alive=True)


def sight_of(pid: int | str) -> Sight:
    """Return what /proc says of a process that is there."""
    sight = look(pid)
    assert sight is not None
    return sight


# What processes see


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_record_goes_with_its_process_though_nobody_waits_for_the_zombie(table, end):
    with forked(lambda: claim(table)) as child:
        version = table.version("claim")
        assert table["claim"] == child.pid
        os.kill(child.pid, end)
        assert table.wait_changed("claim", version) == 0
        assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie still
    assert len(table) == 0


def test_it_goes_with_a_process_that_ends_as_it_should(table):
    pid = os.fork()
    if pid == 0:
        claim(table)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    eventually(lambda: "claim" not in table)


def test_only_one_gets_a_claim_and_the_next_one_after_its_end(table):
    with forked(lambda: claim(table)) as child:
        version = table.version("claim")
        assert not table.insert_new("claim", "mine", while_alive=True)
        child.kill()
        table.wait_changed("claim", version)
        assert table.insert_new("claim", "mine", while_alive=True)
    assert table["claim"] == "mine"


def test_many_processes_die_at_once(table, client):
    with ExitStack() as stack:
        children = [
            stack.enter_context(forked(partial(claim, table, f"{n}"), wait=False))
            for n in range(MANY)
        ]
        for child in children:
            child.wait_done()
        assert len(table) == client.stats()["holders"] == MANY
        claim(table, "mine")
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        eventually(lambda: list(table) == ["mine"] and client.stats()["holders"] == 1)
    assert client.check() == []


def test_it_outlives_its_client(server, table):
    with server.connect() as other:
        claim(other.table("claims"))
    eventually(lambda: server.client.stats()["connections"] == 2)
    assert table["claim"] == os.getpid()


def test_whoever_replaces_the_value_leaves_the_tie(table):
    with forked(lambda: claim(table)) as child:
        table["claim"] = {"n": 1}
        table.patch("claim", n=2)
        version = table.version("claim")
        child.kill()
        assert table.wait_changed("claim", version) == 0


def test_who_deletes_it_ends_the_tie(table, client):
    def insert():
        claim(table)
        claim(table, "other")

    with forked(insert) as child:
        del table["claim"]
        table["claim"] = "nobody's"
        version = table.version("other")
        child.kill()
        assert table.wait_changed("other", version) == 0
    assert table.copy() == {"claim": "nobody's"}


def test_one_that_did_not_insert_ties_nothing(table):
    table["claim"] = "there"

    def insert():
        assert not table.insert_new("claim", 1, while_alive=True)
        claim(table, "own")

    with forked(insert) as child:
        version = table.version("own")
        child.kill()
        table.wait_changed("own", version)
    assert table.copy() == {"claim": "there"}


def test_a_forked_child_ties_to_itself(table):
    claim(table, "parent's")
    with forked(lambda: claim(table)) as child:
        version = table.version("claim")
        child.kill()
        table.wait_changed("claim", version)
        assert list(table) == ["parent's"]
        assert table["parent's"] == os.getpid()


def test_pipelines_and_transactions_tie_too(client, table):
    def insert():
        with table.pipeline() as pipeline:
            pipeline.insert_new("a", 1, while_alive=True)
            pipeline.insert_new("b", 1)
        with client.transaction() as transaction:
            transaction.table("claims").insert_new("c", 1, while_alive=True)
            transaction.table("claims")["d"] = 1

    with forked(insert) as child:
        version = table.version("c")
        child.kill()
        table.wait_changed("c", version)
    eventually(lambda: list(table) == ["b", "d"])


def test_the_next_writer_keeps_what_is_held(server, table):
    with forked(lambda: claim(table)) as child:
        for _ in range(3):
            os.kill(writer_of(server), signal.SIGKILL)
            table.put("new writer", 1)
            assert table["claim"] == child.pid
        version = table.version("claim")
        child.kill()
        assert table.wait_changed("claim", version) == 0


def test_the_next_writer_drops_what_was_held_by_who_died_meanwhile(server, table, client):
    with forked(lambda: claim(table)) as child:
        claim(table, "mine")
        pid = writer_of(server)
        os.kill(pid, signal.SIGSTOP)
        version = table.version("claim")
        child.kill()
        assert table["claim"] == child.pid
        os.kill(pid, signal.SIGKILL)
        assert table.wait_changed("claim", version) == 0
    assert list(table) == ["mine"]
    assert client.stats()["holders"] == 1


def test_a_process_that_the_writer_does_not_see_is_told(table, monkeypatch):
    own = sight_of("self")
    monkeypatch.setattr(processes, "look", lambda: Sight(own.start + 1, False))
    with pytest.raises(ProcessUnseen, match="containers"):
        claim(table)
    monkeypatch.setattr(processes, "look", lambda: None)
    with pytest.raises(ProcessUnseen, match="/proc"):
        claim(table)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [([], ProtocolError), ([1, 2], ProtocolError), ([None], InvalidArgument),
     ([-1], InvalidArgument), ([1 << 64 - 1], ProcessUnseen), ([True], InvalidArgument)],
)  # fmt: skip
def test_hostile_holds(client, arguments, error):
    with pytest.raises(error):
        client.call("hold", arguments)
    assert client.stats()["holders"] == 0


@pytest.mark.parametrize("holder", [b"", b"x" * 15, "x" * 16, 7, b"\xff" * 16])
def test_hostile_holders(client, holder):
    with pytest.raises(InvalidArgument):
        client.call("insert", ["t", "", "k", b"\x01", holder])
    assert "k" not in client.table("t")
    assert client.check() == []


def test_the_process_table_is_read_right():
    own = sight_of("self")
    assert own == look() == look(os.getpid()) == Sight(own.start, False)
    assert look(2**30) is None
    with forked(lambda: None) as child:
        started = sight_of(child.pid)
        assert not started.ended
        child.kill()
        assert look(child.pid) == Sight(started.start, True)


# Where the writer has no descriptor that tells of an end, or no room


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watch:
    """What the loop does for holders."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        self.handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        del self.handlers[fd]

    def turn(self) -> None:
        """Call the handlers of what can be read."""
        for fd in select.select(list(self.handlers), [], [], 0)[0]:
            self.handlers[fd]()


class Office:
    """A desk with holders."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.clock = Clock()
        self.watch = Watch()
        self.holders = self._open(desk.owner)

    def _open(self, owner: Any) -> Holders:
        return Holders(owner, Operations(owner), self.watch, self.clock)

    def insert(self, key: str, holder: bytes) -> None:
        assert self.desk.plain("insert", key, b"\x01", holder)

    def take_over(self) -> None:
        self.holders.close()
        self.desk.take_over()
        self.holders = self._open(self.desk.owner)

    def tidy(self) -> None:
        """Do what is due, when it is due."""
        self.watch.turn()
        assert self.holders.look_at is not None
        self.clock.now = max(self.clock.now, self.holders.look_at)
        self.holders.tidy()

    def names(self, namespace: str) -> list[Any]:
        return self.desk.keys(namespace, table=TABLE)


@pytest.fixture
def office(engine: ModuleType) -> Iterator[Office]:
    with open_desk(engine) as desk:
        opened = Office(desk)
        yield opened
        opened.holders.close()


def hold(office: Office, pid: int) -> bytes:
    return office.holders.hold(pid, sight_of(pid).start)


def test_a_descriptor_tells_of_the_end(office):
    with forked(lambda: None) as child:
        holder = hold(office, child.pid)
        office.insert("k", holder)
        assert office.names(HOLDERS) == [holder]
        assert office.holders.look_at is None
        office.watch.turn()
        assert office.desk.keys() == ["k"]
        child.kill()
        office.tidy()
    assert office.desk.keys() == office.names(TIES) == office.names(HOLDERS) == []
    assert not office.watch.handlers
    assert len(office.holders) == 0


@pytest.mark.parametrize("missing", ["function", "call", "memory"])
def test_without_a_descriptor_the_process_table_tells(office, monkeypatch, missing):
    def refuse(*arguments):
        raise OSError

    if missing == "function":
        monkeypatch.delattr(os, "pidfd_open")
    elif missing == "call":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    else:
        monkeypatch.setattr(Watch, "watch", refuse)
    with forked(lambda: None) as child:
        office.insert("k", hold(office, child.pid))
        assert hold(office, child.pid) == office.names(HOLDERS)[0]  # once
        office.tidy()
        assert office.desk.keys() == ["k"]
        assert office.holders.look_at == office.clock.now + LOOK_SECONDS
        child.kill()
        office.tidy()
        assert office.desk.keys() == []
        assert office.holders.look_at is None


def test_what_cannot_be_looked_at_has_not_ended(office, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    with forked(lambda: None) as child:
        office.insert("k", hold(office, child.pid))
        child.kill()
        with monkeypatch.context() as patch:

            def refuse(pid):
                raise OSError

            patch.setattr("shmstore.writer.holders.look", refuse)
            office.tidy()
            assert office.desk.keys() == ["k"]
        office.tidy()
        assert office.desk.keys() == []


def test_an_id_that_was_used_again_is_another_process(office):
    with forked(lambda: None) as child:
        old = holder_of(child.pid, sight_of(child.pid).start - 1)
        office.desk.owner.put(TABLE, HOLDERS, old, b"\x90")
        office.insert("k", old)
        office.take_over()
        office.tidy()
        assert office.desk.keys() == office.names(HOLDERS) == []


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_what_has_no_room_to_go_together_goes_one_by_one_or_later(office, failures):
    class Full:
        """An owner that has no room for the next commits."""

        left = failures

        def __init__(self, owner):
            self.owner = owner

        def __getattr__(self, name):
            return getattr(self.owner, name)

        def commit(self):
            if self.left:
                self.left -= 1
                self.owner.abort()
                raise StoreFull("no room")
            return self.owner.commit()

    with forked(lambda: None) as child:
        holder = hold(office, child.pid)
        for key in "abc":
            office.insert(key, holder)
        child.kill()
        office.holders.close()
        office.holders = office._open(Full(office.desk.owner))
        office.tidy()
        assert (office.desk.keys() == []) is (failures == 1)
        while office.holders.look_at is not None:
            office.tidy()
    assert office.desk.keys() == office.names(TIES) == office.names(HOLDERS) == []


def pin(office: Office, key: str, holder: bytes) -> int:
    """Pin the value of a record, which is made; return its granule."""
    office.desk.plain("put", key, b"\x01")
    granule, *_ = office.desk.plain("pin", key, holder)
    return int(granule)


def test_pins_outlast_their_holder_for_a_while_and_ties_do_not(office):
    """So a child that was just forked can share them."""
    own = hold(office, os.getpid())
    with forked(lambda: None) as child:
        holder = hold(office, child.pid)
        office.insert("tied", holder)
        granule, other = pin(office, "k", holder), pin(office, "l", holder)
        child.kill()
        office.tidy()
    assert office.desk.keys() == ["k", "l"]
    assert office.names(TIES) == []
    assert office.holders.share(own, [granule]) == []
    assert [each[0] for each in office.desk.owner.pins()].count(holder) == 2
    office.clock.now += PIN_SECONDS
    office.tidy()
    assert office.desk.owner.pins() == [(own, granule, 1)]
    assert office.names(HOLDERS) == [own]
    assert office.holders.share(own, [granule, other]) == [other]
    assert office.holders.unpin(own, [granule, other]) == 1
    assert office.desk.owner.pins() == []


def test_the_pins_of_one_who_died_while_there_was_no_writer_are_kept_for_the_same_while(office):
    with forked(lambda: None) as child:
        holder = hold(office, child.pid)
        pin(office, "k", holder)
        child.kill()
    office.take_over()
    office.tidy()
    assert len(office.desk.owner.pins()) == 1
    office.clock.now += PIN_SECONDS
    office.tidy()
    assert office.desk.owner.pins() == office.names(HOLDERS) == []


def test_a_process_that_has_ended_holds_nothing_new(office):
    with forked(lambda: None) as child:
        start = sight_of(child.pid).start
        child.kill()
        with pytest.raises(ProcessUnseen):
            office.holders.hold(child.pid, start)
    with pytest.raises(InvalidArgument, match="has ended"):
        office.holders.share(holder_of(child.pid, start), [])


def test_a_full_store_shares_nothing_by_half(office, monkeypatch):
    own = hold(office, os.getpid())
    granule = pin(office, "k", own)

    class Full:
        def share_pin(self, *arguments):
            office.desk.owner.share_pin(*arguments)
            raise StoreFull("no room")

        def __getattr__(self, name):
            return getattr(office.desk.owner, name)

    monkeypatch.setattr(office.holders, "_owner", Full())
    with pytest.raises(StoreFull):
        office.holders.share(own, [granule])
    assert not office.desk.owner.staged


def test_ties_of_records_that_are_gone_do_not_pile_up(office):
    holder = hold(office, os.getpid())
    office.insert("kept", holder)
    for n in range(3 * SWEEP_LEAST):
        office.insert("k", holder)
        office.desk.plain("delete", "k")
        assert len(office.names(TIES)) <= SWEEP_LEAST, n
    [tie] = [each for each in office.holders._ties.of(holder) if each.key == "kept"]
    assert not office.holders._ties.is_stale(tie)


def test_a_store_s_records_can_be_tied(office):
    with forked(lambda: None) as child:
        holder = hold(office, child.pid)
        office.desk.store("declare", ["status"], namespace="")
        record = b"\x83\xa2id\xa1k\xa7created\x01\xa6status\xa1s"
        office.desk.store("insert", "k", record, holder)
        assert office.desk.find(status="s") == ["k"]
        child.kill()
        office.take_over()
        office.tidy()
    assert office.desk.find(status="s") == office.desk.keys("test") == []


@pytest.mark.parametrize("name", ["text", b"short"])
def test_damaged_holders_and_ties_are_said_to_be_damaged(engine, name):
    desk = Desk(engine)
    desk.owner.put(TABLE, HOLDERS, name, b"\xc0")
    desk.owner.commit()
    with pytest.raises(CorruptSegment, match="holder"):
        Office(desk)
    desk.owner.remove(TABLE, HOLDERS, name)
    desk.owner.put(TABLE, TIES, name, b"\xc0")
    desk.owner.commit()
    with pytest.raises(CorruptSegment, match="tie"):
        Office(desk).holders._ties.of(b"")
    desk.segment.close()


def test_its_errors_are_the_built_in_ones():
    assert issubclass(ProcessUnseen, ProcessLookupError)
    assert issubclass(shmstore.LimitReached, MemoryError)


@pytest.mark.parametrize("answer", [None, 7, "x" * 16, []])
def test_a_writer_that_answers_nonsense(table, monkeypatch, answer):
    monkeypatch.setattr(Pipe, "call", lambda self, operation, arguments: answer)
    with pytest.raises(ProtocolError, match="makes no sense"):
        claim(table)
