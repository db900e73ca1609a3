"""Records to bytes and back: what comes back equal, what is refused, and what hostile bytes do."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import math
import struct
import tracemalloc
import uuid
from contextlib import suppress
from datetime import timedelta, timezone
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shmstore import codec, layout
from shmstore.errors import InvalidArgument, InvalidRecord, ProtocolError, RecordTooLarge

UTC = timezone.utc
relaxed = settings(deadline=None)
NAN = float("nan")
FIRST = datetime.datetime(1, 1, 1, tzinfo=UTC)
NOON = datetime.datetime(2024, 1, 1, 12, tzinfo=UTC)
LAST = datetime.datetime.max.replace(tzinfo=UTC)


def in_utc(value: datetime.datetime) -> bool:
    try:
        value.astimezone(UTC)
    except OverflowError:
        return False
    return True


zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
integers = st.integers(-(2**63), 2**64 - 1)
keys = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | st.text() | st.binary()
scalars = (
    keys | st.floats() | st.datetimes(timezones=zones).filter(in_utc) | st.binary(max_size=300)
)
records = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=30,
)


def same(one: Any, other: Any) -> bool:
    """Tell whether the two are equal, in their types too and with nan as one value."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=True)
        return len(one) == len(other) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (one != one and other != other)
    return bool(one == other)


def nested(depth: int, kind: type = list) -> Any:
    value: Any = kind()
    for _ in range(depth - 1):
        value = {"a": value} if kind is dict else kind((value,))
    return value


class TestRoundTrip:
    @pytest.mark.parametrize(
        "record",
        [
            None, True, False, 0, -1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 5e-324, 1.5,
            math.inf, -math.inf, NAN, -NAN, "", "\0", "日本語 ☃ \U0001f600", b"", b"\xff\0",
            b"x" * 70_000, [], {}, [[], [[]], {}, {"": {}}], {"": {"": [[], {}]}}, [None] * 70_000,
            {None: 1, True: 2, -7: 3, 2.5: 4, "s": 5, b"b": 6}, {math.inf: 1, -math.inf: 2},
            {"": None, b"": b"", 0: ""}, {i: i for i in range(70_000)}, "\xcb\x7f",
            b"\xcb\xff\xd6\xff",
            {b"\xcb\x7f\xf8": NAN, 2**63 + 0x7FF8: -1.7e308},
            FIRST, LAST, FIRST.replace(microsecond=1), datetime.datetime(1969, 12, 31, tzinfo=UTC),
            datetime.datetime(2514, 5, 30, 1, 53, 4, 1, tzinfo=UTC),
            datetime.datetime(2024, 2, 29, 1, 2, 3, 999_999, tzinfo=timezone(timedelta(hours=14))),
            [{"at": LAST, "nan": NAN, "list": [FIRST]}],
        ],
        ids=lambda record: ascii(record)[:30],
    )  # fmt: skip
    def test_comes_back_equal(self, record):
        data = codec.pack(record)
        codec.validate(data)
        assert same(codec.unpack(data), record)

    @pytest.mark.parametrize("kind", [list, dict])
    def test_deep_records_come_back_equal(self, kind):
        record = nested(400, kind)
        assert codec.unpack(codec.pack(record)) == record

    @relaxed
    @given(records)
    def test_any_record_comes_back_equal(self, record):
        data = codec.pack(record)
        codec.validate(data)
        assert same(codec.unpack(data), record)

    @relaxed
    @given(records)
    def test_readers_get_fresh_objects(self, record):
        data = codec.pack([record, []])
        codec.unpack(data)[1].append(1)
        assert codec.unpack(data)[1] == []

    @pytest.mark.parametrize(
        ("record", "expected"),
        [
            ((), []),
            ((1, (2, {"a": (3,)})), [1, [2, {"a": [3]}]]),
            ([(1,), NAN], [[1], NAN]),
            (bytearray(b"x"), b"x"),
            (memoryview(b"x"), b"x"),
            (msgpack.ExtType(5, b"x"), msgpack.ExtType(5, b"x")),
            (msgpack.ExtType(5, b"as a NaN: \xcb\xff"), msgpack.ExtType(5, b"as a NaN: \xcb\xff")),
            ([msgpack.ExtType(5, b"x"), NAN], [msgpack.ExtType(5, b"x"), NAN]),
            (("é", 2**64 - 1, {"é": ("é",)}), ["é", 2**64 - 1, {"é": ["é"]}]),
        ],
    )
    def test_kin_come_back_as_what_they_are_kin_to(self, record, expected):
        assert same(codec.unpack(codec.pack(record)), expected)

    def test_packing_changes_nothing(self):
        record = {"a": (1, [2]), "at": FIRST}
        codec.pack(record)
        assert record == {"a": (1, [2]), "at": FIRST}

    def test_a_zone_becomes_utc(self):
        at = datetime.datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5)))
        assert codec.unpack(codec.pack(at)).tzinfo is UTC


