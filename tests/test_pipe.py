"""The pipe, against a writer that does as it is told, in the same process."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from shmstore import (
    FormatMismatch,
    InvalidArgument,
    ProtocolError,
    RequestTimeout,
    StoreNotFound,
    WriterUnavailable,
    protocol,
    runtime,
    segment,
)
from shmstore.engine import Owner
from shmstore.errors import ReadStalled, ShmstoreError
from shmstore.pipe import Pipe, courier, outstanding
from shmstore.pipe.connection import KEPT_MAX
from shmstore.pipe.pipe import BUSY_REQUESTS, KEPT_BYTES_MAX

SHORT = 0.02
LONG = 30.0


class Peer:
    """A connection as the writer sees it."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(LONG)
        self.socket = connected
        self.hung_up = False
        self._decoder = protocol.FrameDecoder()
        self._requests: list[protocol.Request] = []

    def request(self) -> protocol.Request:
        """Return the next request."""
        while not self._requests:
            data = self.socket.recv(1 << 20)
            assert data, "the client hung up"
            self._requests += map(protocol.parse_request, self._decoder.feed(data))
        return self._requests.pop(0)

    def answer(self, request_id: int, result: Any) -> None:
        self.say(protocol.build_answer(request_id, result))

    def fail(self, request_id: int, error: ShmstoreError) -> None:
        self.say(protocol.build_error(request_id, error))

    def say(self, message: bytes) -> None:
        self.socket.sendall(protocol.frame(message))

    def hang_up(self) -> None:
        self.socket.close()


class FakeWriter:
    """A segment and a socket; what is said over it is up to the test."""

    def __init__(self) -> None:
        self.bound = runtime.bind("fake", time.monotonic() + LONG)
        self.bound.listener.settimeout(LONG)
        self.memory_fd = segment.create(1 << 20)
        memory = segment.map_writable(self.memory_fd)
        owner = Owner.create(memory, lambda *extent: None, lambda *extent: None)
        self.peers: list[Peer] = []
        self.facts: Any = {"segment": owner.reader.segment_id}

    def accept(self) -> Peer:
        """Accept a connection and nothing more."""
        self.peers.append(Peer(self.bound.listener.accept()[0]))
        return self.peers[-1]

    def welcome(self) -> tuple[Peer, bytes]:
        """Accept and greet a client; return its id as well."""
        peer = self.accept()
        hello = peer.request()
        message = protocol.frame(protocol.build_answer(0, self.facts))
        readonly = segment.open_readonly(self.memory_fd)
        socket.send_fds(peer.socket, [message], [readonly])
        os.close(readonly)
        return peer, protocol.parse_hello(hello)[1]

    def close(self) -> None:
        for peer in self.peers:
            peer.hang_up()
        runtime.unlink(self.bound)
        self.bound.listener.close()
        os.close(self.memory_fd)


@pytest.fixture
def writer() -> Iterator[FakeWriter]:
    fake = FakeWriter()
    yield fake
    fake.close()


@pytest.fixture
def pipe(writer: FakeWriter) -> Iterator[Pipe]:
    with_address = Pipe(writer.bound.address, LONG)
    yield with_address
    with_address.close()


@pytest.fixture
def attached(writer: FakeWriter, pipe: Pipe) -> Peer:
    """The writer's end of ``pipe``, which is attached and has used the id 1."""
    waiting = in_thread(lambda: pipe.reader)
    peer, _ = writer.welcome()
    peer.answer(peer.request().id, None)
    waiting.result()
    return peer


class InThread:
    """The outcome of a call that runs in a thread."""

    def __init__(self, function) -> None:
        self._function = function
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self._thread.join(LONG)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._outcome


def in_thread(function) -> InThread:
    return InThread(function)


