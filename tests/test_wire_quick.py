"""The short cuts of both engines: what they give is what the codec gives, or they give nothing."""

from __future__ import annotations

import math
import struct
from datetime import datetime, timezone
from enum import IntEnum
from types import ModuleType
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmstore import codec, protocol
from shmstore.errors import InvalidRecord, ProtocolError, ShmstoreError

SHARED = settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)  # an engine has no state


class Number(IntEnum):
    ONE = 1


EDGES = [
    sign * (1 << bits) + step
    for bits in (0, 4, 5, 7, 8, 15, 16, 31, 32, 62)
    for step in (-1, 0, 1)
    for sign in (-1, 1)
]
SIZES = [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536]
SAMPLES: list[Any] = [
    *EDGES, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63),
    None, True, False, 0.0, -0.0, 1.5, math.inf, -math.inf, 1e308, 5e-324,
    *("x" * size for size in SIZES), *("é" * size for size in SIZES), "\0", "😀", "a\0é",
    *(b"x" * size for size in SIZES),
    *([None] * size for size in SIZES), (), (1, (2, [3])),
    *({f"{number}": number for number in range(size)} for size in SIZES),
    {1: 1, b"k": 2, "k": 3}, {None: 0, True: 1, 2.5: 2}, {"nested": [{"a": [{}, [], ()]}]},
    datetime(2026, 7, 30, tzinfo=timezone.utc), bytearray(b"x"), memoryview(b"x"),
]  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text()
    | st.binary()
)
keys = st.text() | st.binary() | st.integers(-(1 << 63), (1 << 64) - 1)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=30,
)


def reference(message: list[Any]) -> bytes:
    return protocol.frame(codec.message_pack(message))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_packing_gives_the_bytes_of_the_codec(engine: ModuleType, record: Any) -> None:
    assert engine.pack(record) == codec.pack(record)
    frame = engine.quick_frame(7, 5, "put", ["t", "", b"k", record])
    if frame is not None:
        assert frame == reference([7, 5, "put", ["t", "", b"k", record]])


@given(record=plain)
@SHARED
def test_packing_agrees_on_whatever_there_is(engine: ModuleType, record: Any) -> None:
    assert engine.pack(record) == codec.pack(record)
    assert engine.quick_frame(record) in (None, reference([record]))


