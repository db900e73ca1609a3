"""Frames and messages: whatever arrives is decoded or refused, and costs no more than it is."""

from __future__ import annotations

import itertools
import os
import struct
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmstore import errors, protocol
from shmstore.errors import ProtocolError, RecordTooLarge, ShmstoreError

CLIENT_ID = b"c" * protocol.CLIENT_ID_BYTES
messages = st.lists(st.binary(max_size=40), max_size=8)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


# Frames


@given(messages, st.lists(st.integers(min_value=0), max_size=20))
def test_a_stream_cut_anywhere_gives_the_messages_back(sent: list[bytes], cuts: list[int]) -> None:
    decoder = protocol.FrameDecoder()
    received = []
    for piece in pieces(b"".join(map(protocol.frame, sent)), cuts):
        received += decoder.feed(piece)
    assert received == sent
    assert not decoder.inside


def test_one_byte_at_a_time_is_enough() -> None:
    stream = protocol.frame(b"one") + protocol.frame(b"") + protocol.frame(b"three")
    decoder = protocol.FrameDecoder()
    received = [message for byte in stream for message in decoder.feed(bytes([byte]))]
    assert received == [b"one", b"", b"three"]


def test_the_framing_is_that_of_multiprocess() -> None:
    ours, theirs = os.pipe()
    with Connection(ours, writable=False) as receiver, Connection(theirs) as sender:
        sender.send_bytes(b"from multiprocessing")
        assert protocol.FrameDecoder().feed(os.read(ours, 100)) == [b"from multiprocessing"]
        os.write(theirs, protocol.frame(b"to multiprocessing"))
        assert receiver.recv_bytes() == b"to multiprocessing"


def test_the_long_form_of_a_length_is_understood() -> None:
    stream = struct.pack("!iQ", -1, 5) + b"hello" + protocol.frame(b"next")
    for size in range(1, len(stream) + 1):
        decoder = protocol.FrameDecoder()
        parts = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert [m for part in parts for m in decoder.feed(part)] == [b"hello", b"next"]


class Long(bytes):
    """Stands for a message of more than 2 GiB, which would not be nice to make."""

    def __len__(self) -> int:
        return (1 << 31) + 5


def test_a_length_beyond_two_gibibytes_is_written_in_the_long_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "FRAME_BYTES_MAX", 1 << 40)
    assert protocol.frame(Long(b"x"))[:12] == struct.pack("!iQ", -1, (1 << 31) + 5)


def test_a_message_beyond_the_limit_is_not_framed() -> None:
    with pytest.raises(RecordTooLarge, match="send less"):
        protocol.frame(Long(b"x"))


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("!i", -2),
        struct.pack("!i", -(1 << 31)),
        struct.pack("!i", 1001),
        struct.pack("!i", 0x7FFFFFFF),
        struct.pack("!iQ", -1, 1001),
        struct.pack("!iQ", -1, (1 << 64) - 1),
    ],
)
@pytest.mark.parametrize("before", [b"", protocol.frame(b"fine")])
def test_a_length_that_cannot_be_is_refused(header: bytes, before: bytes) -> None:
    decoder = protocol.FrameDecoder(bytes_max=1000)
    with pytest.raises(ProtocolError, match="a frame of"):
        decoder.feed(before + header)


def test_a_message_of_the_limit_is_taken() -> None:
    assert protocol.FrameDecoder(4).feed(protocol.frame(b"four")) == [b"four"]


def test_a_claimed_length_takes_no_memory() -> None:
    decoder = protocol.FrameDecoder()
    assert decoder.feed(struct.pack("!i", protocol.FRAME_BYTES_MAX) + b"x" * 100) == []
    assert decoder._buffer.__sizeof__() < 1000
    assert decoder.missing == protocol.FRAME_BYTES_MAX - 100
    assert decoder.inside


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_garbage_is_decoded_or_refused(stream: list[bytes]) -> None:
    decoder = protocol.FrameDecoder(bytes_max=100)
    try:
        for data in stream:
            assert all(len(message) <= 100 for message in decoder.feed(data))
            assert decoder.missing > 0
    except ProtocolError:
        pass


# Requests


def test_a_request_comes_through() -> None:
    message = protocol.build_request(7, 5, "put", ["table", "", b"key", b"\x01"])
    assert protocol.parse_request(message) == (7, 5, "put", ["table", "", b"key", b"\x01"])
    assert protocol.parse_request(bytearray(message)).operation == "put"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ([], "4 fields"),
        ([1, 1, "put"], "4 fields"),
        ([1, 1, "put", [], 0], "4 fields"),
        ({"id": 1}, "not a list"),
        (None, "not a list"),
        ("put", "not a list"),
        (["1", 1, "put", []], "id is '1'"),
        ([True, 1, "put", []], "id is True"),
        ([-1, -1, "put", []], "id is -1"),
        ([1 << 63, 1, "put", []], "id is"),
        ([1.0, 1, "put", []], "id is 1.0"),
        ([3, 4, "put", []], "oldest"),
        ([3, -1, "put", []], "oldest"),
        ([3, None, "put", []], "oldest"),
        ([1000, 1000 - protocol.IN_FLIGHT_MAX, "put", []], "wait for an answer"),
        ([1, 1, "explode", []], "unknown operation 'explode'"),
        ([1, 1, b"put", []], "unknown operation"),
        ([1, 1, ["put"], []], "unknown operation"),
        ([1, 1, "put", {}], "not a list"),
        ([1, 1, "put", None], "not a list"),
        ([1, 1, "x" * 100_000, []], "unknown operation"),
    ],
)
def test_a_request_of_another_shape_is_refused(fields: Any, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint) as refused:
        protocol.parse_request(msgpack.packb(fields))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x94\x01\x01", b"\x01\x02", b"\x91" * 2000])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError, match="request"):
        protocol.parse_request(message)
    with pytest.raises(ProtocolError, match="answer"):
        protocol.parse_answer(message)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(message: bytes) -> None:
    try:
        request = protocol.parse_request(message)
    except ProtocolError:
        return
    assert request.operation in protocol.OPERATIONS