def test_a_call_returns_the_result_and_raises_the_error_of_its_answer(pipe, attached):
    calling = in_thread(lambda: pipe.call("put", ["t", "", "k", b"\x01"]))
    request = attached.request()
    assert request[1:] == (request.id, "put", ["t", "", "k", b"\x01"])
    attached.answer(request.id, [1, {"a": None}])
    assert calling.result() == [1, {"a": None}]

    calling = in_thread(lambda: pipe.call("put", []))
    attached.fail(attached.request().id, FormatMismatch("no", found=1))
    with pytest.raises(FormatMismatch, match="no") as caught:
        calling.result()
    assert caught.value.details == {"found": 1}


def test_the_first_reader_attaches_and_reading_needs_no_writer(writer, pipe, attached):
    reader = pipe.reader
    assert reader.segment_id == pipe.segment_id == writer.facts["segment"]
    attached.hang_up()
    writer.bound.listener.close()
    assert pipe.reader is reader
    assert pipe.read("info")["capacity"] == 1 << 20


def test_a_read_that_is_overtaken_asks_the_writer(pipe, attached, monkeypatch):
    def stall(*arguments):
        raise ReadStalled

    monkeypatch.setattr(type(pipe.reader), "get", stall)
    reading = in_thread(lambda: pipe.read("get", 7, "k"))
    request = attached.request()
    assert request[2:] == ("read", ["get", [7, "k"]])
    attached.answer(request.id, b"v")
    assert reading.result() == b"v"


def test_answers_are_matched_by_id(pipe, attached):
    first, second = pipe.submit("put", []), pipe.submit("put", [])
    requests = [attached.request(), attached.request()]
    assert [request.oldest for request in requests] == [first.id, first.id]
    attached.answer(second.id, "second")
    assert second.result() == "second"
    assert not first.done()
    attached.answer(first.id, "first")
    assert first.result() == first.result() == "first"


def test_what_has_no_answer_is_sent_again_in_order_as_the_same_client(writer, pipe):
    answers = [pipe.submit("put", [number]) for number in range(3)]
    waiting = in_thread(answers[2].result)
    peer, client_id = writer.welcome()
    first = [peer.request() for _ in range(3)]
    peer.answer(first[0].id, "done")
    peer.hang_up()
    again, same_id = writer.welcome()
    assert same_id == client_id
    assert [again.request() for _ in range(2)] == first[1:]
    for request in first[1:]:
        again.answer(request.id, request.arguments)
    assert waiting.result() == [2]
    assert [answer.result() for answer in answers] == ["done", [1], [2]]


def test_answers_that_came_before_the_end_are_not_asked_for_again(writer, pipe, attached):
    answer = pipe.submit("put", [])
    attached.answer(attached.request().id, "in time")
    attached.hang_up()
    assert answer.result() == "in time"
    calling = in_thread(lambda: pipe.call("put", []))
    peer, _ = writer.welcome()
    request = peer.request()
    assert request.id == request.oldest > answer.id
    peer.answer(request.id, None)
    calling.result()


def test_a_connection_that_ends_during_the_greeting_is_tried_again(writer, pipe):
    calling = in_thread(lambda: pipe.call("ping", []))
    writer.accept().hang_up()
    peer = writer.accept()
    peer.request()
    peer.hang_up()
    peer, _ = writer.welcome()
    peer.answer(peer.request().id, "here")
    assert calling.result() == "here"


def test_a_request_without_an_answer_times_out_and_its_late_answer_harms_nobody(pipe, attached):
    with pytest.raises(RequestTimeout, match=r"put within 0.02 s: .* once or not at all") as caught:
        pipe.call("put", [], timeout=SHORT)
    assert caught.value.details["sent"] is True
    attached.answer(attached.request().id, "late")
    calling = in_thread(lambda: pipe.call("put", []))
    request = attached.request()
    assert request.oldest == request.id
    attached.answer(request.id, "in time")
    assert calling.result() == "in time"


def test_the_timeout_is_the_pipes_unless_another_is_given(pipe, attached):
    pipe.timeout = SHORT
    with pytest.raises(RequestTimeout, match=r"0\.02"):
        pipe.call("put", [])
    answer = pipe.submit("put", [])
    with pytest.raises(RequestTimeout, match=r"0\.01"):
        answer.result(timeout=0.01)
    with pytest.raises(RequestTimeout, match=r"0\.01"):
        answer.result()