@pytest.mark.parametrize(
    "record",
    [
        *("\ud800", ["\ud800"], {"\ud800": 1}, {math.nan: 1}, 1 << 64, -(1 << 63) - 1),
        *(object(), {1, 2}, 1j, Number.ONE, {(1,): 1}, {"a": {"b": [Number.ONE]}}),
        *(datetime(2026, 7, 30), nested(2000)),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_cannot_be_stored_is_refused_as_the_codec_does(
    engine: ModuleType, record: Any
) -> None:
    with pytest.raises(InvalidRecord) as expected:
        codec.pack(record)
    with pytest.raises(InvalidRecord) as caught:
        engine.pack(record)
    assert str(caught.value) == str(expected.value)


def test_a_container_inside_itself_is_refused(engine: ModuleType) -> None:
    circle: list[Any] = []
    circle.append({"again": circle})
    with pytest.raises(InvalidRecord, match="inside itself"):
        engine.pack(circle)
    assert engine.quick_frame(circle) is None


def test_deep_records_are_packed_all_the_same(engine: ModuleType) -> None:
    for depth in (62, 63, 64, 65, 500):
        assert engine.pack(nested(depth)) == codec.pack(nested(depth))
        assert engine.quick_frame(nested(depth)) in (None, reference([nested(depth)]))


records = st.dictionaries(st.text() | st.binary(), plain, max_size=40)


def put_many(pairs: Any) -> list[Any]:
    return [7, 5, "put_many", ["t", "", pairs]]


@given(batch=records)
@SHARED
def test_pairs_are_those_that_the_codec_makes(engine: ModuleType, batch: dict[Any, Any]) -> None:
    quick = engine.quick_pairs(batch)
    if quick is None:
        return
    pairs = [[key, codec.pack(record)] for key, record in batch.items()]
    assert codec.message_pack(quick) == codec.message_pack(pairs)
    for frame in (engine.quick_frame(*put_many(quick)), protocol.frame_request(*put_many(quick))):
        assert frame in (None, reference(put_many(pairs)))


def test_pairs_of_plain_records_are_made_by_the_native_engine(engine: ModuleType) -> None:
    batch: dict[Any, Any] = {f"k{number}": {"n": number} for number in range(70_000)}
    quick = engine.quick_pairs(batch)
    assert (quick is not None) == (engine.NAME == "native")
    if quick is not None:
        frame = engine.quick_frame(*put_many(quick))
        pairs = [[key, codec.pack(record)] for key, record in batch.items()]
        assert (frame == reference(put_many(pairs))) is True
        within: list[Any] = [1, 1, "transaction", [["put_many", ["t", "", quick]]]]
        opened: list[Any] = [1, 1, "transaction", [["put_many", ["t", "", pairs]]]]
        assert (protocol.frame_request(*within) == reference(opened)) is True


@pytest.mark.parametrize(
    "batch",
    [
        {5: 1}, {"\ud800": 1}, {"k" * 65_537: 1}, {b"k" * 65_537: 1}, {"k": object()},
        {"a": 1, "k": {1, 2}}, [("k", 1)], {Number.ONE: 1},
    ],
    ids=range(8),
)  # fmt: skip
def test_pairs_that_are_not_plain_are_left_to_the_codec(engine: ModuleType, batch: Any) -> None:
    assert engine.quick_pairs(batch) is None


def test_a_packed_argument_is_no_record(engine: ModuleType) -> None:
    with pytest.raises(InvalidRecord):
        engine.pack(codec.Packed(b"\x01"))


@pytest.mark.parametrize(
    "made",
    [
        lambda: {"a": [{}, [None, True, 1, -5, 2.5, "é", b"x"]], 7: {"b": []}, b"k": [[]]},
        lambda: [{"n": number, "tags": ["x"] * (number % 40)} for number in range(300)],
        *(lambda value=value: value for value in (None, 7, 1.5, "text", b"bytes", math.nan)),
        lambda: nested(63),
    ],
)
def test_a_tree_is_packed_as_the_codec_does(engine: ModuleType, made: Any) -> None:
    value = made()
    expected = codec.pack(value) if value == value else b"\xcb" + struct.pack(">d", value)
    assert engine.quick_tree(value) == (expected if engine.NAME == "native" else None)


@given(value=plain)
@SHARED
def test_a_tree_is_packed_as_it_is_or_not_at_all(engine: ModuleType, value: Any) -> None:
    packed = engine.quick_tree(value)
    if packed is not None:
        assert same(msgpack.unpackb(packed, strict_map_key=False), value)


PART: list[Any] = []
CIRCLE: list[Any] = [[]]
CIRCLE[0].append(CIRCLE)
OWN: dict[str, Any] = {}
OWN["own"] = OWN


@pytest.mark.parametrize(
    "value",
    [
        [PART], {"a": PART}, [PART, PART], CIRCLE, OWN, (), [(1, 2)], {"a": ()}, {(1,): 1},
        bytearray(b"x"), [bytearray(b"x")], memoryview(b"x"), {1, 2}, [Number.ONE],
        {"k": msgpack.ExtType(1, b"")}, [msgpack.Timestamp(1)], datetime(2026, 7, 30),
        {None: 1}, {True: 1}, {1.5: 1}, "\ud800", [1 << 64], nested(64), nested(2000),
    ],
    ids=range(24),
)  # fmt: skip
def test_what_may_be_no_tree_is_none(engine: ModuleType, value: Any) -> None:
    assert engine.quick_tree(value) is None


@pytest.mark.parametrize("size", [(1 << 24) - 100, (1 << 24) - 5, 1 << 24, 1 << 25])
def test_what_is_large_is_packed_all_the_same(engine: ModuleType, size: int) -> None:
    value = b"x" * size
    assert (engine.pack(value) == codec.pack(value)) is True
    assert (engine.pack([1, value]) == codec.pack([1, value])) is True
    frame = engine.quick_frame(value)
    assert frame is None or (frame == reference([value])) is True


def outcome(data: bytes) -> list[tuple[int, Any, ShmstoreError | None]] | None:
    """Return the answers of ``data`` by the long way; None if it is not whole answers."""
    decoder = protocol.FrameDecoder()
    try:
        answers = [tuple(protocol.parse_answer(message)) for message in decoder.feed(data)]
    except ProtocolError:
        return None
    return None if decoder.inside else answers


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


RESULTS = [None, True, False, *(edge for edge in EDGES if edge >= 0), 1 << 63, (1 << 64) - 1]


@pytest.mark.parametrize("result", [*RESULTS, -1, "text", b"", [], {}, 1.5], ids=repr)
def test_answers_of_success_are_read_as_the_protocol_does(engine: ModuleType, result: Any) -> None:
    frames = [protocol.frame(protocol.build_answer(each, result)) for each in (1, 300, 1 << 40)]
    for data in (frames[0], b"".join(frames)):
        quick = engine.quick_answers(data)
        assert quick is None or same(quick, outcome(data))


@given(
    results=st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.none() | st.integers(0))),
    cut=st.integers(0, 40),
    rest=st.binary(max_size=12),
)
@SHARED
def test_a_torn_or_senseless_stream_is_left_to_the_protocol(
    engine: ModuleType, results: list[tuple[int, Any]], cut: int, rest: bytes
) -> None:
    messages = [codec.message_pack([number, 0, min(result or 0, 99)]) for number, result in results]
    data = b"".join(map(protocol.frame, messages))
    for stream in (data, data[: len(data) - cut], data + rest, rest):
        quick = engine.quick_answers(stream)
        assert quick is None or same(quick, outcome(stream))


