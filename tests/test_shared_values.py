"""Values as bytes and back: exact types, what is shared inside, what cannot be shared."""

from __future__ import annotations

import collections
import copy
import math
import os
import pickle
import socket
import string
import sys
import threading
from array import array
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID, SafeUUID, uuid1
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmstore.pytest.values import NotShareable, Options, ValueGone, dumping
from shmstore.pytest.values.dumping import DEPTH_MAX, TOGETHER, dump, dump_each, load
from tests.shared_values import (
    PICKLED,
    UNPICKLED,
    Astray,
    Colour,
    Count,
    Ephemeral,
    Moment,
    Number,
    OwnZone,
    Point,
    Resists,
    Text,
    User,
    same,
    there_and_back,
)

LIST: list = [1]
BERLIN = ZoneInfo("Europe/Berlin")
AUTUMN = datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)

texts = st.text(st.characters(codec=None, exclude_categories=()))
zones = st.one_of(
    st.none(),
    st.timezones(),
    st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23))),
    st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23)), texts),
    st.just(timezone.utc),
)
hashables = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.complex_numbers(),
    texts,
    st.binary(),
    st.dates(),
    st.times(timezones=zones),
    st.datetimes(timezones=zones),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.uuids(),
    st.builds(PurePosixPath, st.text(string.printable)),
    st.builds(Path, st.text(string.printable)),
    st.builds(PureWindowsPath, st.text(string.printable)),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
    zones,
)
keys = st.recursive(
    hashables, lambda inner: st.lists(inner).map(tuple) | st.frozensets(inner), max_leaves=4
)
values = st.recursive(
    keys | st.builds(bytearray, st.binary()) | st.decimals(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.sets(hashables)
    ),
    max_leaves=20,
)


# Python's own types


@given(values)
@settings(max_examples=60)
def test_values_of_pythons_own_types_come_back_as_they_were_without_pickle(value):
    assert same(there_and_back(value, UNPICKLED), value)


VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**100),
    *(0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1j, complex(-0.0, math.nan)),
    *("", "ü\N{SNOWMAN}", "\ud800", "a\0b", b"", b"\xff", bytearray(), bytearray(b"\0x")),
    *([], {}, (), set(), frozenset(), [[]], ((),), {(): ()}, [bytearray(b"x"), {"a": (1,)}]),
    *({1: "int", "1": "str", b"1": "bytes", None: 0, 1.5: 0, (1, ("a", 2**70)): 0},),
    *({"z": 1, "a": 2, "m": 3}, {True: "bool"}, {0.0: "float"}, {frozenset({1}): 1}),
    *({1, "a", (2, 3)}, frozenset({frozenset(), b""}), ({1}, [{2}])),
    *(date.min, date.max, time.min, time.max, datetime.min, datetime.max),
    *(datetime(2024, 2, 29, 12, 30, 1, 999999), AUTUMN, AUTUMN.replace(fold=1)),
    *(datetime(1, 1, 1, tzinfo=timezone.utc), time(1, 2, 3, 4, tzinfo=BERLIN, fold=1)),
    *(timezone.utc, timezone(timedelta(hours=1)), timezone(timedelta(0), "Zulu"), BERLIN),
    *(timedelta.min, timedelta.max, timedelta(microseconds=-1), timedelta.resolution),
    *(Decimal("-0"), Decimal("1.10"), Decimal("NaN12"), Decimal("sNaN"), Decimal("-Infinity")),
    *(Decimal("1E+999999"), Decimal(10) ** 100, Fraction(-1, 3), Fraction(10**30, 7)),
    *(UUID(int=0), UUID(int=2**128 - 1, is_safe=SafeUUID.unsafe), uuid1()),
    *(Path("/a/b"), Path(), PurePosixPath("a"), PureWindowsPath("C:\\a"), Path("\udcff")),
    *(range(0), range(5, -5, -2), range(10**30)),
    *({"a": [{"b": ({1: {Decimal(1)}},)}]},),
]


@pytest.mark.parametrize("options", [UNPICKLED, PICKLED], ids=["without pickle", "with"])
def test_a_value_comes_back_as_it_was(options):
    for value in VALUES:
        assert same(there_and_back(value, options), value), value
        assert same(there_and_back([{"in": value}], options), [{"in": value}]), value


TWICE: list = []
CIRCLE: list = []
CIRCLE.append({"again": CIRCLE})


