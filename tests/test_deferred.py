"""Pipelines and transactions: what they send, when, and what becomes of errors."""

# ruff: noqa: PT012 -- leaving the block is what raises

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import pytest

from shmstore.errors import InvalidKey, InvalidRecord, RecordNotFound, RequestTimeout, ShmstoreError
from shmstore.store import Store
from shmstore.table.deferred import LATE_SECONDS
from tests.contract import EachClient
from tests.local import Local


class Notes(Store):
    table, resource, prefix = "notes", "note", "no"
    indexes = ("topic",)


class TestPipeline(EachClient):
    @pytest.fixture
    def table(self, client, request):
        return client.table(request.node.name[:200])

    def test_what_was_sent_is_applied_when_the_block_ends(self, table):
        with table.pipeline() as p:
            for number in range(1000):
                p[str(number)] = number
        assert len(table) == 1000
        assert list(table)[-1] == "999"

    def test_all_mutations_return_replies(self, table):
        table.update(popped=1, last=2, gone=3, number=4, map={"a": 1})
        with table.pipeline() as p:
            replies = [
                p.put("a", 1),
                p.insert_new("a", 2),
                p.setdefault("a", 3),
                p.pop("popped"),
                p.pop("missing", "default"),
                p.delete("gone"),
                p.delete("gone"),
                p.delete_many(["x", "last"]),
                p.increment("number", by=5),
                p.patch("map", b=2),
                p.compare_and_swap("c", 0, "new"),
                p.popitem(),
            ]
            p.update({"d": 6})
        results = [reply.result() for reply in replies]
        assert results[0] > 0
        assert results[1:] == [
            False, 1, 1, "default", True, False, 1, 9, True, True, ("c", "new"),
        ]  # fmt: skip
        assert table.copy() == {"number": 9, "map": {"a": 1, "b": 2}, "a": 1, "d": 6}

    def test_a_reply_can_be_asked_inside_the_block(self, table):
        with table.pipeline() as p:
            assert p.increment("n").result() == 1
            assert p.increment("n").result() == 2
        assert table["n"] == 2

    def test_the_first_error_is_raised_and_names_the_others(self, table):
        table["text"] = "t"
        with pytest.raises(InvalidRecord) as caught, table.pipeline() as p:
            p["before"] = 1
            p.increment("text")
            del p["missing"]
            p["after"] = 2
        assert caught.value.details["others"]
        assert "missing" in caught.value.details["others"][0]
        assert table.copy() == {"text": "t", "before": 1, "after": 2}

    def test_the_errors_told_are_few(self, table):
        with pytest.raises(RecordNotFound) as caught, table.pipeline() as p:
            for number in range(100):
                del p[f"missing-{number}"]
        assert "missing-0" in str(caught.value)
        assert len(caught.value.details["others"]) == 10

    def test_each_reply_has_its_own_error(self, table):
        table["text"] = "t"
        with pytest.raises(InvalidRecord), table.pipeline() as p:
            bad, good = p.increment("text"), p.increment("n")
        assert good.result() == 1
        for _ in range(2):
            with pytest.raises(InvalidRecord):
                bad.result()

    def test_an_exception_in_the_block_takes_nothing_back(self, table):
        with pytest.raises(ZeroDivisionError), table.pipeline() as p:
            p["sent"] = 1
            raise ZeroDivisionError
        assert table.copy() == {"sent": 1}

    def test_an_exception_in_the_block_is_not_hidden_by_an_error(self, table):
        with pytest.raises(ZeroDivisionError), table.pipeline() as p:
            del p["missing"]
            raise ZeroDivisionError

    def test_what_cannot_be_sent_is_refused_at_once(self, table):
        with table.pipeline() as p:
            with pytest.raises(InvalidRecord):
                p["k"] = object()
            with pytest.raises(InvalidKey):
                p[5] = 1
            p["good"] = 1
        assert table.copy() == {"good": 1}

    def test_over_several_tables_and_stores(self, table, client):
        with client.pipeline() as p:
            p.table(table.name)["a"] = 1
            p.table(table.name + "2")["b"] = 2
            note = Notes(p).insert({"topic": "x"})
            Notes(p).patch(note["id"], topic="y")
        assert table["a"] == 1
        assert client.table(table.name + "2")["b"] == 2
        assert Notes(client).find(topic="y") == [{**note, "topic": "y"}]

    def test_pipeline_of_a_store(self, client):
        with Notes(client).pipeline() as p:
            notes = [p.insert({"topic": "x", "n": number}) for number in range(300)]
            reply = p.increment(notes[0]["id"], "n", 5)
            p.delete(notes[1]["id"])
        assert reply.result() == 5
        assert Notes(client).count() == 299