class Custom:
    pass


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Text(str):
    pass


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


class Nowhere(datetime.tzinfo):
    def utcoffset(self, at: datetime.datetime | None) -> None:
        return None

    tzname = dst = utcoffset


class Broken(datetime.tzinfo):
    def utcoffset(self, at: datetime.datetime | None) -> timedelta:
        raise RuntimeError("no offset")

    def dst(self, at: datetime.datetime | None) -> None:
        return None

    tzname = dst


class MyTime(datetime.datetime):
    pass


def circle_of_lists() -> Any:
    circle: list[Any] = [1]
    circle.append(circle)
    return circle


def circle_of_dicts() -> Any:
    inner: dict[str, Any] = {}
    outer = {"tuple": (0, inner)}
    inner["back"] = outer
    return outer


BAD = [
    (2**64, "int", "64 bits"),
    (-(2**63) - 1, "int", "64 bits"),
    ({1, 2}, "set", "list"),
    (frozenset(), "frozenset", "list"),
    (datetime.datetime(2024, 1, 1), "datetime", "time zone"),
    (datetime.datetime(2024, 1, 1, tzinfo=Nowhere()), "datetime", "time zone"),
    (datetime.datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "datetime", "9999"),
    (datetime.datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "datetime", "9999"),
    (MyTime(2024, 1, 1, tzinfo=UTC), "MyTime", "time zone"),
    (datetime.date(2024, 1, 1), "date", "convert"),
    (timedelta(1), "timedelta", "convert"),
    (decimal.Decimal(1), "Decimal", "convert"),
    (uuid.UUID(int=1), "UUID", "convert"),
    (1j, "complex", "two floats"),
    (Custom(), "Custom", "convert"),
    (Custom, "type", "convert"),
    (Hostile(), "Hostile", "convert"),
    (type("list", (), {})(), "list", "convert"),
    (len, "builtin_function_or_method", "convert"),
    (Text("x"), "Text", "str()"),
    (Colour.RED, "Colour", "int()"),
    (Point(1), "Point", "tuple()"),
    (collections.OrderedDict(a=1), "OrderedDict", "dict()"),
    (collections.defaultdict(list), "defaultdict", "dict()"),
    (collections.deque([1]), "deque", "convert"),
    (range(3), "range", "convert"),
    (iter([]), "list_iterator", "convert"),
    ("\ud800", "str", "surrogate"),
    ("ok \udfff", "str", "surrogate"),
    (msgpack.Timestamp(1, 1), "Timestamp", "convert"),
    (circle_of_lists(), "list", "circle"),
    (circle_of_dicts(), "dict", "circle"),
    (nested(10_000), "list", "flatter"),
    (nested(10_000, dict), "dict", "flatter"),
    (nested(10_000, tuple), "tuple", "flatter"),
]
BAD_KEYS = [
    NAN, -NAN, 2**64, -(2**63) - 1, (1, 2), (), "\ud800", FIRST, frozenset(), Text("x"), Colour.RED,
    Point(1), decimal.Decimal(1), Custom(), msgpack.Timestamp(1, 1), uuid.UUID(int=1),
    datetime.date(2024, 1, 1), Hostile(),
]  # fmt: skip