def test_a_value_is_stored_in_one_way_whoever_looks_at_it(monkeypatch):
    odd = [
        [TWICE, TWICE],
        {"a": TWICE, "b": TWICE},
        [User("Ann")],
        [array("i", [1])],
        [[OwnZone()]],
    ]
    all_of_them = [*VALUES, *([{"in": value}, {"more": [1, value]}] for value in [*VALUES, *odd])]
    short = [dump(value, PICKLED) for value in all_of_them] + [dump(CIRCLE, PICKLED)]
    monkeypatch.setattr(dumping, "quick_tree", lambda value: None)
    long = [dump(value, PICKLED) for value in all_of_them] + [dump(CIRCLE, PICKLED)]
    assert short == long


def deep(depth):
    value: list = [()]
    for _ in range(depth - 2):
        value = [value]
    return value


@pytest.mark.parametrize(
    "odd",
    [
        *([], [[(1, 2)]], [bytearray(b"x")], [OwnZone()], [datetime.now(OwnZone())], [1j, {2}]),
        *([TWICE, TWICE], [User("Ann")], [deep(DEPTH_MAX)], [deep(DEPTH_MAX + 1)]),
        *([array("b", [1] * 100)], [[memoryview(b"y" * 100)]]),
    ],
    ids=range(12),
)
def test_values_that_are_looked_at_together_are_stored_as_each_would_be_alone(odd):
    options = Options(buffer_bytes=100)
    plain: list[Any] = [{"n": number, "t": (number,)} for number in range(TOGETHER + 10)]
    values = [*plain[:3], *odd, {"in": odd}, [TWICE], *plain[3:], [TWICE], odd]
    first, alone = 0, []
    for value in values:
        alone.append(dump(value, options, first))
        first += len(alone[-1].buffers)
    together = list(dump_each(iter(values), options))
    assert [each[:2] for each in together] == [each[:2] for each in alone]


def test_what_comes_back_is_fresh():
    value = {"a": [1, {2}], "b": bytearray(b"x")}
    dumped = dump(value, PICKLED)
    one, other = (load(dumped.body, lambda number: memoryview(b""), "value") for _ in range(2))
    one["a"].append(3)
    one["b"].append(3)
    assert other == value == {"a": [1, {2}], "b": bytearray(b"x")}


def test_utc_and_zones_are_the_ones_there_are():
    utc, berlin = there_and_back([datetime.now(timezone.utc), AUTUMN], UNPICKLED)
    assert utc.tzinfo is timezone.utc
    assert berlin.tzinfo is BERLIN


@pytest.mark.parametrize("value", [msgpack.ExtType(1, b""), msgpack.Timestamp(1, 2)])
def test_types_of_msgpack_are_no_part_of_the_codec(value):
    assert same(there_and_back([value]), [value])
    with pytest.raises(NotShareable):
        dump([value], UNPICKLED)


@pytest.mark.parametrize(
    ("value", "frozen"),
    [
        (1, True),
        ((1, (b"x", Decimal(1), frozenset({AUTUMN}))), True),
        ([], False),
        ((1, ({},)), False),
        ((set(),), False),
        ((bytearray(),), False),
        (Point(1, 2), False),
    ],
)
def test_it_is_known_what_nobody_can_change(value, frozen):
    assert dump(value, PICKLED).frozen is frozen


# What stands in a value more than once


@pytest.mark.parametrize("part", [[1], {"a": 1}, {1}, bytearray(b"x"), ([],), (("a", "b"),)])
def test_what_is_shared_inside_comes_back_shared(part):
    one, other = there_and_back({"one": part, "other": [part]}).values()
    assert one is other[0]
    assert same(one, part)


@pytest.mark.parametrize("part", [(), (1, "a"), "text", frozenset({1})])
def test_constants_may_stand_anywhere_without_pickle(part):
    assert there_and_back([part, [part]], UNPICKLED) == [part, [part]]


def test_a_list_that_contains_itself():
    value: list = [1]
    value.append({"self": value})
    got = there_and_back(value)
    assert got[1]["self"] is got
    with pytest.raises(NotShareable, match=r"^value cannot be shared: list with parts that it h"):
        dump(value, UNPICKLED)


def test_a_tuple_that_holds_another_twice_is_not_unfolded():
    value: tuple = (1, ())
    for _ in range(100):
        value = (value, value)
    got = there_and_back(value)
    for _ in range(100):
        assert got[0] is got[1]
        got = got[0]
    assert got == (1, ())


# Deep values


def nested(depth, leaf):
    for turn in range(depth):
        leaf = [leaf] if turn % 2 else {"a": leaf}
    return leaf


@pytest.mark.parametrize("depth", [DEPTH_MAX, DEPTH_MAX + 1, DEPTH_MAX + 100])
def test_deep_values(depth):
    assert there_and_back(nested(depth, 1)) == nested(depth, 1)


