"""The mapping and the sequence whose rows lie in the store, and the keys of such mappings."""

from __future__ import annotations

import collections
import copy
import math
import pickle
import threading
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmstore.pytest.values import Options, SharedSequence, load, store
from shmstore.pytest.values.keys import NoTableKey, exact_key, key_of, table_key
from tests.local import Local
from tests.shared_values import Caseless, Equal, Indexed, Moment, Number, Point, Text, same

UTC = timezone.utc
EAST = timezone(timedelta(hours=5))
BERLIN = ZoneInfo("Europe/Berlin")
DICT = {"b": {"n": 1, "tags": ["x"]}, "a": [2, (3,)], 7: None, (1, "x"): {4}}
LIST = [{"n": 1}, [2], None, "four", (5,)]


@pytest.fixture
def client():
    local = Local()
    yield local
    local.close()


@pytest.fixture
def shared(client):
    """A function that returns what a process gets for a value that is stored row by row."""

    def get(value: Any) -> Any:
        store(client, "values", "k", value, Options(as_table=True))
        return load(client, "values", "k")

    return get


# The mapping


def test_a_mapping_equals_its_dict_and_keeps_its_order(shared):
    mapping = shared(DICT)
    assert (mapping == DICT, mapping.__ne__(DICT)) == (True, False)
    assert DICT == mapping  # noqa: SIM300 - the other way round
    assert same(list(mapping.items()), list(DICT.items()))
    assert list(mapping) == list(mapping.keys()) == list(DICT)
    assert same(list(mapping.values()), list(DICT.values()))
    assert list(reversed(mapping)) == list(reversed(mapping.keys())) == list(reversed(DICT))
    assert list(reversed(mapping.values())) == list(reversed(DICT.values()))
    assert list(reversed(mapping.items())) == list(reversed(DICT.items()))
    assert len(mapping) == len(mapping.items()) == 4
    assert bool(mapping)
    assert isinstance(mapping, Mapping)


def test_an_empty_mapping(shared):
    mapping = shared({})
    assert mapping == {}
    assert not mapping
    assert (list(mapping), mapping.get(1), 1 in mapping) == ([], None, False)
    assert repr(mapping) == "<SharedMapping of 0 rows: {}>"


@pytest.mark.parametrize(
    "other",
    [
        {},
        {**DICT, "more": 1},
        {**DICT, "b": {"n": 1, "tags": []}},
        {"c" if key == "b" else key: row for key, row in DICT.items()},
        {"b": None, "a": None, 7: None, "x": None},
        list(DICT.items()),
        None,
    ],
)
def test_a_mapping_differs_from_all_others(shared, other):
    mapping = shared(DICT)
    assert (mapping == other, other == mapping) == (False, False)
    assert mapping != other


def test_mappings_equal_each_other_in_any_order(client):
    for key, value in (("one", DICT), ("other", dict(reversed(DICT.items())))):
        store(client, "values", key, value, Options(as_table=True))
    assert load(client, "values", "one") == load(client, "values", "other")


def test_lookups(shared):
    mapping = shared(DICT)
    assert mapping["b"] == {"n": 1, "tags": ["x"]}
    assert mapping.get((1, "x")) == {4}
    assert (mapping.get("c"), mapping.get("c", 1), mapping.get(7, 1)) == (None, 1, None)
    assert "a" in mapping
    assert b"a" not in mapping
    with pytest.raises(KeyError) as caught:
        mapping[8]
    assert caught.value.args == (8,)
    wrong: list[Any] = [[], {}, (1, [])]
    for unhashable in wrong:
        for look in (mapping.__getitem__, mapping.__contains__, mapping.get):
            with pytest.raises(TypeError, match="unhashable"):
                look(unhashable)


def test_keys_without_a_hash_are_refused_even_if_there_are_no_rows(shared):
    with pytest.raises(TypeError, match="unhashable"):
        shared({}).get([])


def test_a_text_that_equals_more_than_itself(shared):
    mapping = shared({"a": 1, "B": 2})
    assert Caseless("A") in mapping
    assert Caseless("b") not in mapping  # as in a dict: the hash differs


def test_each_touch_gives_a_row_of_its_own(shared):
    mapping = shared(DICT)
    mapping["b"]["tags"].append("y")
    next(iter(mapping.values()))["n"] = 2
    assert mapping == DICT
    assert mapping["b"] is not mapping["b"]


