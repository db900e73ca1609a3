"""A store that is full: it says so, serves on, and has room again after deletions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest

import shmstore
from shmstore import StoreFull

CAPACITY = 1 << 20


class Notes(shmstore.Store):
    table, resource, prefix = "notes", "note", "no"
    indexes = ("parity",)


@pytest.fixture
def client() -> Iterator[shmstore.Client]:
    with shmstore.start(capacity=CAPACITY) as server, server.connect() as connected:
        yield connected
        assert connected.check() == []


def fill(put: Callable[[int], object]) -> int:
    """Put records, numbered from 0, until the store is full; return their number."""
    for number in count():
        try:
            put(number)
        except StoreFull:
            return number
    raise AssertionError("there is no end")


def put_sized(table: shmstore.Table, size: int, number: int) -> None:
    table[f"k{number}"] = "v" * size


def test_a_full_table_refuses_serves_and_has_room_again(client: shmstore.Client) -> None:
    table = client.table("t")
    for size in (1500, 9000, 300):
        put = partial(put_sized, table, size)
        number = fill(put)
        with pytest.raises(StoreFull, match=r"in use.*capacity=") as caught:
            table["one more"] = "v" * (size + 5000)
        assert isinstance(caught.value, MemoryError)
        assert caught.value.details["capacity"] == CAPACITY
        assert list(table) == [f"k{i}" for i in range(number)]
        assert table["k3"] == "v" * size
        # Not one deletion is refused, in whatever way.
        assert table.delete("k0")
        assert table.pop("k1") == "v" * size
        assert table.popitem()[0] == f"k{number - 1}"
        for i in range(2, number - 1):
            del table[f"k{i}"]
        assert len(table) == 0
        assert fill(put) > number * 4 // 5
        table.clear()


def test_a_full_store_with_an_index(client: shmstore.Client) -> None:
    notes = Notes(client)
    number = fill(
        lambda i: notes.insert({"id": f"no_{i}", "parity": i % 2, "text": "x" * (i % 99)})
    )
    assert notes.count() == len(notes.find(parity=0)) + len(notes.find(parity=1)) == number
    for i in range(number // 2):
        assert notes.delete(f"no_{i}")
    assert notes.count() == number - number // 2
    assert len(notes.list(limit=100, starting_after=f"no_{number - 1}").data) == 100
    again = fill(lambda i: notes.insert({"id": f"no_again{i}", "parity": 0, "text": ""}))
    assert again > number // 4
    assert notes.clear() == number - number // 2 + again
    assert notes.count() == 0


def test_a_refused_batch_changes_nothing(client: shmstore.Client) -> None:
    table = client.table("t")
    table.update({f"k{i}": "v" * 500 for i in range(100)})
    before = table.copy()
    batch = {f"k{i}": "w" * 5000 for i in range(300)}
    with pytest.raises(StoreFull):
        table.update(batch)

    def transact() -> None:
        with client.transaction() as tx:
            tx.table("t").clear()
            tx.table("u").update(batch)

    with pytest.raises(StoreFull) as caught:
        transact()
    assert caught.value.details["position"] == 1
    assert table.copy() == before
    assert len(client.table("u")) == 0


def test_those_that_fit_are_taken_among_those_that_do_not(client: shmstore.Client) -> None:
    """Requests that arrive together succeed or fail each for itself."""
    table = client.table("t")
    sizes = [300_000, 300_000, 100, 500_000, 100, 600_000, 100]

    def put_all() -> None:
        with table.pipeline() as many:
            for i, size in enumerate(sizes):
                many.put(f"k{i}", "v" * size)

    with pytest.raises(StoreFull):
        put_all()
    for key in ("k2", "k4", "k6"):
        assert table[key] == "v" * 100
    assert [key in table for key in ("k0", "k1", "k3", "k5")] == [True, True, False, False]


def test_filling_and_clearing_for_ever_takes_no_more_memory(client: shmstore.Client) -> None:
    table, other = client.table("t"), client.table("u")
    other["stays"] = True
    figures = []
    for _ in range(6):
        figures.append(fill(lambda i: table.put(f"k{i}", "v" * 2000)))
        table.clear()
    assert min(figures[1:]) == max(figures[1:]) > 300
    assert other["stays"] is True