class TestRefusal:
    @pytest.mark.parametrize(("value", "kind", "hint"), BAD, ids=lambda v: type(v).__name__)
    def test_names_type_and_remedy(self, value, kind, hint):
        with pytest.raises(InvalidRecord) as caught:
            codec.pack(value)
        assert caught.value.details["type"] == kind
        assert hint in str(caught.value)
        assert len(str(caught.value)) < 400
        codec.message_pack(caught.value.details)

    @pytest.mark.parametrize(("value", "kind", "hint"), BAD, ids=lambda v: type(v).__name__)
    def test_names_the_path(self, value, kind, hint):
        with pytest.raises(InvalidRecord) as caught:
            codec.pack({"fine": [1], "a": [0, (1, {b"k": value})]})
        path = caught.value.details["path"]
        assert path.startswith("record['a'][1][1][b'k']")
        assert str(caught.value).startswith(path)

    @pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: type(key).__name__)
    @pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}])
    def test_keys(self, key, wrap):
        with pytest.raises(InvalidRecord) as caught:
            codec.pack(wrap({"fine": 1, key: 2}))
        assert caught.value.details["type"] == type(key).__qualname__
        assert caught.value.details["path"] in ("record", "record[0]", "record['a'][0]")
        assert "has a key" in str(caught.value)

    def test_the_path_of_a_bad_record_itself(self):
        with pytest.raises(InvalidRecord) as caught:
            codec.pack({1})
        assert caught.value.details == {"path": "record", "type": "set", "value": "{1}"}

    def test_the_first_culprit_is_named(self):
        with pytest.raises(InvalidRecord, match=r"record\['b'\]\[1\]"):
            codec.pack({"a": "\ud7ff", "b": [1, {2}], "c": {3}})

    def test_where_the_circle_closes(self):
        with pytest.raises(
            InvalidRecord, match=r"^record\['tuple'\]\[1\]\['back'\] is a container"
        ):
            codec.pack(circle_of_dicts())

    def test_long_paths_and_values_are_cut(self):
        with pytest.raises(InvalidRecord) as caught:
            codec.pack({"k" * 1000: [nested(100), [[[[[[[[[["\ud800" * 1000]]]]]]]]]]]})
        assert len(str(caught.value)) < 600
        assert "..." in caught.value.details["path"]
        str(caught.value).encode()

    def test_a_broken_zone(self):
        with pytest.raises(InvalidRecord, match="no offset"):
            codec.pack(datetime.datetime(2024, 1, 1, tzinfo=Broken()))

    def test_a_buffer_without_order(self):
        for record in (memoryview(b"abcdef")[::2], ((), memoryview(b"abcdef")[::2])):
            with pytest.raises(InvalidRecord, match="cannot be packed"):
                codec.pack(record)

    def test_wide_circles_end(self):
        circle: list[Any] = []
        circle.extend([circle] * 50)
        with pytest.raises(InvalidRecord, match="circle"):
            codec.pack(circle)

    def test_a_shared_container_is_no_circle(self):
        shared = [{1: (NAN,)}]
        record = codec.unpack(codec.pack([shared, shared, {"a": shared}]))
        assert len(record) == 3

    def test_too_large(self, monkeypatch):
        monkeypatch.setattr(layout, "VALUE_BYTES_MAX", 1000)
        assert len(codec.pack(b"x" * 997)) == 1000
        with pytest.raises(RecordTooLarge) as caught:
            codec.pack(b"x" * 998)
        assert caught.value.details == {"size": 1001, "limit": 1000}
        with pytest.raises(RecordTooLarge):
            codec.pack((b"x" * 998,))
        with pytest.raises(RecordTooLarge):
            codec.validate(msgpack.packb(b"x" * 998))

    @relaxed
    @given(st.data())
    def test_one_bad_thing_anywhere_is_found(self, data):
        bad = data.draw(st.sampled_from([value for value, *_ in BAD[:29]]))
        record, path = bad, ""
        for _ in range(data.draw(st.integers(0, 5))):
            around = data.draw(st.lists(scalars, max_size=4))
            at = data.draw(st.integers(0, len(around)))
            if data.draw(st.booleans()):
                record, path = [*around[:at], record, *around[at:]], f"[{at}]{path}"
            else:
                record, path = {**dict(enumerate(around)), "bad": record}, f"['bad']{path}"
        with pytest.raises(InvalidRecord) as caught:
            codec.pack(record)
        assert caught.value.details["path"] == "record" + path