def test_a_request_that_was_given_up_is_not_sent_again(writer, pipe, attached):
    with pytest.raises(RequestTimeout):
        pipe.call("put", ["given up"], timeout=SHORT)
    attached.hang_up()
    calling = in_thread(lambda: pipe.call("put", ["wanted"]))
    peer, _ = writer.welcome()
    request = peer.request()
    assert request.arguments == ["wanted"]
    peer.answer(request.id, None)
    calling.result()


def test_what_was_not_sent_before_the_timeout_is_never_sent(pipe, attached):
    stuck = pipe.submit("put", [bytes(3 << 20)])
    with pytest.raises(RequestTimeout, match="it was not sent") as caught:
        pipe.call("put", ["too late"], timeout=SHORT)
    assert caught.value.details["sent"] is False
    with pytest.raises(RequestTimeout, match="once or not at all"):
        stuck.result(timeout=SHORT)
    calling = in_thread(lambda: pipe.call("put", ["in time"]))
    assert attached.request().id == stuck.id
    request = attached.request()
    assert request.arguments == ["in time"]
    attached.answer(request.id, None)
    calling.result()


def test_nothing_is_sent_while_nobody_answers_the_hello(writer, pipe):
    with pytest.raises(RequestTimeout, match="it was not sent"):
        pipe.call("put", [], timeout=SHORT)


def test_a_full_queue_of_connections_is_a_timeout(writer, pipe):
    writer.bound.listener.listen(0)
    with runtime.connect(writer.bound.address, LONG), pytest.raises(RequestTimeout):
        pipe.call("put", [], timeout=SHORT)


def test_no_more_than_the_limit_is_on_its_way(pipe, attached):
    answers = [pipe.submit("put", []) for _ in range(protocol.IN_FLIGHT_MAX)]
    pipe.timeout = SHORT
    with pytest.raises(RequestTimeout, match="256 earlier requests") as caught:
        pipe.submit("put", [])
    assert caught.value.details["sent"] is False
    pipe.timeout = LONG
    attached.answer(answers[0].id, None)
    last = pipe.submit("put", ["last"])
    requests = [attached.request() for _ in range(protocol.IN_FLIGHT_MAX + 1)]
    assert requests[-1].id == last.id
    assert requests[-1].oldest == answers[1].id


def test_no_more_bytes_than_the_limit_are_on_their_way(pipe, attached, monkeypatch):
    monkeypatch.setattr(outstanding, "BYTES_MAX", 1000)
    first = pipe.submit("put", [bytes(2000)])
    submitting = in_thread(lambda: pipe.submit("put", ["second"]))
    assert attached.request().id == first.id
    attached.answer(first.id, None)
    second = submitting.result()
    assert first.done()
    assert attached.request().id == second.id


def test_large_messages_both_ways_at_once_do_not_block_each_other(pipe, attached):
    big = bytes(3 << 20)

    def exchange() -> None:
        for _ in range(6):
            attached.say(protocol.build_answer(1, big))  # its caller is gone: dropped
        for _ in range(4):
            request = attached.request()
            attached.answer(request.id, [request.arguments[0] == big, big])

    writing = in_thread(exchange)
    for _ in range(4):
        assert pipe.call("put", [big]) == [True, big]
    writing.result()


def test_when_nobody_listens_any_more_all_requests_end(writer, pipe, attached):
    answer = pipe.submit("put", [])
    runtime.unlink(writer.bound)
    writer.bound.listener.close()
    attached.hang_up()
    for request in (answer.result, lambda: pipe.call("put", [])):
        with pytest.raises(WriterUnavailable, match="can still be read"):
            request()


def test_a_server_that_never_was_is_not_found():
    pipe = Pipe(runtime.address_of("nobody"), LONG)
    with pytest.raises(StoreNotFound, match="nobody"):
        pipe.call("ping", [])
    with pytest.raises(StoreNotFound, match="nobody"):
        _ = pipe.reader