def test_views_are_sets(shared):
    mapping = shared({"a": 1, "b": 2, 3: 3})
    assert mapping.keys() & {"a", 3, "x"} == {"a", 3}
    assert mapping.keys() | {"x"} == {"a", "b", 3, "x"}
    assert mapping.keys() == {"a", "b", 3}
    assert mapping.items() & {("a", 1), ("b", 1)} == {("a", 1)}
    assert ("b", 2) in mapping.items()
    assert ("b", 3) not in mapping.items()
    assert 2 in mapping.values()
    assert 4 not in mapping.values()


def test_copies_are_dicts_of_ones_own(shared):
    mapping = shared(DICT)
    copies = [mapping.copy(), dict(mapping), {**mapping}, copy.copy(mapping)]
    copies += [copy.deepcopy(mapping), mapping | {}, {} | mapping]
    copies += [pickle.loads(pickle.dumps(mapping, protocol)) for protocol in range(6)]
    for copied in copies:
        assert same(copied, DICT)
    copies[0]["b"]["n"] = 2
    copies[0]["more"] = 1
    assert mapping == DICT


def test_unions_are_dicts(shared):
    mapping = shared(DICT)
    assert same(mapping | {"a": 1, 2: 2}, DICT | {"a": 1, 2: 2})
    assert same({"a": 1, 2: 2} | mapping, {"a": 1, 2: 2} | DICT)
    assert same(mapping | mapping, DICT)
    with pytest.raises(TypeError):
        mapping | [1]


# pytest.raises is given what a test might do by mistake.
CHANGES = {
    "setitem": lambda rows: rows.__setitem__(0, 1),
    "delitem": lambda rows: rows.__delitem__(0),
    "pop": lambda rows: rows.pop(0),
    "clear": lambda rows: rows.clear(),
}
CHANGES_OF_MAPPINGS = {
    **CHANGES,
    "ior": lambda rows: rows.__ior__({}),
    "update": lambda rows: rows.update(a=1),
    "popitem": lambda rows: rows.popitem(),
    "setdefault": lambda rows: rows.setdefault("a", 1),
}
CHANGES_OF_SEQUENCES = {
    **CHANGES,
    "iadd": lambda rows: rows.__iadd__([1]),
    "imul": lambda rows: rows.__imul__(2),
    "append": lambda rows: rows.append(1),
    "extend": lambda rows: rows.extend([1]),
    "insert": lambda rows: rows.insert(0, 1),
    "remove": lambda rows: rows.remove(None),
    "reverse": lambda rows: rows.reverse(),
    "sort": lambda rows: rows.sort(key=str),
}


@pytest.mark.parametrize("change", CHANGES_OF_MAPPINGS.values(), ids=list(CHANGES_OF_MAPPINGS))
def test_a_mapping_cannot_be_changed(shared, change):
    mapping = shared(DICT)
    with pytest.raises(TypeError, match=r"read-only.*value\.copy\(\) is a dict of all 4 rows"):
        change(mapping)
    assert mapping == DICT


def test_neither_can_be_hashed(shared):
    for rows in (shared(DICT), shared(LIST)):
        with pytest.raises(TypeError, match="unhashable"):
            hash(rows)


def test_a_repr_shows_the_first_rows(shared):
    assert repr(shared({"a": 1, 2: "b"})) == "<SharedMapping of 2 rows: {'a': 1, 2: 'b'}>"
    assert repr(shared(DICT)) == (
        "<SharedMapping of 4 rows: {'b': {'n': 1, 'tags': ['x']}, 'a': [2, (3,)], 7: None, ...}>"
    )
    assert repr(shared((1,))) == "<SharedSequence of 1 rows: (1)>"
    assert repr(shared(["x" * 1000, 2])) == f"<SharedSequence of 2 rows: ['{'x' * 79}..., 2]>"


# Keys

KEYS = [
    *("", "a", "ü", "\ud800", b"", b"a", b"\xa1a", None, True, 0, -1, 2**70, 1.5, -0.5),
    *(math.inf, Decimal("-Infinity"), 10.0**300, Decimal("0.1"), Fraction(1, 3), 1j, 5e-324),
    *((), (1, ("a", None)), (1.0, True), frozenset(), frozenset({1, "a", (2,)}), frozenset({2.0})),
    *(date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), time(1), time.max),
    *(
        datetime(2024, 1, 1, 2, fold=1),
        datetime(2024, 1, 1, tzinfo=EAST),
        timedelta(1),
        UUID(int=7),
    ),
    *(Path("a"), Path("/b/c"), PurePosixPath("b"), -2.0, Decimal("3.00"), Fraction(8, 2), 5 + 0j),
]
"""No two of them are equal."""