def bomb(size: int) -> bytes:
    """Lists inside one another, each of which says it has ``size`` elements."""
    return (b"\xdd" + size.to_bytes(4, "big")) * 1000 + b"\x01" * (size - 5000)


HOSTILE = {
    "empty": b"",
    "reserved byte": b"\xc1",
    "half an int": b"\xcf\x00",
    "half a str": b"\xd9\x05abc",
    "two objects": b"\x01\x02",
    "bin beyond the end": b"\xc6\xff\xff\xff\xff\x00",
    "str beyond the end": b"\xdb\xff\xff\xff\xff\x00",
    "array beyond the end": b"\xdd\xff\xff\xff\xff\x00",
    "map beyond the end": b"\xdf\xff\xff\xff\xff\x00\x00",
    "ext beyond the end": b"\xc9\xff\xff\xff\xfe\x05\x00",
    "map without its last value": b"\x81\x01",
    "10,000 deep": b"\x91" * 10_000 + b"\x01",
    "10,000 maps deep": b"\x81\x01" * 10_000 + b"\x01",
    "million deep, cut": b"\x91" * 1_000_000,
    "list bomb": bomb(1_000_000),
}
UNREADABLE = {
    "not UTF-8": b"\xa1\xff",
    "key not UTF-8": b"\x81\xa1\xff\x01",
    "list as key": b"\x81\x91\x01\x01",
    "map as key": b"\x81\x80\x01",
    "timestamp of one byte": b"\xd4\xff\x01",
    "ext of 4 GiB": b"\xc9\xff\xff\xff\xff",
}