def test_another_server_under_the_same_address_is_not_the_one_it_was(writer, pipe, attached):
    attached.hang_up()
    writer.facts["segment"] = b"another segment!"
    for _ in range(2):
        calling = in_thread(lambda: pipe.call("put", []))
        writer.welcome()
        with pytest.raises(StoreNotFound, match="another one than before"):
            calling.result()


@pytest.mark.parametrize("facts", [[], {}, {"segment": "text"}])
def test_a_greeting_that_makes_no_sense_is_an_error(writer, pipe, facts):
    writer.facts = facts
    calling = in_thread(lambda: pipe.call("ping", []))
    writer.welcome()
    with pytest.raises(ProtocolError):
        calling.result()


def test_a_greeting_without_a_descriptor_is_an_error(writer, pipe):
    calling = in_thread(lambda: pipe.call("ping", []))
    peer = writer.accept()
    peer.answer(peer.request().id, writer.facts)
    with pytest.raises(ProtocolError, match="no descriptor came"):
        calling.result()


def test_a_refusal_to_greet_is_raised(writer, pipe):
    calling = in_thread(lambda: pipe.call("ping", []))
    peer = writer.accept()
    peer.fail(peer.request().id, FormatMismatch("another release"))
    with pytest.raises(FormatMismatch, match="another release"):
        calling.result()


def test_the_socket_of_another_user_is_not_talked_to(writer, pipe, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreNotFound, match="socket of user"):
        pipe.call("ping", [])


@pytest.mark.parametrize(
    "say",
    [
        lambda peer: peer.fail(0, ProtocolError("what was that")),
        lambda peer: peer.answer(0, "unasked"),
        lambda peer: peer.say(b"\xc1"),
        lambda peer: peer.socket.sendall(b"\xff" * 4 + b"\xff" * 8),
    ],
)
def test_a_broken_conversation_ends_all_requests_and_the_next_is_a_new_client(
    writer, pipe, attached, say
):
    answer = pipe.submit("put", [])
    say(attached)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            answer.result()
    calling = in_thread(lambda: pipe.call("put", ["new"]))
    peer, _ = writer.welcome()
    request = peer.request()
    assert request.arguments == ["new"]
    peer.answer(request.id, "well")
    assert calling.result() == "well"


def test_what_the_writer_may_have_forgotten_is_not_sent_again(writer, pipe, attached, monkeypatch):
    old, read = pipe.submit("put", ["old"]), pipe.submit("read", ["read"])
    attached.request()
    attached.hang_up()
    monkeypatch.setattr(protocol, "SESSION_SECONDS", 0.0)
    waiting = in_thread(read.result)
    peer, _ = writer.welcome()
    request = peer.request()
    assert request.arguments == ["read"]
    peer.answer(request.id, "done")
    assert waiting.result() == "done"
    with pytest.raises(RequestTimeout, match="too long ago"):
        old.result()


class Interruption(Exception):
    pass


def test_an_interrupted_wait_gives_up_the_connection_and_the_pipe_goes_on(writer, pipe, attached):
    other = pipe.submit("put", [])

    def interrupt(number, frame):
        raise Interruption

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, SHORT)
    try:
        with pytest.raises(Interruption):
            pipe.call("put", [])
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(WriterUnavailable, match="interrupted"):
        other.result()
    calling = in_thread(lambda: pipe.call("put", ["again"]))
    peer, _ = writer.welcome()
    request = peer.request()
    assert request.arguments == ["again"]
    peer.answer(request.id, None)
    calling.result()


def test_an_interrupted_send_gives_up_the_connection(writer, pipe, attached, monkeypatch):
    def interrupt(self, request_id, frame):
        raise Interruption

    other = pipe.submit("put", [])
    with monkeypatch.context() as patch:
        patch.setattr("shmstore.pipe.connection.Connection.send", interrupt)
        with pytest.raises(Interruption):
            pipe.submit("put", [])
    with pytest.raises(WriterUnavailable, match="interrupted"):
        other.result()


