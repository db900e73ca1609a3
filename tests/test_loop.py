"""The writer's loop, driven turn by turn: what clients may do to it, and to each other."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from shmstore import protocol, segment
from shmstore.engine import NAME, Owner, Reader
from shmstore.errors import (
    FormatMismatch,
    InvalidArgument,
    InvalidKey,
    InvalidRecord,
    ProtocolError,
    RecordNotFound,
    ShmstoreError,
    UnknownCursor,
)
from shmstore.protocol import CLIENT_ID_BYTES, SESSION_SECONDS, Answer, FrameDecoder
from shmstore.writer import loop as loops
from shmstore.writer import peer
from shmstore.writer.loop import Loop

ONE = b"\x01"
TURNS_MAX = 500
INCREMENT: tuple[Any, ...] = ("t", "", b"n", None, 1, 0, None, None, False)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A loop in this process; a turn happens when a test says so."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "socket"
        self.clock = Clock()
        self.fd = segment.create(4 << 20)
        self.reader_fd = segment.open_readonly(self.fd)
        self.memory = segment.map_writable(self.fd)
        extents = segment.Extents(self.fd, self.memory)
        self._attach = extents.extend, extents.release
        self.owner = Owner.create(self.memory, *self._attach)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.talkers: list[Talker] = []
        self.loop = Loop(self.owner, self.listener, self.reader_fd, self.clock)

    def take_over(self) -> None:
        """The writer dies; its successor takes the same socket and memory."""
        self.loop.close()
        self.owner.close()
        self.owner = Owner.take_over(self.memory, *self._attach)
        self.loop = Loop(self.owner, self.listener, self.reader_fd, self.clock)

    def turns(self, number: int = 3) -> None:
        for _ in range(number):
            self.loop.step()

    def until(self, done: Callable[[], bool]) -> None:
        for _ in range(TURNS_MAX):
            if done():
                return
            self.loop.step()
        raise AssertionError("it did not happen")

    def call(self, number: int) -> Talker:
        """Connect, and say nothing yet."""
        talker = Talker(self, number)
        self.talkers.append(talker)
        return talker

    def talker(self, number: int = 1) -> Talker:
        """Connect and say hello."""
        talker = self.call(number)
        talker.hello()
        return talker

    def get(self, key: bytes) -> bytes | None:
        return self.owner.reader.get(self.owner.reader.scope("t", ""), key)

    @property
    def connections(self) -> int:
        return int(self.loop._figures()["connections"])

    def close(self) -> None:
        for talker in self.talkers:
            talker.socket.close()
        self.loop.close()
        self.listener.close()
        self.path.unlink()
        self.owner.close()
        self.memory.close()
        os.close(self.reader_fd)
        os.close(self.fd)


class Talker:
    """The client's end of a connection, at the level of frames."""

    def __init__(self, bench: Bench, number: int) -> None:
        self.bench = bench
        self.client_id = b"%d" % number * CLIENT_ID_BYTES
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(bench.path))
        self.socket.setblocking(False)
        self.facts: dict[str, Any] = {}
        self.descriptors: list[int] = []
        self.next_id = 1
        self.hung_up = False
        self._decoder = FrameDecoder()

    def hello(self) -> None:
        self.send("hello", protocol.PROTOCOL_VERSION, self.client_id, request_id=0)
        self.bench.turns()
        data, self.descriptors, _, _ = socket.recv_fds(self.socket, 1000, 1)
        (message,) = self._decoder.feed(data)
        answer = protocol.parse_answer(message)
        assert answer.error is None
        self.facts = answer.result
        for fd in self.descriptors:
            os.close(fd)

    def send(
        self,
        operation: str,
        *arguments: Any,
        request_id: int | None = None,
        oldest: int | None = None,
    ) -> int:
        if request_id is None:
            request_id, self.next_id = self.next_id, self.next_id + 1
        oldest = request_id if oldest is None else oldest
        message = protocol.build_request(request_id, oldest, operation, list(arguments))
        self.raw(protocol.frame(message))
        return request_id

    def put(self, key: bytes, value: bytes = ONE) -> int:
        return self.send("put", "t", "", key, value)

    def raw(self, data: bytes) -> None:
        """Send bytes, with turns in between if the socket is full."""
        while data:
            with suppress(BlockingIOError):
                data = data[self.socket.send(data) :]
            if data:
                self.bench.turns(1)

    def heard(self) -> list[Answer]:
        """Return the answers that have arrived."""
        messages = []
        while not self.hung_up:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.hung_up = not data
            messages += self._decoder.feed(data)
        return [protocol.parse_answer(message) for message in messages]

    def collect(self, number: int) -> list[Answer]:
        """Return so many answers, with as many turns in between as it takes."""
        answers = self.heard()
        for _ in range(TURNS_MAX):
            if len(answers) >= number:
                return answers
            self.bench.turns(1)
            answers += self.heard()
        raise AssertionError(f"{len(answers)} answers, expected {number}")

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Send a request; return its result or raise its error."""
        request_id = self.send(operation, *arguments)
        self.bench.turns()
        (answer,) = self.heard()
        assert answer.id == request_id
        if answer.error is not None:
            raise answer.error
        return answer.result

    def refusal(self) -> ShmstoreError:
        """Return the error with which the writer has hung up."""
        self.bench.turns()
        *_, last = self.heard()
        assert last.id == 0
        assert last.error is not None
        assert self.hung_up
        return last.error


@pytest.fixture
def bench(runtime_dir: Path) -> Iterator[Bench]:
    bench = Bench(runtime_dir)
    yield bench
    bench.close()


@pytest.fixture
def other(bench: Bench) -> Iterator[Talker]:
    """A client that must not be disturbed by anything the test does to the writer."""
    talker = bench.talker(9)
    talker.ask("put", "other", "", b"n", b"\x05")
    yield talker
    assert talker.ask("increment", "other", *INCREMENT[1:]) == 6


# Service


def test_the_hello_hands_out_the_memory_and_nothing_more(bench: Bench) -> None:
    talker = bench.call(1)
    talker.send("hello", protocol.PROTOCOL_VERSION, talker.client_id, request_id=0)
    bench.turns()
    data, (fd,), _, _ = socket.recv_fds(talker.socket, 1000, 1)
    with closing(segment.map_readonly(fd)) as memory:
        reader = Reader(memory)
        assert reader.segment_id == bench.owner.reader.segment_id
        reader.close()
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 0)
    os.close(fd)
    (message,) = FrameDecoder().feed(data)
    facts = protocol.parse_answer(message).result
    assert facts == {
        "pid": os.getpid(),
        "segment": bench.owner.reader.segment_id,
        "capacity": 4 << 20,
        "format": 1,
    }


def test_an_acknowledged_put_is_there(bench: Bench) -> None:
    talker = bench.talker()
    version = talker.ask("put", "t", "", b"k", ONE)
    assert version == bench.owner.committed
    assert bench.get(b"k") == ONE


def test_a_failed_request_is_answered_with_its_error(bench: Bench) -> None:
    talker = bench.talker()
    with pytest.raises(InvalidRecord):
        talker.ask("put", "t", "", b"k", b"\xc1")
    with pytest.raises(InvalidKey):
        talker.ask("put", "t", "", 7, ONE)
    with pytest.raises(ShmstoreError):
        talker.ask("put", "t")
    assert talker.ask("ping") == os.getpid()


def test_what_arrives_together_is_committed_together(bench: Bench) -> None:
    talkers = [bench.talker(number) for number in range(4)]
    before = bench.owner.committed
    for number, talker in enumerate(talkers):
        for key in range(10):
            talker.put(b"%d %d" % (number, key))
    bench.turns(1)
    assert bench.owner.committed == before + 1
    for talker in talkers:
        assert [answer.result for answer in talker.heard()] == [before + 1] * 10


def test_the_requests_of_a_client_are_applied_in_order(bench: Bench) -> None:
    talker = bench.talker()
    talker.send("put", "t", "", b"n", b"\x00")
    for _ in range(50):
        talker.send("increment", "t", "", b"n", None, 1, 0, None, None, False)
    talker.send("read", "get", [bench.owner.reader.scope("t", ""), b"n"])
    bench.turns()
    answers = talker.heard()
    assert [answer.id for answer in answers] == list(range(1, 53))
    assert [answer.result for answer in answers[1:-1]] == list(range(1, 51))
    assert answers[-1].result == b"\x32"


def test_a_large_record_arrives_in_pieces(bench: Bench, other: Talker) -> None:
    talker = bench.talker()
    value = b"\xc6" + struct.pack(">I", 1_000_000) + os.urandom(1_000_000)
    talker.put(b"large", value)
    bench.until(lambda: bench.get(b"large") is not None)
    assert bench.get(b"large") == value
    assert talker.heard()[0].error is None
    talker.send("pop", "t", "", b"large")
    (answer,) = talker.collect(1)
    assert answer.result == value


def test_no_client_gets_more_than_its_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "TURN_REQUESTS_MAX", 10)
    greedy, modest = bench.talker(1), bench.talker(2)
    for number in range(100):
        greedy.put(b"%d" % number)
    modest.put(b"modest")
    bench.turns(1)
    assert len(greedy.heard()) == 10
    assert len(modest.heard()) == 1
    bench.turns(9)
    assert len(greedy.heard()) == 90


# Inquiries


def test_statistics_tell_of_memory_and_process(bench: Bench) -> None:
    talker, quiet = bench.talker(1), bench.talker(2)
    talker.ask("put", "t", "", b"k", ONE)
    figures = talker.ask("stats")
    assert figures["pid"] == os.getpid()
    assert figures["engine"] == NAME
    assert (figures["connections"], figures["sessions"], figures["batches"]) == (2, 2, 1)
    assert figures["requests"] == {"hello": 2, "put": 1, "stats": 1}
    assert set(bench.owner.statistics()) <= set(figures)
    assert quiet.ask("check") == []


def test_a_read_sees_what_the_client_did_before(bench: Bench) -> None:
    talker = bench.talker()
    scope = bench.owner.reader.scope("t", "")
    talker.put(b"k")
    talker.send("read", "get_versioned", [scope, b"k"])
    talker.send("read", "get_many", [scope, [b"x", b"k"]])
    talker.send("read", "count", ["t", ""])
    bench.turns()
    version, *results = [answer.result for answer in talker.heard()]
    assert results == [[version, ONE], [None, ONE], 1]


def test_the_errors_of_a_read_arrive_as_they_are(bench: Bench) -> None:
    talker = bench.talker()
    with pytest.raises(UnknownCursor):
        talker.ask("read", "page", ["t", "n", 10, b"nowhere", None])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["get"],
        ["get", 3],
        ["get", []],
        ["get", [None, None]],
        ["get", [1 << 63, 3.5]],
        ["count", [b"t", 7]],
        ["chunk", ["t", "", b"", "x", "y", "z"]],
        ["close", []],
        ["__class__", []],
        ["scope", ["t", ""]],
        [["get"], []],
        ["get", [], []],
    ],
)
def test_a_read_that_makes_no_sense_is_refused(
    bench: Bench, other: Talker, arguments: list[Any]
) -> None:
    talker = bench.talker()
    talker.ask("put", "t", "", b"k", ONE)
    with pytest.raises((InvalidArgument, InvalidKey)):
        talker.ask("read", *arguments)
    assert talker.ask("ping") == os.getpid()


# Those who break the rules


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!i", -5),
        struct.pack("!i", protocol.FRAME_BYTES_MAX + 1),
        struct.pack("!iQ", -1, 1 << 60),
        protocol.frame(b"\xc1"),
        protocol.frame(b""),
        protocol.frame(protocol.build_request(5, 1, "hello", [1, b"x" * CLIENT_ID_BYTES])),
        protocol.frame(protocol.build_request(5, 1, "explode", [])),
    ],
)
@pytest.mark.parametrize("greeted", [True, False])
def test_garbage_ends_its_connection_alone(
    bench: Bench, other: Talker, data: bytes, greeted: bool
) -> None:
    talker = bench.talker() if greeted else bench.call(1)
    talker.raw(data)
    assert isinstance(talker.refusal(), ProtocolError)
    assert bench.connections == 1


@pytest.mark.parametrize("operation", ["put", "ping", "stats", "bye"])
def test_nothing_is_done_before_the_hello(bench: Bench, other: Talker, operation: str) -> None:
    talker = bench.call(1)
    talker.send(operation, "t", "", b"k", ONE)
    assert isinstance(talker.refusal(), ProtocolError)
    assert bench.get(b"k") is None


def test_another_version_of_the_protocol_is_named(bench: Bench, other: Talker) -> None:
    talker = bench.call(1)
    talker.send("hello", protocol.PROTOCOL_VERSION + 1, talker.client_id, request_id=0)
    refusal = talker.refusal()
    assert isinstance(refusal, FormatMismatch)
    assert refusal.details == {"client": 2, "server": 1}


@pytest.mark.parametrize("garbage", [b"garbage!", protocol.frame(b"\xc1")])
def test_requests_before_the_garbage_of_an_earlier_turn_stand(bench: Bench, garbage: bytes) -> None:
    talker = bench.talker()
    talker.put(b"k")
    bench.turns(1)
    talker.raw(garbage)
    bench.turns()
    first, last = talker.heard()
    assert first.error is None
    assert isinstance(last.error, ProtocolError)
    assert bench.get(b"k") == ONE


def test_a_request_is_answered_before_the_senseless_one_behind_it(bench: Bench) -> None:
    talker = bench.talker()
    talker.put(b"k")
    talker.raw(protocol.frame(b"\xc1"))
    bench.turns()
    first, last = talker.heard()
    assert first.error is None
    assert isinstance(last.error, ProtocolError)
    assert bench.get(b"k") == ONE


def test_a_request_that_was_answered_is_not_taken_again(bench: Bench, other: Talker) -> None:
    talker = bench.talker()
    talker.put(b"a")
    talker.put(b"b")
    bench.turns()
    talker.send("put", "t", "", b"a", b"\x02", request_id=1)
    assert isinstance(talker.refusal(), ProtocolError)
    assert bench.get(b"a") == ONE


def test_half_a_frame_waits_for_the_rest(bench: Bench, other: Talker) -> None:
    talker = bench.talker()
    message = protocol.build_request(1, 1, "put", ["t", "", b"k", ONE])
    data = protocol.frame(message)
    for at in range(len(data)):
        assert bench.get(b"k") is None
        talker.raw(data[at : at + 1])
        bench.turns(1)
    assert bench.get(b"k") == ONE


@pytest.mark.parametrize("sent", [0, 3, 20])
@pytest.mark.parametrize("greeted", [True, False])
def test_a_hang_up_in_the_middle_disturbs_nobody(
    bench: Bench, other: Talker, sent: int, greeted: bool
) -> None:
    talker = bench.talker() if greeted else bench.call(1)
    data = protocol.frame(protocol.build_request(1, 1, "put", ["t", "", b"k", ONE]))
    talker.raw(data[:sent])
    bench.turns()
    talker.socket.close()
    bench.turns()
    assert bench.get(b"k") is None
    assert bench.connections == 1


def test_who_hangs_up_after_a_request_is_served(bench: Bench, other: Talker) -> None:
    talker = bench.talker()
    talker.put(b"k")
    talker.socket.close()
    bench.turns()
    assert bench.get(b"k") == ONE
    assert bench.connections == 1


def test_who_hangs_up_with_answers_unread_disturbs_nobody(bench: Bench, other: Talker) -> None:
    talker = bench.talker()
    talker.put(b"k")
    bench.turns()
    talker.socket.close()
    bench.turns()
    assert bench.connections == 1


def test_who_hangs_up_before_the_hello_is_answered_is_forgotten(bench: Bench) -> None:
    talker = bench.call(1)
    talker.send("hello", protocol.PROTOCOL_VERSION, talker.client_id, request_id=0)
    talker.socket.close()
    bench.turns()
    assert bench.connections == 0


def test_another_users_process_is_not_let_in(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.loop, "_uid", os.geteuid() + 1)
    talker = bench.call(1)
    bench.turns()
    assert talker.heard() == []
    assert talker.hung_up
    assert bench.connections == 0


def test_without_descriptors_callers_wait_and_the_others_are_served(
    bench: Bench, other: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        def accept(self) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        def fileno(self) -> int:
            return bench.listener.fileno()

    with monkeypatch.context() as patch:
        patch.setattr(bench.loop, "_listener", Exhausted())
        talker = bench.call(1)
        bench.turns()
        assert bench.connections == 1
        assert other.ask("ping")
        assert bench.loop._due_seconds() == loops.ACCEPT_AGAIN_SECONDS
    bench.clock.now += loops.ACCEPT_AGAIN_SECONDS
    bench.turns()
    talker.hello()
    assert bench.connections == 2


def test_a_caller_that_the_kernel_refuses_disturbs_nobody(
    bench: Bench, other: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(loops, "Peer", refuse)
        talker = bench.call(1)
        bench.turns()
    assert talker.heard() == []
    assert talker.hung_up
    assert bench.connections == 1
    assert other.ask("ping")


# Those who do not read their answers


def test_who_does_not_read_is_not_served_and_disturbs_nobody(
    bench: Bench, other: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = bench.talker(1)
    value = b"\xc6" + struct.pack(">I", 300_000) + bytes(300_000)
    deaf.ask("put", "t", "", b"large", value)
    scope = bench.owner.reader.scope("t", "")
    for _ in range(200):
        deaf.send("read", "get", [scope, b"large"])
    bench.turns(50)
    read = bench.loop._figures()["requests"]["read"]
    assert read < 20
    (unsent,) = [
        len(each._unsent)
        for each in bench.loop._peers.values()
        if each.session.seen == 1 and each.requests
    ]
    assert unsent < peer.UNSENT_BYTES_MAX + 400_000
    bench.turns(50)
    assert bench.loop._figures()["requests"]["read"] == read
    assert other.ask("ping") == os.getpid()
    assert all(answer.result == value for answer in deaf.collect(200))
    bench.turns()
    assert deaf.ask("ping") == os.getpid()


def test_who_does_not_read_is_not_read_from(bench: Bench, other: Talker) -> None:
    """Requests pile up in the client's socket, where they are the client's own trouble."""
    deaf = bench.talker(1)
    deaf.ask("put", "t", "", b"large", b"\xc6" + struct.pack(">I", 300_000) + bytes(300_000))
    read = protocol.frame(
        protocol.build_request(9, 9, "read", ["get", [bench.owner.reader.scope("t", ""), b"large"]])
    )
    with suppress(BlockingIOError):
        while True:
            deaf.socket.send(read)
            bench.turns(1)
    before = sum(len(each.requests) for each in bench.loop._peers.values())
    bench.turns(20)
    assert sum(len(each.requests) for each in bench.loop._peers.values()) == before
    assert before * len(read) < 2 * peer.RECEIVE_BYTES


def test_who_does_not_read_may_hang_up(bench: Bench, other: Talker) -> None:
    deaf = bench.talker(1)
    deaf.ask("put", "t", "", b"large", b"\xc6" + struct.pack(">I", 300_000) + bytes(300_000))
    for _ in range(20):
        deaf.send("read", "get", [bench.owner.reader.scope("t", ""), b"large"])
    bench.turns()
    deaf.socket.close()
    bench.turns()
    assert bench.connections == 1


# Sessions


def test_what_is_sent_again_to_a_new_writer_is_applied_once(bench: Bench) -> None:
    talker = bench.talker(1)
    for oldest in (1, 1, 1):
        talker.send("increment", *INCREMENT, oldest=oldest)
    bench.turns()
    bench.take_over()
    again = bench.talker(1)
    for request_id in (1, 2, 3, 4):
        again.send("increment", *INCREMENT, request_id=request_id, oldest=1)
    bench.turns()
    assert [(answer.id, answer.result) for answer in again.heard()] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
    ]
    assert bench.get(b"n") == b"\x04"


def test_a_client_that_connects_again_takes_the_place_of_its_old_self(bench: Bench) -> None:
    old = bench.talker(1)
    old.send("increment", *INCREMENT)
    bench.turns()
    new = bench.call(1)
    new.send("hello", protocol.PROTOCOL_VERSION, new.client_id, request_id=0)
    old.send("put", "t", "", b"late", ONE, oldest=1)
    new.send("increment", *INCREMENT, request_id=1)
    bench.turns()
    assert len(old.heard()) >= 1
    assert old.hung_up
    assert bench.connections == 1
    assert bench.get(b"n") == ONE
    assert bench.loop._figures()["sessions"] == 1


def test_a_goodbye_is_answered_and_forgets_the_client(bench: Bench) -> None:
    talker = bench.talker(1)
    talker.put(b"k")
    bench.turns()
    talker.heard()
    assert talker.ask("bye") is None
    bench.turns()
    assert talker.heard() == []
    assert talker.hung_up
    assert bench.owner.count("", "s") == 0
    assert bench.loop._figures()["sessions"] == 0


def test_a_client_that_hangs_up_is_forgotten(bench: Bench, other: Talker) -> None:
    talkers = [bench.talker(number) for number in (1, 2)]
    for talker in talkers:
        talker.ask("put", "t", "", b"k", ONE)
    assert bench.owner.count("", "s") == 3
    before = bench.owner.committed
    for talker in talkers:
        talker.socket.close()
    bench.turns()
    assert bench.owner.count("", "s") == 1
    assert bench.owner.committed == before + 1


def test_a_client_that_does_not_come_back_is_forgotten_in_time(bench: Bench) -> None:
    bench.talker(1).ask("put", "t", "", b"k", ONE)
    bench.take_over()
    bench.turns()
    assert bench.owner.count("", "s") == 1
    assert bench.loop._due_seconds() == SESSION_SECONDS
    bench.clock.now += SESSION_SECONDS
    bench.turns(1)
    assert bench.owner.count("", "s") == 0
    assert bench.loop._due_seconds() is None


def test_an_idle_writer_gives_up_what_it_holds_back(bench: Bench) -> None:
    talker = bench.talker(1)
    for key in (b"a", b"b", b"a"):
        talker.ask("put", "t", "", key, b"\xc6\x00\x04\x00\x00" + bytes(1 << 18))
    talker.ask("delete", "t", "", b"b")
    assert bench.owner.statistics()["quarantine"] > 2 << 18
    assert bench.loop._due_seconds() == loops.SETTLE_SECONDS
    bench.clock.now += loops.SETTLE_SECONDS
    bench.turns(1)
    assert bench.owner.statistics()["quarantine"] == 0
    assert bench.loop._due_seconds() is None
    assert bench.owner.check() == []
    assert bench.get(b"a") is not None


# Whatever arrives


def test_any_operation_with_any_arguments_is_answered(bench: Bench, other: Talker) -> None:
    """Each operation gets arguments of all kinds; the writer answers and goes on."""
    talker = bench.talker(1)
    oddities: list[Any] = [
        None,
        True,
        -1,
        1 << 63,
        1.5,
        "",
        "t",
        b"",
        b"\x01",
        [],
        [[]],
        {},
        {"a": 1},
    ]
    for operation in sorted(protocol.MUTATIONS | protocol.INQUIRIES):
        for oddity in oddities:
            for count in range(6):
                talker.send(operation, *["t", "", oddity, oddity, oddity][:count])
                talker.send(operation, *[oddity] * count)
                bench.turns(1)
                assert len(talker.heard()) == 2, (operation, oddity, count)
    assert talker.ask("check") == []


def test_a_missing_record_is_an_answer_like_others(bench: Bench) -> None:
    talker = bench.talker()
    with pytest.raises(RecordNotFound) as missing:
        talker.ask("increment", "t", "", b"n", None, 1, 0, None, None, True)
    assert missing.value.details["key"] == b"n"