class TestHostileBytes:
    @pytest.mark.parametrize("data", list(HOSTILE.values()), ids=list(HOSTILE))
    def test_what_is_no_msgpack_object_is_refused(self, data):
        with pytest.raises(InvalidRecord):
            codec.validate(data)
        with pytest.raises(InvalidRecord):
            codec.unpack(data)

    @pytest.mark.parametrize("data", list(UNREADABLE.values()), ids=list(UNREADABLE))
    def test_what_no_record_can_be_is_refused_when_read(self, data):
        with pytest.raises(InvalidRecord, match="no readable msgpack"):
            codec.unpack(data)

    def test_no_record_has_a_time_beyond_the_years_of_datetime(self):
        with pytest.raises(InvalidRecord, match="no readable msgpack"):
            codec.unpack(b"\xc7\x0c\xff" + b"\0" * 4 + b"\x7f" + b"\xff" * 7)

    @pytest.mark.parametrize(
        "value", [None, 1, "text", bytearray(b"\x01"), memoryview(b"\x01"), []]
    )
    def test_a_value_is_bytes(self, value):
        with pytest.raises(InvalidRecord):
            codec.validate(value)

    @pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 100_000])
    def test_large_values_are_valid(self, size):
        for value in (b"x" * size, "x" * size, [0] * size):
            codec.validate(codec.pack(value))
        data = b"\xc6" + size.to_bytes(4, "big") + b"x" * size
        codec.validate(data)
        for wrong in (data + b"x", data[:-1]):
            with pytest.raises(InvalidRecord):
                codec.validate(wrong)

    def test_declared_lengths_take_no_memory(self):
        data = bomb(1_000_000)
        tracemalloc.start()
        try:
            with pytest.raises(InvalidRecord):
                codec.validate(data)
            with pytest.raises(ProtocolError):
                codec.message_unpack(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10 * len(data)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    @example(data=None)
    def test_whatever_the_bytes_only_our_errors_come_out(self, data):
        if data is None:
            everything = [*HOSTILE.values(), *UNREADABLE.values()]
        else:
            everything = [data.draw(st.binary() | mutated())]
        for each in everything:
            valid = outcome(codec.validate, each)
            readable = outcome(codec.unpack, each)
            assert valid or not readable
            outcome(codec.split_map, each)
            outcome(codec.canonical_packed, each)
            with suppress(ProtocolError):
                codec.message_unpack(each)


@st.composite
def mutated(draw) -> bytes:
    data = bytearray(codec.pack(draw(records)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def outcome(function: Any, data: bytes) -> bool:
    """Tell whether the function takes the bytes; anything but InvalidRecord is a failure."""
    try:
        function(data)
    except InvalidRecord:
        return False
    return True


class TestFields:
    @pytest.mark.parametrize("record", [None, 1, "a", ["a"], b"a", True])
    def test_what_is_no_mapping_has_no_fields(self, record):
        packed = codec.pack(record)
        assert codec.split_map(packed) is None

    @relaxed
    @given(st.dictionaries(keys, scalars))
    def test_split_and_join(self, record):
        packed = codec.pack(record)
        fields = codec.split_map(packed)
        assert fields is not None
        assert fields == {codec.pack(key): codec.pack(value) for key, value in record.items()}
        assert codec.join_map(fields) == packed

    @pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
    def test_maps_of_any_length(self, count):
        record = {f"k{i}": i for i in range(count)}
        packed = codec.pack(record)
        assert codec.join_map(codec.split_map(packed) or {}) == packed

    @pytest.mark.parametrize(
        "key", [b"\xd9\x02id", b"\xda\x00\x02id", b"\xdb\x00\x00\x00\x02id"], ids=ascii
    )
    def test_one_text_has_one_key(self, key):
        packed = b"\x82\xa2id\x01" + key + b"\x02"
        assert codec.split_map(packed) == {codec.pack("id"): b"\x02"}
        assert codec.unpack(packed) == {"id": 2}

    def test_long_keys_stay(self):
        for size in (31, 32, 255, 256, 65_535, 65_536):
            assert codec.split_map(codec.pack({"k" * size: 1})) == {codec.pack("k" * size): b"\x01"}

    def test_a_joined_map_may_be_too_large(self, monkeypatch):
        monkeypatch.setattr(layout, "VALUE_BYTES_MAX", 10)
        with pytest.raises(RecordTooLarge):
            codec.join_map({b"\x01": b"\x01", b"\x02": codec.pack(b"x" * 10)})


DIFFERENT = [
    None, True, False, 1, 0, -1, 1.0, 0.0, NAN, math.inf, "", "1", b"", b"1", [], [1], [1.0],
    [True], [[1]], [b"\x01"], [[]], {}, {1: 2}, {1.0: 2}, {True: 2}, [1, 2], [[1, 2]], {"a": None},
    {"a": {}}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, ["a", 1, "b", 2], [["a", 1], ["b", 2]], FIRST,
    LAST, "x" * 1024, "x" * 1025, b"x" * 1025, ["x" * 1025], 2**64 - 1, -(2**63), 1 << 53,
    float(1 << 53), msgpack.ExtType(1, b"x"), msgpack.ExtType(2, b"x"),
    "d", "m", b"\xc1d", b"\xc1m\x90",
]  # fmt: skip


class TestCanonical:
    def test_values_that_differ_in_type_or_value_differ(self):
        forms = {codec.canonical(value): value for value in DIFFERENT}
        assert len(forms) == len(DIFFERENT)
        names = {codec.index_name("field", value) for value in DIFFERENT}
        assert len(names) == len(DIFFERENT)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (0.0, -0.0),
            (NAN, -NAN),
            (NAN, struct.unpack("d", b"\x01\0\0\0\0\0\xf8\x7f")[0]),
            ([0.0], [-0.0]),
            ({0.0: -0.0}, {-0.0: 0.0}),
            ((1, (2,)), [1, [2]]),
            (b"x", bytearray(b"x")),
            ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}),
            (NOON, NOON.astimezone(timezone(timedelta(hours=9)))),
        ],
    )
    def test_is_the_same(self, one, other):
        assert codec.canonical(one) == codec.canonical(other)
        assert codec.index_name("f", one) == codec.index_name("f", other)

    @relaxed
    @given(records)
    def test_does_not_depend_on_the_order_of_maps(self, record):
        assert codec.canonical(record) == codec.canonical(reordered(record))

    @relaxed
    @given(records, records)
    def test_tells_records_apart(self, one, other):
        assert (codec.canonical(one) == codec.canonical(other)) == same(normal(one), normal(other))

    @relaxed
    @given(records)
    def test_is_short(self, record):
        assert len(codec.canonical(record)) <= codec.CANONICAL_BYTES_MAX

    @pytest.mark.parametrize("data", [b"\xcc\x01", b"\xcd\x00\x01", b"\xd3" + b"\0" * 7 + b"\x01"])
    def test_is_that_of_the_value_however_it_was_packed(self, data):
        assert codec.canonical_packed(data) == codec.canonical(1)
        assert codec.canonical_packed(b"\xdc\x00\x01" + data) == codec.canonical([1])

    def test_no_depth_meets_the_stack(self):
        assert codec.canonical_packed(b"\x91" * 1000 + b"\x01") != codec.canonical(1)
        assert codec.canonical(nested(500)) != codec.canonical(nested(499))

    def test_unhashable_keys_are_no_matter(self):
        one, other = b"\x82\x91\x01\x01\x80\x02", b"\x82\x80\x02\x91\x01\x01"
        assert codec.canonical_packed(one) == codec.canonical_packed(other)

    def test_index_names_name_the_field(self):
        assert codec.index_name("a", 1) != codec.index_name("b", 1)
        assert codec.index_name("a", 1) == codec.index_name_packed("a", codec.pack(1))
        assert b"" != codec.index_name("a", None) != codec.index_name("a", "")

    def test_what_no_record_can_hold_has_no_index(self):
        with pytest.raises(InvalidRecord):
            codec.index_name("a", {1})