def test_threads_share_the_pipe_and_one_receives_for_all(pipe, attached):
    callers = [in_thread(partial(pipe.call, "put", [n])) for n in range(8)]
    requests = [attached.request() for _ in callers]
    for request in reversed(requests):
        attached.answer(request.id, request.arguments[0])
    assert [caller.result() for caller in callers] == list(range(8))


# Requests that are kept, to be sent together


@pytest.fixture
def sleeping_courier(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept stays until it is sent for another reason."""
    monkeypatch.setattr(courier, "PAUSE_SECONDS", LONG)


def couriers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "courier" in thread.name]


MANY = BUSY_REQUESTS + 10


def test_what_is_kept_is_sent_soon_though_nobody_waits(pipe, attached):
    for number in range(MANY):
        pipe.submit("put", [number])
    assert [attached.request().arguments for _ in range(MANY)] == [[n] for n in range(MANY)]


def test_few_requests_are_sent_at_once(pipe, attached, sleeping_courier):
    for number in range(BUSY_REQUESTS):
        pipe.submit("put", [number])
        assert attached.request().arguments == [number]
    assert not couriers()


def test_many_kept_requests_are_sent_without_a_reason(pipe, attached, sleeping_courier):
    for number in range(BUSY_REQUESTS + KEPT_MAX):
        pipe.submit("put", [number])
    for number in range(BUSY_REQUESTS + KEPT_MAX):
        assert attached.request().arguments == [number]


def test_a_large_request_is_not_kept_and_takes_along_what_was(pipe, attached, sleeping_courier):
    for number in range(MANY):
        pipe.submit("put", [number])
    pipe.submit("put", [bytes(KEPT_BYTES_MAX)])
    requests = [attached.request() for _ in range(MANY + 1)]
    assert [request.id for request in requests] == sorted(request.id for request in requests)


def test_who_waits_sends_what_was_kept_first(pipe, attached, sleeping_courier):
    for number in range(MANY):
        pipe.submit("put", [number])
    calling = in_thread(lambda: pipe.call("put", ["last"]))
    requests = [attached.request() for _ in range(MANY + 1)]
    assert requests[-1].arguments == ["last"]
    for request in requests:
        attached.answer(request.id, None)
    calling.result()
    assert not couriers()


def test_who_waits_while_another_receives_sends_what_was_kept(pipe, attached, sleeping_courier):
    receiving = in_thread(lambda: pipe.call("put", ["long"]))
    long = attached.request()
    answers = [pipe.submit("put", [number]) for number in range(MANY)]
    waiting = in_thread(answers[-1].result)
    for _ in range(MANY):
        request = attached.request()
        attached.answer(request.id, request.arguments[0])
    assert waiting.result() == MANY - 1
    attached.answer(long.id, "well")
    assert receiving.result() == "well"


def test_without_a_thread_nothing_is_kept(pipe, attached, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for number in range(MANY):
            pipe.submit("put", [number])
    assert [attached.request().arguments for _ in range(MANY)] == [[n] for n in range(MANY)]


def test_closing_sends_what_was_kept_and_ends_the_courier(pipe, attached, sleeping_courier):
    for number in range(MANY):
        pipe.submit("put", [number])
    pipe.close()
    operations = [attached.request().operation for _ in range(MANY + 1)]
    assert operations == ["put"] * MANY + ["bye"]
    assert not couriers()


def test_the_courier_leaves_nothing_unsent(pipe, attached, sleeping_courier):
    for number in range(MANY):
        pipe.submit("put", [number])
    pipe._courier.dismiss()  # as another thread may, when it has all its answers
    assert not couriers()
    assert [attached.request().arguments for _ in range(MANY)] == [[n] for n in range(MANY)]


def test_what_is_kept_is_sent_again_on_the_next_connection(
    writer, pipe, attached, sleeping_courier
):
    answers = [pipe.submit("put", [number]) for number in range(MANY)]
    attached.hang_up()
    waiting = in_thread(answers[-1].result)
    peer, _ = writer.welcome()
    for _ in range(MANY):
        request = peer.request()
        peer.answer(request.id, request.arguments[0])
    assert waiting.result() == MANY - 1


def test_an_interrupted_flush_gives_up_the_connection(pipe, attached, sleeping_courier):
    receiving = in_thread(lambda: pipe.call("put", ["long"]))
    attached.request()
    answers = [pipe.submit("put", [number]) for number in range(MANY)]

    def interrupt(self):
        raise Interruption

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shmstore.pipe.connection.Connection.flush", interrupt)
        with pytest.raises(Interruption):
            answers[-1].result()
    for request in (receiving.result, answers[0].result):
        with pytest.raises(WriterUnavailable, match="interrupted"):
            request()


def test_when_the_receiving_thread_gives_up_another_one_receives(pipe, attached):
    first = in_thread(lambda: pipe.call("put", ["first"], timeout=0.1))
    attached.request()
    others = [in_thread(partial(pipe.call, "put", [n])) for n in range(3)]
    requests = [attached.request() for _ in others]
    with pytest.raises(RequestTimeout):
        first.result()
    for request in requests:
        attached.answer(request.id, request.arguments[0])
        assert others[request.arguments[0]].result() == request.arguments[0]


def test_a_waiting_thread_gives_up_without_the_receiving_one(pipe, attached):
    receiving = in_thread(lambda: pipe.call("put", ["long"]))
    long = attached.request()
    with pytest.raises(RequestTimeout):
        in_thread(lambda: pipe.call("put", ["short"], timeout=SHORT)).result()
    attached.request()
    attached.answer(long.id, "well")
    assert receiving.result() == "well"


def test_several_threads_wait_for_one_answer(pipe, attached):
    answer = pipe.submit("put", [])
    waiting = [in_thread(answer.result) for _ in range(3)]
    attached.answer(attached.request().id, "for all")
    assert [each.result() for each in waiting] == ["for all"] * 3


def test_closing_ends_the_wait_of_other_threads(writer, pipe, attached):
    callers = [in_thread(lambda: pipe.call("put", [])) for _ in range(2)]
    for _ in callers:
        attached.request()
    pipe.close()
    for caller in callers:
        with pytest.raises(WriterUnavailable, match="closed"):
            caller.result()


def test_a_closed_pipe_says_goodbye_and_does_nothing_more(pipe, attached):
    pipe.close()
    pipe.close()
    assert attached.request().operation == "bye"
    assert attached.socket.recv(1) == b""
    uses = (lambda: pipe.call("ping", []), lambda: pipe.submit("put", []), lambda: pipe.reader)
    for use in uses:
        with pytest.raises(WriterUnavailable, match="closed"):
            use()


def test_a_pipe_that_is_dropped_leaves_nothing_open(writer):
    pipe = Pipe(writer.bound.address, LONG)
    waiting = in_thread(partial(pipe.call, "ping", []))
    peer, _ = writer.welcome()
    peer.answer(peer.request().id, None)
    waiting.result()
    del pipe, waiting
    gc.collect()
    assert peer.socket.recv(1) == b""


@pytest.mark.parametrize("timeout", [0, -1, math.nan, True, "1", b""])
def test_a_timeout_is_a_positive_number(timeout, pipe):
    with pytest.raises(InvalidArgument, match="positive number"):
        Pipe("/x", timeout)
    with pytest.raises(InvalidArgument, match="positive number"):
        pipe.call("ping", [], timeout=timeout)


def test_none_is_a_timeout_without_end(writer):
    pipe = Pipe(writer.bound.address, None)
    calls = [in_thread(partial(pipe.call, "put", [n])) for n in range(2)]
    peer, _ = writer.welcome()
    for _ in calls:
        request = peer.request()
        peer.answer(request.id, request.arguments[0])
    assert [call.result() for call in calls] == [0, 1]
    big = bytes(1 << 20)
    calling = in_thread(lambda: pipe.call("put", [big]))
    peer.answer(peer.request().id, None)
    calling.result()
    pipe.close()