class TestTransaction(EachClient):
    @pytest.fixture
    def name(self, request):
        return request.node.name[:200]

    def test_applies_all_over_tables_and_stores(self, client, name):
        with client.transaction() as tx:
            tx.table(name)["x"] = 1
            tx.table(name + "2").update(y=2, z=3)
            note = Notes(tx).insert({"topic": "x"})
            reply = tx.table(name).increment("x", by=2)
            assert client.table(name).copy() == {}
        assert reply.result() == 3
        assert client.table(name).copy() == {"x": 3}
        assert client.table(name + "2").copy() == {"y": 2, "z": 3}
        assert Notes(client).get(note["id"]) == note

    def test_becomes_one_version(self, client, name):
        table = client.table(name)
        with client.transaction() as tx:
            versions = [tx.table(name).put("a", 1), tx.table(name).put("b", 2)]
        assert {reply.result() for reply in versions} == {table.version("a"), table.version("b")}
        assert table.version("a") == table.version("b")

    def test_an_exception_in_the_block_sends_nothing(self, client, name):
        with pytest.raises(ZeroDivisionError), client.transaction() as tx:
            reply = tx.table(name).put("x", 1)
            Notes(tx).insert({"topic": "x"})
            raise ZeroDivisionError
        assert client.table(name).copy() == {}
        assert Notes(client).count() == 0
        with pytest.raises(ShmstoreError, match="abandoned"):
            reply.result()

    def test_an_error_undoes_all_and_names_its_position(self, client, name):
        table = client.table(name)
        table["text"] = "t"
        with (
            pytest.raises(InvalidRecord, match="ion 4") as caught,
            client.transaction() as tx,
        ):
            reply = tx.table(name).put("x", 1)
            tx.table(name).delete("text")
            tx.table(name + "2")["t"] = "t"
            tx.table(name).put("text", "again")
            tx.table(name).increment("text")
        assert caught.value.details["position"] == 4
        assert table.copy() == {"text": "t"}
        assert client.table(name + "2").copy() == {}
        with pytest.raises(ShmstoreError, match="nothing was applied"):
            reply.result()

    def test_later_operations_see_earlier_ones(self, client, name):
        table = client.table(name)
        with client.transaction() as tx:
            t = tx.table(name)
            t["a"] = 1
            replies = [t.increment("a"), t.setdefault("a", 9), t.pop("a"), t.insert_new("a", 5)]
            t["b"] = 1
            replies.append(t.popitem())
        assert [reply.result() for reply in replies] == [2, 2, 2, True, ("b", 1)]
        assert table.copy() == {"a": 5}

    def test_what_is_not_there_is_no_error_of_the_transaction(self, client, name):
        with client.transaction() as tx:
            t = tx.table(name)
            del t["missing"]
            replies = [t.pop("missing"), t.popitem()]
            t["x"] = 1
        assert client.table(name).copy() == {"x": 1}
        for reply in replies:
            with pytest.raises(RecordNotFound):
                reply.result()

    def test_results_are_there_after_the_block(self, client, name):
        with client.transaction() as tx:
            reply = tx.table(name).put("x", 1)
            with pytest.raises(ShmstoreError, match="nothing was applied yet"):
                reply.result()
        assert reply.result() == client.table(name).version("x")

    def test_clear_inside(self, client, name):
        client.table(name).update(a=1, b=2)
        with client.transaction() as tx:
            tx.table(name).clear()
            tx.table(name)["c"] = 3
        assert client.table(name).copy() == {"c": 3}

    def test_store_mutations_inside(self, client):
        notes = Notes(client)
        old = [notes.insert({"topic": topic, "n": 1}) for topic in ("a", "b", "b")]
        with client.transaction() as tx:
            t: Any = Notes(tx)
            updated = t.update({"id": old[0]["id"], "topic": "c"})
            removed = t.delete_where(topic="b")
            total = t.increment(old[0]["id"], "n", default=40, by=2)
            patched = t.patch(old[0]["id"], topic="d")
        assert updated["created"] == old[0]["created"]
        assert (removed.result(), total.result()) == (2, 42)
        assert patched.result() == notes[old[0]["id"]] == {**updated, "n": 42, "topic": "d"}
        assert notes.find(topic="d") == [patched.result()]
        assert notes.count() == 1