@pytest.mark.parametrize("made", [list, tuple])
def test_deep_tuples_need_few_calls_inside_each_other(made):
    value = made([1])
    for _ in range(DEPTH_MAX - 1):
        value = made([value])
    assert there_and_back(value, UNPICKLED) == value


@pytest.mark.parametrize("depth", [5_000, 100_000])
@pytest.mark.parametrize("options", [UNPICKLED, Options()], ids=["without pickle", "with"])
def test_too_deep_values(depth, options):
    value: list = []
    for _ in range(depth):
        value = [value]
    with pytest.raises(NotShareable, match="nested") as caught:
        dump(value, options)
    assert caught.value.details["path"] == "value"
    while value:  # or the interpreter would take it apart in as many calls
        value = value.pop()


# Other types


OTHERS = [
    *(Text("a"), Count(1), Number.ONE, Colour.RED, Point(1, [2]), User("ada"), Moment.min),
    *(collections.OrderedDict(b=1, a=2), collections.Counter("aab"), collections.deque([1])),
    *(collections.defaultdict(list, a=[1]), array("i", [1, 2]), slice(1, 2), Ellipsis),
    *(int, len, os.path.join, TypeError),
    *([Text("a"), "a"], {Number.ONE: 1}, (Colour.RED,), {"a": {"b": [User("bob")]}}),
]


def test_all_that_can_be_pickled_comes_back_as_it_was():
    for value in OTHERS:
        assert same(there_and_back(value), value), value


def test_objects_that_refer_to_each_other():
    ada, bob = User("ada"), User("bob")
    ada.friends, bob.friends = [bob], [ada]
    got = there_and_back({"ada": ada, "bob": bob})
    assert got["ada"].friends[0] is got["bob"]
    assert got["bob"].friends[0] is got["ada"]


@pytest.mark.parametrize("zone", [ZoneInfo.no_cache("Europe/Berlin"), OwnZone()])
def test_zones_of_their_own_are_pickled(zone):
    value = {"when": AUTUMN.replace(tzinfo=zone)}
    got = there_and_back(value)["when"]
    assert type(got.tzinfo) is type(zone)
    assert got.tzinfo is not BERLIN
    assert got.replace(tzinfo=zone) == value["when"]
    with pytest.raises(NotShareable, match=r"^value\['when'\] .*a time zone of another kind"):
        dump(value, UNPICKLED)


# Buffers


def test_a_memoryview_comes_back_as_a_view_that_nobody_can_write_to():
    source = bytearray(range(100))
    dumped = dump([memoryview(source)], Options(buffer_bytes=100))
    (buffer,) = dumped.buffers
    source[0] = 7  # not copied yet
    (got,) = load(dumped.body, lambda number: memoryview(bytes(buffer)), "value")
    assert (type(got), bytes(got), got.readonly) == (memoryview, bytes(source), True)


def test_small_buffers_are_part_of_the_body():
    dumped = dump(memoryview(bytearray(99)), Options(buffer_bytes=100))
    assert dumped.buffers == []
    got = there_and_back(memoryview(bytearray(99)), Options(buffer_bytes=100))
    assert (bytes(got), got.readonly) == (bytes(99), True)


def test_a_memoryview_keeps_its_shape():
    value = memoryview(array("d", range(12))).cast("B").cast("d", (3, 4))
    got = there_and_back(value, Options(buffer_bytes=1))
    assert (got.shape, got.format, got.tolist()) == (value.shape, "d", value.tolist())


def test_buffers_are_numbered_on():
    values = [memoryview(b"a"), memoryview(b"b")]
    asked: list[int] = []

    def buffer(number: int) -> memoryview:
        asked.append(number)
        return values[number - 7]

    dumped = dump(values, Options(buffer_bytes=1), first=7)
    assert load(dumped.body, buffer, "value") == values
    assert asked == [7, 8]


# What cannot be shared

