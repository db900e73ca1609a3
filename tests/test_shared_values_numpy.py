"""Arrays of numpy: large ones are views that nobody can write to, small ones are one's own."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from shmstore.pytest.values import Options, fetch, load, remove, store
from tests.local import Local
from tests.shared_values import there_and_back

pytest.importorskip("numpy", reason="numpy, which only tests need, is not installed")
import numpy as np

LARGE = 10_000
ARRAYS = {
    "floats": np.linspace(0, 1, LARGE),
    "matrix": np.arange(LARGE * 3, dtype=np.int32).reshape(100, 300),
    "fortran": np.asfortranarray(np.arange(LARGE * 2, dtype=np.float32).reshape(100, 200)),
    "foreign order": np.arange(LARGE, dtype=">i8"),
    "bools": np.arange(LARGE * 8) % 3 == 0,
    "complex": np.full(LARGE, 1 + 2j),
    "times": np.arange(LARGE).astype("datetime64[s]"),
    "texts": np.array(["a", "bc"] * LARGE),
    "records": np.zeros(LARGE, dtype=[("n", "i4"), ("x", "f8")]),
    "slice": np.arange(LARGE * 4)[1::2],
    "read-only": np.frombuffer(bytes(LARGE * 8), dtype=np.int64),
    "empty": np.empty((0, 3)),
    "nothing": np.array(3.5),
    "objects": np.array([1, "a", None, {2}], dtype=object),
    "scalar": np.float64(1.5),
}


@pytest.fixture
def client():
    local = Local()
    yield local
    local.close()


def stored(client, value: Any, **options: Any) -> Any:
    store(client, "values", "k", value, Options(**options))
    return load(client, "values", "k")


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_equal(client, name):
    array = ARRAYS[name]
    got = stored(client, array)
    assert type(got) is type(array)
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(got, array)
    if array.flags.f_contiguous and array.ndim == 2:
        assert got.flags.f_contiguous


def test_a_large_array_is_a_view_that_nobody_can_write_to(client):
    got = stored(client, ARRAYS["floats"].copy())
    assert not got.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        got[0] = 1
    with pytest.raises(ValueError):
        got.flags.writeable = True
    changed = got.copy()
    changed[0] = 7
    assert load(client, "values", "k")[0] == 0


def test_a_small_array_is_ones_own(client):
    got = stored(client, np.arange(10))
    got[0] = 7
    assert load(client, "values", "k")[0] == 0


def test_the_bytes_of_an_array_are_counted_once(client):
    array = ARRAYS["floats"]
    size = store(client, "values", "k", {"one": array, "other": array}).size
    assert array.nbytes < size < array.nbytes + 500
    got = load(client, "values", "k")
    assert got["one"] is got["other"]
    assert fetch(client, "values", "k").size == size


def test_rows_of_arrays(client):
    value = {number: (number, np.full(LARGE, number)) for number in range(5)}
    got = stored(client, value, as_table=True)
    assert list(got) == list(value)
    for number, array in got.values():
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, np.full(LARGE, number))


def test_keys_of_numpy(client):
    rows = stored(client, {1: "one", 2.5: "more", "a": "text"}, as_table=True)
    for integer in (np.int8(1), np.int64(1), np.uint16(1), np.float32(1), np.bool_(True)):
        assert rows[integer] == "one"
    assert rows[np.float64(2.5)] == "more"
    assert rows[np.str_("a")] == "text"
    assert np.int64(3) not in rows
    assert list(stored(client, {np.int64(1): 1, "a": 2}).items()) == [(1, 1), ("a", 2)]


def test_an_array_lies_in_the_store_and_outlives_its_value(server):
    array = ARRAYS["matrix"]
    with server.connect() as client:
        got = stored(client, [array])[0]
        assert client.stats()["pinned_bytes"] > array.nbytes
        assert got.ctypes.data % 64 == 0
        part = got[1:]
        del got
        gc.collect()
        remove(client, "values", "k")
        store(client, "values", "k", [np.zeros(LARGE * 3, dtype=np.int32)])
    np.testing.assert_array_equal(part, array[1:])


def test_arrays_without_a_store():
    array = np.arange(LARGE)
    np.testing.assert_array_equal(there_and_back({"a": array})["a"], array)