@pytest.fixture
def local():
    client = Local()
    yield client
    client.close()


@pytest.fixture(params=["pipeline", "transaction"])
def start(request, local):
    return getattr(local, request.param)


def test_a_transaction_is_one_request_and_an_empty_one_is_none(local):
    with local.transaction():
        pass
    with local.transaction() as tx:
        tx.table("t")["a"] = 1
        tx.table("t")["b"] = 2
    assert local.requests == ["transaction"]


def test_a_transaction_of_a_store_is_not_sent_before_its_end(local):
    Notes(local).insert({})
    local.requests.clear()
    with local.transaction() as tx:
        Notes(tx).insert({})
        assert local.requests == []
    assert local.requests == ["transaction"]


def test_reading_is_refused_with_a_hint(start):
    with start() as block:
        table, notes = block.table("t"), Notes(block)
        for attempt in (
            lambda: table["a"],
            lambda: table.get("a"),
            lambda: "a" in table,
            lambda: len(table),
            lambda: list(table),
            lambda: table.get_many(["a"]),
            lambda: notes.get("a"),
            lambda: notes.list(),
            lambda: notes.find(topic="x"),
            lambda: notes.count(),
        ):
            with pytest.raises(ShmstoreError, match="read from the client's own"):
                attempt()


def test_a_block_is_used_once(start):
    block = start()
    with pytest.raises(ShmstoreError, match="inside its with block"):
        block.table("t")["a"] = 1
    with block, pytest.raises(ShmstoreError, match="nested"), block:
        pass
    with pytest.raises(ShmstoreError, match="closed"):
        block.table("t")["a"] = 1
    with pytest.raises(ShmstoreError, match="used twice"), block:
        pass


def test_blocks_do_not_nest(start):
    with start() as block:
        with pytest.raises(ShmstoreError, match="cannot be started inside"):
            block.transaction()
        with pytest.raises(ShmstoreError, match="cannot be started inside"):
            block.pipeline()
        with pytest.raises(ShmstoreError, match="cannot be started inside"):
            block.table("t").pipeline().__enter__()
        with pytest.raises(ShmstoreError, match="cannot be started inside"):
            Notes(block).pipeline().__enter__()


def test_a_block_cannot_be_pickled(start):
    with start() as block, pytest.raises(ShmstoreError, match="pickle the client"):
        pickle.dumps(block.table("t"))


class Silent:
    """An answer that never comes."""

    waits: ClassVar[list[float | None]] = []

    def done(self):
        return False

    def result(self, timeout=None):
        self.waits.append(timeout)
        raise RequestTimeout("the writer did not answer")


def test_a_silent_writer_is_waited_for_once(local, monkeypatch):
    monkeypatch.setattr(Silent, "waits", [])
    monkeypatch.setattr(local, "submit", lambda operation, arguments: Silent())
    with pytest.raises(RequestTimeout), local.pipeline() as p:
        p.table("t").update(a=1)
        p.table("t").update(b=2)
        p.table("t").update(c=3)
    assert Silent.waits == [None, LATE_SECONDS, LATE_SECONDS]


def test_who_leaves_with_a_timeout_is_not_kept(local, monkeypatch):
    monkeypatch.setattr(Silent, "waits", [])
    monkeypatch.setattr(local, "submit", lambda operation, arguments: Silent())
    with pytest.raises(RequestTimeout, match="mine"), local.pipeline() as p:
        p.table("t").update(a=1)
        raise RequestTimeout("mine")
    assert Silent.waits == [LATE_SECONDS]


def test_an_interrupted_block_waits_for_nothing(local, monkeypatch):
    monkeypatch.setattr(Silent, "waits", [])
    monkeypatch.setattr(local, "submit", lambda operation, arguments: Silent())
    with pytest.raises(KeyboardInterrupt), local.pipeline() as p:
        p.table("t").update(a=1)
        raise KeyboardInterrupt
    assert Silent.waits == []
