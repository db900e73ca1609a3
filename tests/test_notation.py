"""The form of records in JSON: everything a record may hold comes back as what it was."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmstore.commands.notation import from_json, to_json

offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(timezones=offsets)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | times
)
keys = st.sampled_from(["$bytes", "$map", "$other", "$"]) | st.text(
    st.characters(exclude_categories=["Cs"])
)
other_keys = keys | st.binary() | st.integers(-(2**63), 2**64 - 1) | st.none()
records = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(other_keys, inner, max_size=3)
    ),
    max_leaves=12,
)


def typed(value):
    """Return ``value`` in a form that is equal only for equal values of the same types."""
    if isinstance(value, dict):
        return [(typed(key), typed(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), str(value)


@given(records)
def test_every_record_comes_back(record):
    text = to_json(record)
    assert "\n" not in text
    json.loads(text, parse_constant=pytest.fail)
    assert typed(from_json(text)) == typed(record)
    assert typed(from_json(to_json(record, indent=2))) == typed(record)


def test_a_nan_comes_back():
    assert math.isnan(from_json(to_json(math.nan)))


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"\x00\x01", '{"$bytes":"AAE="}'),
        (datetime(2026, 7, 11, tzinfo=timezone.utc), '{"$datetime":"2026-07-11T00:00:00+00:00"}'),
        (-math.inf, '{"$float":"-inf"}'),
        ({1: "one"}, '{"$map":[[1,"one"]]}'),
        ({"$bytes": 1}, '{"$map":[["$bytes",1]]}'),
        ({"$bytes": 1, "b": 2}, '{"$bytes":1,"b":2}'),
        ("é\n", '"é\\n"'),
    ],
)
def test_the_forms(record, text):
    assert to_json(record) == text
    assert from_json(text) == record


def test_a_time_may_end_in_z():
    assert from_json('{"$datetime": "2026-07-11T00:00:00Z"}').utcoffset() == timedelta()


def test_an_object_with_another_dollar_name_is_just_that():
    assert from_json('{"$ref": "x"}') == {"$ref": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"not JSON: .*\(column 2\)"),
        ("[1,\n2", r"not JSON: .*\(line 2, column 2\)"),
        ('{"$bytes": 5}', r"\$bytes cannot be read"),
        ('{"$bytes": "A"}', r"\$bytes cannot be read"),
        ('{"$datetime": "noon"}', r"\$datetime cannot be read"),
        ('{"$float": "1.5"}', r"\$float cannot be read: expected nan, inf or -inf"),
        ('{"$map": [[[1], 2]]}', r"\$map cannot be read"),
        ('{"$map": [1]}', r"\$map cannot be read"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text)


def test_what_has_no_form_is_a_value_error():
    with pytest.raises(ValueError, match="a value of type object has no form in JSON"):
        to_json([object()])