def test_keys_of_many_types(shared):
    value = {key: number for number, key in enumerate(KEYS)}
    assert len(value) == len(KEYS)
    mapping = shared(value)
    assert same(list(mapping), KEYS)
    assert same(list(mapping.items()), list(value.items()))
    assert [mapping[key] for key in KEYS] == list(range(len(KEYS)))
    assert mapping == value
    assert same(mapping.copy(), value)


@pytest.mark.parametrize(
    ("key", "equals"),
    [
        (1, [True, 1.0, Decimal("1.0"), Fraction(3, 3), 1 + 0j, Number.ONE, Indexed(1), Equal(1)]),
        (True, [1, 1.0]),
        (0.0, [0, -0.0, False, Decimal("-0"), Decimal("0E+999999"), 0j]),
        (0.5, [Decimal("0.50"), Fraction(1, 2), 0.5 + 0j, Equal(0.5)]),
        (Decimal("0.1"), [Fraction(1, 10), Decimal("0.10")]),
        (0.1, [Decimal.from_float(0.1), Fraction(0.1)]),
        (2**70, [2.0**70, Decimal(2**70)]),
        (math.inf, [Decimal("Infinity"), complex(math.inf, 0.0)]),
        (Decimal("1E+500"), [10**500, Fraction(10**500)]),
        (complex(0.0, 1), [complex(-0.0, 1)]),
        ("a", [Text("a"), Equal("a")]),
        (b"a", [type("Bytes", (bytes,), {})(b"a"), Equal(b"a")]),
        ((1, 2.5), [(True, Decimal("2.5")), Point(1, 2.5), (Indexed(1), Equal(2.5))]),
        (frozenset({1, (2,)}), [frozenset({(2.0,), True}), Equal(frozenset({1, (2,)}))]),
        (datetime(2024, 1, 1, 5, tzinfo=EAST), [datetime(2024, 1, 1, tzinfo=UTC)]),
        (datetime(2024, 1, 1, tzinfo=UTC), [datetime(2024, 1, 1, 1, tzinfo=BERLIN)]),
        (datetime(2024, 1, 1), [datetime(2024, 1, 1, fold=1), Moment(2024, 1, 1)]),
        (time(1), [time(1, fold=1)]),
        (frozenset([8, 16]), [frozenset([16, 8])]),
        ("a", [Caseless("a"), Caseless("A")]),
        (PurePosixPath("a/b"), [Path("a/b")]),
        (Path("a/b"), [PurePosixPath("a/b")]),
    ],
)
def test_a_row_is_found_by_whatever_equals_its_key(shared, key, equals):
    plain = {key: "found", "other": "no", (7,): "no"}
    mapping = shared(plain)
    for equal in equals:
        assert plain[equal] == "found"
        assert mapping[equal] == "found", equal
        assert equal in mapping
    assert same(next(iter(mapping)), key)


@pytest.mark.parametrize(
    "key",
    [
        *(math.nan, (math.nan,), Decimal("NaN"), object(), Number, BERLIN, range(3), Equal("b")),
        *(
            Caseless("B"),
            datetime(2024, 1, 1, tzinfo=BERLIN),
            datetime(1, 1, 1, tzinfo=EAST),
            time(1, tzinfo=UTC),
        ),
        *("x" * 70_000, b"x" * 70_000, Decimal("1E+99999"), PureWindowsPath("a"), 2, "A", b"b"),
        *(complex(math.nan, 1), datetime(2024, 1, 1, tzinfo=UTC), date(2024, 1, 1), Indexed(2)),
    ],
)
def test_other_keys_are_not_found(shared, key):
    mapping = shared({"a": 1, 1: 2, datetime(2024, 1, 1): 3, (1,): 4})
    assert key not in mapping
    assert mapping.get(key) is None
    with pytest.raises(KeyError):
        mapping[key]


@pytest.mark.parametrize("key", [math.nan, Number.ONE, Text("a"), Point(1, 2), range(3), object])
def test_keys_that_no_row_can_have(key):
    with pytest.raises(NoTableKey):
        exact_key(key, table_key(key))


storable = st.recursive(
    st.one_of(
        st.sampled_from(KEYS),
        st.booleans(),
        st.integers(),
        st.integers(-4, 4).map(lambda number: number / 2),
        st.fractions(-2, 2, max_denominator=4),
        st.decimals(-2, 2, places=1),
        st.floats(allow_nan=False),
        st.complex_numbers(allow_nan=False),
        st.text(max_size=2),
        st.binary(max_size=2),
        st.datetimes(
            datetime(2024, 1, 1), datetime(2024, 1, 2), timezones=st.sampled_from([None, UTC, EAST])
        ),
    ),
    lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)