def reordered(record: Any) -> Any:
    if isinstance(record, dict):
        return {key: reordered(value) for key, value in reversed(record.items())}
    return [reordered(item) for item in record] if isinstance(record, list) else record


def normal(record: Any) -> Any:
    """Return what equality in find goes by: sorted maps, positive zeros."""
    if isinstance(record, dict):
        pairs = [[normal(key), normal(value)] for key, value in record.items()]
        return {"map": sorted(pairs, key=lambda pair: codec.pack(pair[0]))}
    if isinstance(record, list):
        return [normal(item) for item in record]
    return record + 0.0 if isinstance(record, float) else record


class TestMessages:
    @relaxed
    @given(st.recursive(keys, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
    def test_round_trip(self, message):
        assert same(codec.message_unpack(codec.message_pack(message)), message)

    def test_subclasses_travel_as_what_they_are(self):
        message = [Text("put"), Colour.RED, Point(1)]
        assert codec.message_unpack(codec.message_pack(message)) == ["put", 1, [1]]

    def test_a_long_list(self):
        message = [1, 1, "put_many", ["t", "", [[f"k{i}", b"\xdc\xdd"] for i in range(70_000)]]]
        assert codec.message_unpack(codec.message_pack(message)) == message

    def test_bytearrays_are_read_too(self):
        assert codec.message_unpack(bytearray(b"\x92\x01\x02")) == [1, 2]
        assert codec.message_unpack(bytearray(b"\xdc\x00\x02\x01\x02")) == [1, 2]

    @pytest.mark.parametrize("data", [*HOSTILE.values(), *UNREADABLE.values()])
    def test_garbage(self, data):
        with pytest.raises(ProtocolError):
            codec.message_unpack(data)

    def test_maps_are_small(self):
        large = codec.message_pack({i: i for i in range(codec.MESSAGE_MAP_MAX + 1)})
        with pytest.raises(ProtocolError):
            codec.message_unpack(large)

    @pytest.mark.parametrize("message", ["\ud800", 2**64, {1}, Custom(), circle_of_lists()])
    def test_what_cannot_travel(self, message):
        with pytest.raises(InvalidArgument):
            codec.message_pack(["put", message])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536])
def test_what_stands_before_bytes_is_what_msgpack_writes(size: int) -> None:
    assert codec.bytes_head(size) + bytes(size) == msgpack.packb(bytes(size))