LOCK = threading.Lock()
HOSTILE = [
    # what cannot be shared, where it stands, its type, what is said of it
    (LOCK, "value", "_thread.lock", "cannot pickle '_thread.lock' object"),
    ({"a": [0, {1: LOCK}]}, "value['a'][1][1]", "_thread.lock", "lock"),
    ((1, ({2: [LOCK]},)), "value[1][0][2][0]", "_thread.lock", "lock"),
    ({len: {("k", sys): 1}}, f"value[{len!r}] key ('k', {sys!r})[1]", "module", "module"),
    ({(1, LOCK)}, f"value member (1, {LOCK!r})[1]", "_thread.lock", "lock"),
    (User("ada", secret=LOCK), "value.secret", "_thread.lock", "lock"),
    (User("ada", [User("bob", secret=[LOCK])]), "value.friends[0].secret[0]", "_thread.lock", ""),
    ([Point(1, {"p": LOCK})], "value[0] argument 2['p']", "_thread.lock", "lock"),
    (collections.deque([1, LOCK]), "value[1]", "_thread.lock", "lock"),
    (collections.OrderedDict(a=LOCK), "value['a']", "_thread.lock", "lock"),
    ((number for number in range(1)), "value", "generator", "generator"),
    ({"f": lambda: 1}, "value['f']", "function", "<lambda>"),
    ([type("Local", (), {})()], "value[0] argument 0", "type", "Local"),
    ([Resists()], "value[0]", "tests.shared_values.Resists", "(ZeroDivisionError: not me)"),
    ([Astray()], "value[0]", "tests.shared_values.Astray", "nowhere"),
    ([memoryview(b"abcd")[::2]], "value[0]", "memoryview", "make it contiguous"),
    ([1, [[[[[[[[[LOCK]]]]]]]]]], "value[1][0][0][0][0][0]...[0]", "_thread.lock", "lock"),
]


@pytest.mark.parametrize(("value", "path", "kind", "reason"), HOSTILE, ids=range(len(HOSTILE)))
def test_an_error_names_path_and_type_of_what_cannot_be_shared(value, path, kind, reason):
    with pytest.raises(NotShareable) as caught:
        dump(value, Options(name="value"))
    assert caught.value.details == {"path": path, "type": kind}
    assert str(caught.value).startswith(f"{path} cannot be shared: {kind} cannot be pickled (")
    assert reason in str(caught.value)


def test_objects_in_a_circle_are_not_to_blame():
    ada, bob = User("ada"), User("bob")
    ada.friends, bob.friends = [bob, ada], [ada]
    bob.secret = {"lock": LOCK}
    for value, path in ((ada, "value.friends[0].secret['lock']"), (bob, "value.secret['lock']")):
        with pytest.raises(NotShareable) as caught:
            dump(value, PICKLED)
        assert caught.value.details["path"] == path


def test_files_and_sockets_cannot_be_shared():
    here, there = socket.socketpair()
    with here, there, open(os.devnull) as file:
        for value in (here, file, file.fileno, iter(file)):
            with pytest.raises(NotShareable, match=r"^data\['of'\].* cannot be shared: "):
                dump({"of": value}, Options(name="data"))


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (Text("a"), "value", "tests.shared_values.Text"),
        ({"a": (1, {Colour.RED})}, f"value['a'][1] member {Colour.RED!r}", None),
        ({"a": [User("ada", secret=len)]}, "value['a'][0]", "tests.shared_values.User"),
        ({"a": 1, "b": [int]}, "value['b'][0]", "type"),
        ([0, {"b": [LIST, LIST]}], "value[1]['b']", "list"),
    ],
)
def test_without_pickle_an_error_names_what_has_no_code(value, path, kind):
    with pytest.raises(NotShareable, match=r"is for pickle alone, which is switched off") as caught:
        dump(value, UNPICKLED)
    assert caught.value.details["path"] == path
    assert kind in (None, caught.value.details["type"])


def test_a_value_that_breaks_its_own_repr():
    class Broken:
        def __repr__(self):
            raise RuntimeError

        def __reduce__(self):
            raise RuntimeError

    with pytest.raises(NotShareable, match=r"^value key <.*Broken.*> cannot be shared"):
        dump({Broken(): 1}, PICKLED)


def test_a_key_of_too_many_digits_to_be_shown():
    with pytest.raises(NotShareable, match=r"^value\[<?int"):
        dump({10**10_000: LOCK}, PICKLED)


def test_what_cannot_be_made_again_is_an_error_of_the_same_kind():
    with pytest.raises(NotShareable, match=r"^value was pickled, .*LookupError: nothing is left"):
        there_and_back([Ephemeral()])


def test_a_large_value_with_one_bad_part_needs_no_long_search():
    value: dict = {number: [number, {"a": number}] for number in range(20_000)}
    value[19_999][1]["b"] = LOCK
    with pytest.raises(NotShareable) as caught:
        dump(value, PICKLED)
    assert caught.value.details["path"] == "value[19999][1]['b']"


def test_memory_errors_are_what_they_are():
    class Large:
        def __reduce__(self):
            raise MemoryError

    with pytest.raises(MemoryError):
        dump(Large(), PICKLED)


@pytest.mark.parametrize("kind", [NotShareable, ValueGone])
def test_errors_can_be_pickled(kind):
    for copied in (
        pickle.loads(pickle.dumps(kind("no", path="p"))),
        copy.copy(kind("no", path="p")),
    ):
        assert (type(copied), str(copied), copied.details) == (kind, "no", {"path": "p"})
