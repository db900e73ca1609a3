"""Arrays of numpy as records: what comes back is equal, of the same type, aligned, read-only."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from shmstore import InvalidRecord, codec
from shmstore.codec import Extension

pytest.importorskip("numpy", reason="numpy, which only arrays need, is not installed")
import numpy as np

from shmstore import arrays

ARRAYS = [
    np.arange(12, dtype="f8"),
    np.arange(12, dtype=">i2").reshape(3, 4),
    np.asfortranarray(np.arange(12, dtype="u1").reshape(3, 4)),
    np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
    np.array(7.5),
    np.zeros((0, 3)),
    np.array([], dtype="f4"),
    np.array([True, False]),
    np.array(["a", "日本"]),
    np.array([b"a", b"bc"]),
    np.array(["2026-11-23", "NaT"], dtype="datetime64[us]"),
    np.array([1 + 2j]),
    np.array([(1, 2.5)], dtype=[("count", "i4"), ("é", "f8", (1,))]),
    np.random.default_rng(1).random((100, 300)),
    *(np.arange(size, dtype="u1") for size in range(65_300, 65_500, 8)),
    *(np.arange(size, dtype="u1") for size in (1, 100, 1000, 4000, 1 << 20)),
]


def same(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    same_form = one.dtype == other.dtype and one.shape == other.shape
    return same_form and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_arrays_come_back(client, array):
    table = client.table("arrays")
    table["whole"] = arrays.pack(array)
    table["part"] = {"size": array.size, "data": arrays.pack(array)}
    for found in (
        arrays.unpack(table["whole"]),
        arrays.unpack(table["part"]["data"]),
        arrays.unpack(table.view("whole")),
        table.view("whole", arrays),
    ):
        assert same(found, array)
        assert type(found) is np.ndarray
        assert not found.flags.writeable


@pytest.mark.parametrize("size", [4096, 65_350, 65_400, 65_500, 70_000, 1 << 20])
@pytest.mark.parametrize("key", ["k", "key", "a longer key"])
def test_views_are_aligned(client, key, size):
    table = client.table("arrays")
    table[key] = arrays.pack(np.zeros(size, "u1"))
    assert table.view(key, arrays).ctypes.data % 64 == 0


def test_a_view_is_the_memory_itself(client):
    table = client.table("arrays")
    table["a"] = arrays.pack(np.arange(10_000))
    one, other = table.view("a", arrays), table.view("a", arrays)
    assert np.shares_memory(one, other)
    table["a"] = arrays.pack(np.zeros(3))
    assert one[-1] == 9_999
    assert list(table.view("a", arrays)) == [0, 0, 0]


def test_numpy_can_read_what_is_stored():
    from io import BytesIO

    data = arrays.pack(np.arange(10)).data
    assert list(np.load(BytesIO(data[data[0] :]))) == list(range(10))


class Odd(np.ndarray[Any, Any]):
    pass


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (np.float64(1), "a float64 is no plain array"),
        ([1, 2], "a list is no plain array"),
        (np.ma.masked_array([1], [True]), "a MaskedArray is no plain array"),
        (np.zeros(3).view(Odd), "a Odd is no plain array: give numpy.asarray of it"),
        (np.array([{}, None]), "an array of object cannot be stored"),
        (np.zeros(1, [("日本", "i4")]), "cannot be stored"),
        (np.zeros(1, [(f"field{n:05}", "i1") for n in range(2000)]), "that numpy cannot read"),
    ],
)
def test_what_cannot_be_stored(what, message):
    with pytest.raises(InvalidRecord, match=message):
        arrays.pack(what)


def test_what_is_no_array():
    whole = codec.pack(arrays.pack(np.arange(10)))
    wrong = [Extension(5, b"123"), b"", b"\xc7", whole[:2], b"123", codec.pack({"a": 1})]
    for packed in wrong:
        with pytest.raises(InvalidRecord, match="this is no array"):
            arrays.unpack(packed)
    objects = whole.replace(b"'<i8'", b"'|O' ")
    for packed in (*(whole[:end] for end in range(4, len(whole) - 1)), objects):
        with pytest.raises(InvalidRecord, match="numpy cannot read"):
            arrays.unpack(packed)


@pytest.mark.filterwarnings("ignore")  # numpy's, of headers that Python 2 may have written
def test_damaged_arrays_are_refused_or_read():
    random = np.random.default_rng(5)
    whole = codec.pack(arrays.pack(np.arange(10)))
    refused = 0
    for _ in range(2000):
        packed = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            packed[random.integers(0, 200)] = random.integers(0, 256)
        try:
            assert arrays.unpack(bytes(packed)).nbytes <= len(packed)
        except InvalidRecord:
            refused += 1
    assert 100 < refused < 2000


def test_without_numpy_it_says_what_is_missing():
    code = "import sys; sys.modules['numpy'] = None; import shmstore; import shmstore.arrays"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "shmstore.arrays needs numpy: install shmstore[numpy]" in done.stderr