@given(message=st.binary(max_size=24))
@SHARED
def test_no_message_is_understood_that_the_protocol_does_not(
    engine: ModuleType, message: bytes
) -> None:
    for start in (b"", b"\x93", b"\x93\x01\x00", b"\x93\xcf"):
        stream = protocol.frame(start + message)
        quick = engine.quick_answers(stream)
        assert quick is None or same(quick, outcome(stream))


@given(
    messages=st.lists(st.binary(max_size=30)),
    cut=st.integers(0, 40),
    rest=st.binary(max_size=12),
    bytes_max=st.integers(0, 40),
)
@SHARED
def test_messages_are_whole_or_left_to_the_decoder(
    engine: ModuleType, messages: list[bytes], cut: int, rest: bytes, bytes_max: int
) -> None:
    data = b"".join(map(protocol.frame, messages))
    for stream in (data, data[: len(data) - cut], data + rest, rest):
        quick = engine.quick_messages(stream, bytes_max)
        if quick is not None:
            assert b"".join(map(protocol.frame, quick)) == stream
            assert all(len(message) <= bytes_max for message in quick)
    quick = engine.quick_messages(data, 40)
    assert quick is None or quick == messages


def test_the_native_engine_has_short_cuts(engine: ModuleType) -> None:
    quick = engine.NAME != "pure"
    assert (engine.quick_frame(1, 1, "ping", []) is not None) == quick
    messages = protocol.frame(b"1") + protocol.frame(b"23")
    assert engine.quick_messages(messages, 2) == ([b"1", b"23"] if quick else None)
    answers = protocol.frame(protocol.build_answer(1, 2)) * 2
    assert engine.quick_answers(answers) == ([(1, 2, None)] * 2 if quick else None)