@given(storable, storable)
def test_two_keys_have_one_table_key_if_they_are_equal_and_only_then(one, other):
    assert (one == other) == (table_key(one) == table_key(other))


@given(storable)
def test_a_key_comes_back_as_it_was(key):
    stored = table_key(key)
    kept = exact_key(key, stored)
    assert same(key_of(stored if kept is None else kept), key)


# The sequence


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_sequence_equals_what_it_stands_for(shared, kind):
    value = kind(LIST)
    sequence = shared(value)
    assert isinstance(sequence, Sequence)
    assert type(sequence) is SharedSequence
    assert (sequence == value, value == sequence, sequence != value) == (True, True, False)
    assert same(list(sequence), LIST)
    assert list(reversed(sequence)) == LIST[::-1]
    assert [sequence[number] for number in range(-5, 5)] == LIST * 2
    assert (sequence.index([2]), sequence.count(None), (5,) in sequence) == (1, 1, True)
    assert sequence != kind([*LIST[:-1], 0])
    assert sequence != kind([*LIST, 0])
    assert sequence != (tuple if kind is list else list)(LIST)
    assert sequence != None  # noqa: E711 - the comparison is what is tested
    assert len(sequence) == 5


def test_more_rows_than_ten(shared):
    assert list(shared(list(range(200)))) == list(range(200))


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(
    "part", [slice(None), slice(1, 3), slice(None, None, -2), slice(-2, 99), slice(3, 1)]
)
def test_slices(shared, kind, part):
    assert same(shared(kind(LIST))[part], kind(LIST)[part])


@pytest.mark.parametrize("kind", [list, tuple])
def test_positions_that_are_none(shared, kind):
    sequence = shared(kind(LIST))
    for position in (5, -6):
        with pytest.raises(IndexError, match=f"{kind.__name__} index out of range"):
            sequence[position]
    with pytest.raises(TypeError):
        sequence["1"]
    assert sequence[Indexed(1)] == [2]


@pytest.mark.parametrize("kind", [list, tuple])
def test_copies_and_sums_are_plain(shared, kind):
    value = kind(LIST)
    sequence = shared(value)
    copies = [sequence.copy(), kind(sequence), copy.copy(sequence), copy.deepcopy(sequence)]
    copies += [sequence + kind(), kind() + sequence, sequence * 1, 1 * sequence]
    copies += [pickle.loads(pickle.dumps(sequence, protocol)) for protocol in range(6)]
    for copied in copies:
        assert same(copied, value)
    assert same(sequence + sequence, value + value)


@pytest.mark.parametrize("change", CHANGES_OF_SEQUENCES.values(), ids=list(CHANGES_OF_SEQUENCES))
def test_a_sequence_cannot_be_changed(shared, change):
    sequence = shared(LIST)
    with pytest.raises(TypeError, match=r"read-only.*value\.copy\(\) is a list of all 5 rows"):
        change(sequence)
    assert sequence == LIST


def test_a_tuple_grows_into_a_new_one(shared):
    grown = sequence = shared((1, 2))
    grown += (3,)
    assert grown == (1, 2, 3)
    grown = sequence
    grown *= 2
    assert grown == (1, 2, 1, 2)
    assert sequence == (1, 2)


# Walks


@pytest.mark.parametrize("walk", [iter, reversed, lambda rows: iter(rows.items())])
def test_a_walk_holds_few_rows_at_a_time(shared, client, monkeypatch, walk):
    mapping = shared({number: "x" * 100_000 for number in range(60)})
    fetched: collections.Counter[str] = collections.Counter()
    read = client.read

    def counted(method, *arguments):
        answer = read(method, *arguments)
        fetched[method] += sum(len(row[1] or b"") for row in answer) if method == "chunk" else 1
        return answer

    monkeypatch.setattr(client, "read", counted)
    next(walk(mapping))
    assert fetched["chunk"] <= 4 << 20


def test_a_walk_over_many_keys(shared):
    value = {str(number) if number % 3 else number: number for number in range(3000)}
    mapping = shared(value)
    assert list(mapping) == list(value)
    assert list(mapping.items()) == list(value.items())


def test_threads_read_at_once(shared):
    mapping = shared({number: {"n": number} for number in range(500)})
    sums = []

    def add_up() -> None:
        sums.append(sum(row["n"] for row in mapping.values()) + mapping[7]["n"])

    threads = [threading.Thread(target=add_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [sum(range(500)) + 7] * 4
