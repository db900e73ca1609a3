"""Values in the store: put, loaded by any process, replaced, removed, and never left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from shmstore.errors import InvalidKey, RecordNotFound, StoreFull
from shmstore.pytest.values import (
    NotShareable,
    Options,
    SharedMapping,
    SharedSequence,
    ValueGone,
    fetch,
    load,
    remove,
    store,
)
from shmstore.pytest.values.keeping import _Writing
from shmstore.pytest.values.tabular import ROWS_MIN
from tests.local import Local
from tests.shared_values import UNPICKLED, User, same
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
TABLE = "values"
AS_TABLE = Options(as_table=True)
SMALL_TABLES = Options(table_bytes=1000)
"""So that a kilobyte is a large value."""


@pytest.fixture
def client():
    """A client without a server."""
    local = Local()
    yield local
    assert local.check() == []
    local.close()


def tables(client) -> set[str]:
    """Return the names of the tables that hold records."""
    return {row[0] for row in client.read("chunk", "", "", b"", None, None, False)}


def records(count: int, size: int = 40) -> dict[str, dict]:
    return {
        f"sku{number}": {"n": number, "tags": ["a"], "t": "x" * size} for number in range(count)
    }


VALUES = [
    *(None, 0, "", (), {}, {"a": (1, {2})}, [1.5, b"x" * 100_000], "x" * 200_000),
    *(records(3), list(records(3).values()), User("ada"), {"u": [User("ada"), "x" * 200_000]}),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_is_loaded_as_it_was(client, value):
    stored = store(client, TABLE, "k", value)
    assert (stored.form, stored.rows) == ("body", 0)
    assert same(load(client, TABLE, "k"), value)
    assert fetch(client, TABLE, "k").size == stored.size
    assert remove(client, TABLE, "k")
    assert tables(client) == set()


def test_each_load_gives_a_value_of_its_own(client):
    store(client, TABLE, "k", {"a": [1]})
    load(client, TABLE, "k")["a"].append(2)
    assert load(client, TABLE, "k") == {"a": [1]}


def test_a_small_value_takes_one_request_and_one_record(client):
    store(client, TABLE, "k", {"a": [1]})
    assert client.requests == ["transaction"]
    assert tables(client) == {TABLE}


def test_what_is_not_there(client):
    with pytest.raises(RecordNotFound, match="no record 'k' in table 'values'"):
        load(client, TABLE, "k")
    assert remove(client, TABLE, "k") is False
    with pytest.raises(InvalidKey):
        store(client, TABLE, 1, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "reusable"),
    [((1, "a", (None,)), True), ([1], False), (User("ada"), False), ("x" * 100_000, True)],
)
def test_a_value_tells_whether_it_can_be_reused(client, value, reusable):
    store(client, TABLE, "k", value)
    assert fetch(client, TABLE, "k").reusable is reusable


def test_the_size_counts_body_and_buffers(client):
    small = store(client, TABLE, "k", [memoryview(bytes(100))]).size
    large = store(client, TABLE, "k", [memoryview(bytes(300_000))])
    assert 100 < small < 300
    assert 300_000 < large.size < 300_200
    assert store(client, TABLE, "k", b"x" * 300_000).size == 300_005


def test_large_buffers_and_bodies_have_records_of_their_own(client):
    store(client, TABLE, "k", {"a": memoryview(b"ab" * 50_000), "b": "x" * 100_000})
    got = load(client, TABLE, "k")
    assert bytes(got["a"]) == b"ab" * 50_000
    assert got["b"] == "x" * 100_000
    with pytest.raises(TypeError, match="read-only"):
        got["a"][0] = 1


def test_a_buffer_is_copied_twice_on_its_way_into_the_store(server):
    size = 1 << 20
    value = memoryview(bytes(size))
    tracemalloc.start()
    try:
        store(server.client, TABLE, "k", value)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * size
    finally:
        tracemalloc.stop()


def test_another_process_loads_what_was_stored(server):
    with server.connect() as client:
        store(client, TABLE, "small", {1: (2.0, {3})})
        store(client, TABLE, "rows", {1: (2.0, {3})}, AS_TABLE)
        store(client, TABLE, "buffer", memoryview(bytes(100_000)))
    script = f"""if True:
        import shmstore
        from shmstore.pytest.values import load
        with shmstore.connect({server.address!r}) as client:
            print(load(client, "values", "small"), load(client, "values", "rows").copy())
            view = load(client, "values", "buffer")
            print(len(view), any(view))
            del view
    """
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "{1: (2.0, {3})} {1: (2.0, {3})}\n100000 False\n"


# Row by row


def test_a_large_mapping_of_records_is_stored_row_by_row(client):
    value = records(50)
    stored = store(client, TABLE, "k", value, SMALL_TABLES)
    assert (stored.form, stored.rows) == ("dict", 50)
    got = fetch(client, TABLE, "k")
    assert type(got.value) is SharedMapping
    assert got.value == value
    assert (got.reusable, got.size) == (True, stored.size)
    assert stored.size > 50 * 50
    assert remove(client, TABLE, "k")
    assert tables(client) == set()


@pytest.mark.parametrize("kind", [list, tuple])
def test_so_is_a_large_sequence(client, kind):
    value = kind(records(50).values())
    assert store(client, TABLE, "k", value, SMALL_TABLES)[0::2] == (kind.__name__, 50)
    got = load(client, TABLE, "k")
    assert type(got) is SharedSequence
    assert got == value


@pytest.mark.parametrize(
    ("value", "options", "form"),
    [
        (records(50), SMALL_TABLES._replace(table_bytes=10_000), "body"),
        (records(50), SMALL_TABLES._replace(as_table=False), "body"),
        (records(ROWS_MIN, 200), SMALL_TABLES, "dict"),
        (records(ROWS_MIN - 1, 200), SMALL_TABLES, "body"),
        (dict.fromkeys(range(1000), 1), SMALL_TABLES, "body"),
        (set(records(50)), SMALL_TABLES, "body"),
        (User("ada", secret=list(range(1000))), SMALL_TABLES, "body"),
        ({}, AS_TABLE, "dict"),
        ([], AS_TABLE, "list"),
        ((1, 2), AS_TABLE, "tuple"),
        (dict.fromkeys(range(1000), 1), AS_TABLE, "dict"),
        (
            {number: User(f"{number}", secret="x" * 99) for number in range(50)},
            SMALL_TABLES,
            "dict",
        ),
    ],
)
def test_what_is_stored_row_by_row(client, value, options, form):
    assert store(client, TABLE, "k", value, options).form == form
    assert load(client, TABLE, "k") == value


def test_the_default_limit_is_a_megabyte(client):
    assert store(client, TABLE, "k", records(2000, 450)).form == "body"
    assert store(client, TABLE, "k", records(2000, 550)).form == "dict"


def test_rows_are_written_many_at_a_time_but_not_all(client):
    store(client, TABLE, "k", dict.fromkeys(map(str, range(3000)), 1), AS_TABLE)
    assert client.requests.count("put_many") == 3
    store(client, TABLE, "k", dict.fromkeys(range(6), "x" * 100_000), AS_TABLE)
    assert client.requests.count("put_many") == 3 + 2


def test_one_value_of_rows_can_be_stored_as_another(client):
    store(client, TABLE, "k", {2: "b", 1: "a"}, AS_TABLE)
    assert store(client, TABLE, "l", load(client, TABLE, "k"), AS_TABLE).form == "dict"
    store(client, TABLE, "m", [load(client, TABLE, "k")])
    assert same(load(client, TABLE, "l").copy(), {2: "b", 1: "a"})
    assert same(load(client, TABLE, "m"), [{2: "b", 1: "a"}])


def test_only_what_has_rows_can_be_a_table(client):
    for value, kind in ((1, "int"), ({1}, "set"), (User("ada"), "User")):
        with pytest.raises(NotShareable, match=f"^rows cannot be shared: {kind} has no rows"):
            store(client, TABLE, "k", value, AS_TABLE._replace(name="rows"))
    with pytest.raises(NotShareable, match="dict has a key that no row can have: nan"):
        store(client, TABLE, "k", {1: 1, float("nan"): 2}, AS_TABLE)
    assert tables(client) == set()


def test_a_mapping_with_odd_keys_is_stored_in_one_piece(client):
    value: dict = {**records(50), User: 1}
    assert store(client, TABLE, "k", value, SMALL_TABLES).form == "body"
    assert load(client, TABLE, "k") == value


def test_a_row_keeps_what_is_shared_in_it(client):
    tags = ["a"]
    store(client, TABLE, "k", [{"one": tags, "other": tags}], AS_TABLE)
    row = load(client, TABLE, "k")[0]
    assert row["one"] is row["other"]


def test_rows_that_share_a_little_are_rows(client):
    category = {"name": "tools", "tax": 0.19}
    value = [{"n": number, "category": category, "t": "x" * 40} for number in range(600)]
    assert store(client, TABLE, "k", value, SMALL_TABLES).form == "list"
    assert load(client, TABLE, "k") == value


def ring(count):
    users = [User(f"{number}", secret="x" * 100) for number in range(count)]
    for one, other in zip(users, [*users[1:], users[0]], strict=True):
        one.friends.append(other)
    return users


def everything(count):
    context = {"text": ["y" * 20 for _ in range(500)]}
    return [{"n": number, "context": context} for number in range(count)]


@pytest.mark.parametrize("made", [ring, everything])
def test_rows_that_share_nearly_all_they_hold_are_no_rows(client, made):
    value = made(100)
    stored = store(client, TABLE, "k", value, SMALL_TABLES)
    assert (stored.form, stored.size < 20_000) == ("body", True)
    got = load(client, TABLE, "k")
    assert len(got) == 100
    if made is ring:
        assert got[0].friends[0] is got[1]
    else:
        assert got[0]["context"] is got[99]["context"]
    remove(client, TABLE, "k")
    assert tables(client) == set()


def test_rows_with_buffers(client):
    value = {number: [memoryview(bytes([number]) * 200)] for number in range(20)}
    stored = store(client, TABLE, "k", value, AS_TABLE._replace(buffer_bytes=100))
    assert stored.size > 20 * 200
    got = load(client, TABLE, "k")
    assert [bytes(row[0]) for row in got.values()] == [bytes([n]) * 200 for n in range(20)]
    remove(client, TABLE, "k")
    assert tables(client) == set()


def test_keys_beside_the_rows_go_with_them(client):
    store(client, TABLE, "k", {1.0: 1, Path("a"): 2}, AS_TABLE)
    assert len(tables(client)) == 4
    remove(client, TABLE, "k")
    assert tables(client) == set()


def test_an_error_in_a_row_names_it_and_leaves_nothing(client):
    for row, options in (("sku2900", AS_TABLE), ("sku2900", SMALL_TABLES), ("sku0", SMALL_TABLES)):
        value = records(3000)
        value[row]["tags"].append(lambda: 1)
        with pytest.raises(NotShareable) as caught:
            store(client, TABLE, "k", value, options._replace(name="catalogue"))
        assert caught.value.details["path"] == f"catalogue[{row!r}]['tags'][1]"
        assert tables(client) == set()


def test_without_pickle_rows_are_of_pythons_own_types(client):
    with pytest.raises(NotShareable, match=r"^value\[1\] cannot be shared: .* is switched off"):
        store(client, TABLE, "k", [1, User("ada")], UNPICKLED._replace(as_table=True))


# Replaced, removed, left


def test_a_value_can_be_replaced_by_any_other(client):
    for value in (records(50), 1, records(60), b"x" * 100_000, b"y" * 100_000, records(20), None):
        store(client, TABLE, "k", value, SMALL_TABLES)
        assert load(client, TABLE, "k") == value
    assert tables(client) == {TABLE}


def test_values_of_several_keys_and_tables_do_not_meet(client):
    for table, key in ((TABLE, "k"), (TABLE, b"k"), ("more", "k")):
        store(client, table, key, [table, key], AS_TABLE)
    remove(client, TABLE, "k")
    assert load(client, TABLE, b"k") == [TABLE, b"k"]
    assert load(client, "more", "k") == ["more", "k"]


def replace(client, table, key):
    store(client, table, key, records(3), AS_TABLE)


@pytest.mark.parametrize("goes", [remove, replace])
def test_who_uses_rows_that_are_gone_is_told(client, goes):
    store(client, TABLE, "k", records(3), AS_TABLE._replace(name="catalogue"))
    store(client, TABLE, "l", [1, 2, 3], AS_TABLE._replace(name="sequence"))
    mapping, sequence = load(client, TABLE, "k"), load(client, TABLE, "l")
    goes(client, TABLE, "k")
    remove(client, TABLE, "l")
    for use in (lambda: mapping["sku1"], lambda: "sku1" in mapping, mapping.copy):
        with pytest.raises(ValueGone, match="catalogue was removed from the store"):
            use()
    for use in (lambda: sequence[0], sequence.copy, lambda: sequence[1:], lambda: 1 in sequence):
        with pytest.raises(ValueGone, match="sequence was removed"):
            use()
    assert "was removed" in repr(mapping)


def test_who_comes_too_late_for_the_parts_is_told(client):
    for value in ([memoryview(bytes(100_000))], "x" * 100_000):
        store(client, TABLE, "k", value, Options(name="data"))
        record = client.table(TABLE)["k"]
        remove(client, TABLE, "k")
        client.table(TABLE)["k"] = record  # as if it had been read just before
        with pytest.raises(ValueGone, match="data was removed"):
            load(client, TABLE, "k")


def test_a_view_outlives_its_value_and_its_client(server):
    with server.connect() as client:
        store(client, TABLE, "k", memoryview(b"ab" * 50_000))
        view = load(client, TABLE, "k")
        assert client.stats()["pins"] == 1
        remove(client, TABLE, "k")
        store(client, TABLE, "k", memoryview(b"cd" * 50_000))
    assert bytes(view) == b"ab" * 50_000


def test_what_cannot_be_pinned_is_a_copy(server, monkeypatch):
    monkeypatch.setattr("shmstore.pipe.windows.VIEWS_MAX", 1)
    with server.connect() as client:
        store(client, TABLE, "k", [memoryview(b"ab" * 50_000), memoryview(b"cd" * 50_000)])
        one, other = load(client, TABLE, "k")
        eventually(lambda: client.stats()["pins"] == 1)
    assert (bytes(one), bytes(other)) == (b"ab" * 50_000, b"cd" * 50_000)
    assert other.readonly


@pytest.mark.parametrize("value", [records(2000, 5000), memoryview(bytes(10_000_000))])
def test_a_full_store_keeps_what_it_had(client, value):
    store(client, TABLE, "k", records(50), SMALL_TABLES)
    before = tables(client)
    with pytest.raises(StoreFull):
        store(client, TABLE, "k", value)
    assert load(client, TABLE, "k") == records(50)
    assert tables(client) == before


def test_a_record_that_cannot_be_written_takes_its_parts_with_it(client, monkeypatch):
    store(client, TABLE, "k", records(3), AS_TABLE)
    before = tables(client)
    call = client.call

    def failing(operation, arguments, convert):
        if operation == "transaction":
            raise StoreFull("no room for the record")
        return call(operation, arguments, convert)

    monkeypatch.setattr(client, "call", failing)
    with pytest.raises(StoreFull):
        store(client, TABLE, "k", records(4), AS_TABLE)
    assert tables(client) == before
    assert load(client, TABLE, "k") == records(3)


def test_a_part_that_is_too_large_is_named(client, monkeypatch):
    monkeypatch.setattr("shmstore.layout.VALUE_BYTES_MAX", 1 << 20)
    with pytest.raises(NotShareable, match=r"^data cannot be shared: list has a part that is too"):
        store(client, TABLE, "k", [memoryview(bytes(2 << 20))], Options(name="data"))
    assert tables(client) == set()


def test_what_a_killed_process_left_is_removed(server):
    with server.connect() as client:
        store(client, TABLE, "k", records(3), AS_TABLE)
        before = tables(client)
        for _ in range(2):
            child = os.fork()
            if not child:
                try:
                    with _Writing(client, TABLE, "k", "value").parts() as writer:
                        writer.put_row("a", b"\x01", None)
                        writer.put_buffer(memoryview(b"b"))
                        writer.flush()
                        client.ping()
                        os.kill(os.getpid(), signal.SIGKILL)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert len(tables(client) - before) == 4
        assert load(client, TABLE, "k") == records(3)
        store(client, TABLE, "k", records(4), AS_TABLE)
        assert len(tables(client)) == len(before)
        assert load(client, TABLE, "k") == records(4)


def test_rows_are_read_after_a_fork(server):
    with server.connect() as client:
        store(client, TABLE, "k", records(3), AS_TABLE)
        rows = load(client, TABLE, "k")
        child = os.fork()
        if not child:
            os._exit(rows == records(3))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
        assert pickle.loads(pickle.dumps(rows)) == records(3)