def test_as_many_requests_as_allowed_may_wait() -> None:
    oldest = 1000 - protocol.IN_FLIGHT_MAX + 1
    assert protocol.parse_request(protocol.build_request(1000, oldest, "ping", [])).id == 1000


LARGE = protocol.LARGE_BYTES


@pytest.mark.parametrize("size", [0, 200, LARGE - 1, LARGE, LARGE + 1, 17 << 20])
def test_a_large_request_is_framed_as_any_other(size: int) -> None:
    arguments = ["t", "", b"k", os.urandom(size)]
    expected = protocol.frame(protocol.build_request(300, 5, "put", arguments))
    assert (protocol.frame_request(300, 5, "put", arguments) == expected) is True
    del arguments[:3]
    expected = protocol.frame(protocol.build_request(300, 5, "put", arguments))
    assert (protocol.frame_request(300, 5, "put", arguments) == expected) is True


def test_a_large_request_beyond_the_limit_is_not_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "quick_frame", lambda *fields: None)
    monkeypatch.setattr(protocol, "FRAME_BYTES_MAX", LARGE)
    with pytest.raises(RecordTooLarge, match=f"the limit is {LARGE}"):
        protocol.frame_request(1, 1, "put", [b"x" * LARGE])


def test_a_request_beyond_the_limit_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "FRAME_BYTES_MAX", 100)
    with pytest.raises(RecordTooLarge, match="the limit is 100"):
        protocol.build_request(1, 1, "put", [b"x" * 100])
    with pytest.raises(RecordTooLarge):
        protocol.build_answer(1, b"x" * 100)


def test_the_kinds_of_operations_do_not_overlap() -> None:
    assert not protocol.MUTATIONS & protocol.INQUIRIES
    assert {"hello", "bye"} == protocol.OPERATIONS - protocol.MUTATIONS - protocol.INQUIRIES


# The hello


def request(operation: str, arguments: list[Any], request_id: int = 0) -> protocol.Request:
    return protocol.Request(request_id, 0, operation, arguments)


def test_a_hello_names_version_and_client() -> None:
    assert protocol.parse_hello(request("hello", [1, CLIENT_ID])) == (1, CLIENT_ID)


@pytest.mark.parametrize(
    "first",
    [
        request("put", [1, CLIENT_ID]),
        request("hello", [1, CLIENT_ID], request_id=1),
        request("hello", [1]),
        request("hello", [1, CLIENT_ID, 0]),
        request("hello", ["1", CLIENT_ID]),
        request("hello", [True, CLIENT_ID]),
        request("hello", [1, CLIENT_ID[:-1]]),
        request("hello", [1, CLIENT_ID.decode()]),
    ],
)
def test_another_first_request_is_refused(first: protocol.Request) -> None:
    with pytest.raises(ProtocolError):
        protocol.parse_hello(first)


# Answers


@pytest.mark.parametrize("result", [None, 3, b"bytes", ["a", [1, b"v"]], {"pid": 1, 2: 3}, 1 << 63])
def test_a_result_comes_through(result: Any) -> None:
    assert protocol.parse_answer(protocol.build_answer(9, result)) == (9, result, None)


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ShmstoreError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_through_as_what_it_was(kind: type[ShmstoreError]) -> None:
    error = kind("what happened: é", size=3, key=b"\xff", message="a detail", code=7)
    answer = protocol.parse_answer(protocol.build_error(4, error))
    assert answer.id == 4
    assert type(answer.error) is kind
    assert str(answer.error) == "what happened: é"
    assert answer.error.details == error.details


@pytest.mark.parametrize("detail", [object(), {1, 2}, 1 << 70, "\ud800", datetime(2024, 1, 1)])
def test_an_error_whose_details_cannot_travel_still_arrives(detail: Any) -> None:
    error = errors.InvalidRecord("bad \ud800 text", value=detail)
    answer = protocol.parse_answer(protocol.build_error(4, error))
    assert isinstance(answer.error, errors.InvalidRecord)
    assert str(answer.error) == "bad \\ud800 text"
    assert set(answer.error.details) == {"value"}


def test_an_error_of_a_later_release_is_still_ours() -> None:
    answer = protocol.parse_answer(msgpack.packb([1, 999, "news", {"size": 2}]))
    assert type(answer.error) is ShmstoreError
    assert answer.error.details == {"size": 2}


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [1, 0],
        [1, 0, None, None],
        [1, 2, "text"],
        [1, "0", None],
        [1, True, "text", {}],
        [1, -1, "text", {}],
        [1, 2, b"text", {}],
        [1, 2, "text", []],
        [1, 2, "text", {1: 2}],
        [-1, 0, None],
        ["1", 0, None],
        {"id": 1},
    ],
)
def test_an_answer_of_another_shape_is_refused(fields: Any) -> None:
    with pytest.raises(ProtocolError, match="answer"):
        protocol.parse_answer(msgpack.packb(fields))
