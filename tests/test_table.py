"""Tables: the mapping contract, and what is theirs alone."""

from __future__ import annotations

import pickle

import pytest

from shmstore.errors import InvalidArgument, InvalidKey, WriterUnavailable
from shmstore.table import Table
from tests.contract import MappingContract
from tests.local import Local


class TestTable(MappingContract):
    def test_tables_of_different_names_are_apart(self, table, client):
        other = Table(client, "another table")
        table["k"] = "here"
        assert other.get("k") != "here"

    def test_repr_names_the_table(self, table):
        assert repr(table.name) in repr(table)


@pytest.fixture
def local():
    client = Local()
    yield client
    client.close()


def test_a_table_is_pickled_with_its_client(client):
    client.table("users")["k"] = {"a": 1}
    copy = pickle.loads(pickle.dumps(client.table("users")))
    assert copy == {"k": {"a": 1}}
    copy["k"] = 2
    assert client.table("users")["k"] == 2
    copy._handle.close()


def test_a_closed_client_says_so(server):
    client = server.connect()
    table = client.table("users")
    table["k"] = 1
    assert (table["k"], table.get_bytes("k")) == (1, b"\x01")
    client.close()
    for attempt in (
        lambda: table.put("k", 2),
        lambda: len(table),
        lambda: list(table),
        lambda: table.get("k"),
        lambda: table["k"],
        lambda: table.get_bytes("k"),
    ):
        with pytest.raises(WriterUnavailable, match="closed"):
            attempt()


@pytest.mark.parametrize("handle", ["a name", None])
def test_a_table_is_bound_to_a_client(handle):
    with pytest.raises(InvalidArgument, match=r"connect\(\)"):
        Table(handle, "users")


@pytest.mark.parametrize("name", ["", None, 5, b"bytes", "x" * 256, "é" * 128, "\ud800"])
def test_a_table_needs_a_name_of_1_to_255_bytes(name):
    with pytest.raises(InvalidKey, match="table"):
        Table(Local(), name)


def test_names_of_255_bytes_are_names(local):
    table = Table(local, "é" * 127 + "x")
    table["k"] = 1
    assert table["k"] == 1


def test_a_read_that_the_writer_overtook_is_answered_by_the_writer(local, monkeypatch):
    table = local.table("users")
    table.update(a=1, b=2)
    answers = {"get": b"\x07", "version": 9}
    monkeypatch.setattr(local, "read", lambda method, scope, key: answers[method])
    local.turn_readers_away()
    assert table.get("a") == 7
    assert table["a"] == 7
    assert table.get_bytes("a") == b"\x07"
    assert table.version("a") == 9
    assert "a" in table


def test_all_reads_can_be_answered_by_the_writer(local):
    table = local.table("users")
    table.update({"a": {"n": 1}, b"b": 2})
    local.stalled = True
    assert table.copy() == {"a": {"n": 1}, b"b": 2}
    assert len(table) == 2
    assert "a" in table
    assert table.get_many(["a", b"b", "c"]) == {"a": {"n": 1}, b"b": 2}
    assert table.get_versioned(b"b") == (table.version(b"b"), 2)


def test_a_batch_is_one_request_and_an_empty_one_is_none(local):
    table = local.table("users")
    table.update({"a": 1}, b=2)
    table.update({})
    table |= {}
    assert local.requests == ["put_many"]


def test_a_walk_holds_few_large_records_at_a_time(local):
    table = local.table("large")
    for number in range(6):
        table[str(number)] = bytes(1 << 20)
    walk = table.packed_items()
    assert sum(len(value) for _, value in walk) > 6 << 20
