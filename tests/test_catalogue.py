"""Which tables, stores and namespaces the catalogue knows, and when it forgets them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from shmstore.codec import pack
from shmstore.errors import CorruptSegment, InvalidKey
from tests.desk import NAMESPACE, TABLE, Desk, open_desk


@pytest.fixture
def desk(engine: ModuleType) -> Iterator[Desk]:
    with open_desk(engine) as desk:
        yield desk


class TestCatalogue:
    EMPTYING = (
        ("delete", "k"), ("delete_many", ["x", "k"]), ("pop", "k"), ("popitem",), ("clear",),
    )  # fmt: skip

    @pytest.mark.parametrize("emptying", EMPTYING, ids=lambda operation: operation[0])
    def test_a_plain_table_is_there_while_it_holds_records(self, desk: Desk, emptying):
        assert desk.tables() == {}
        desk.plain("put", "k", pack(1))
        desk.plain("put", "k", pack(2))
        assert desk.tables() == {TABLE: {}}
        desk.plain("put", "l", pack(2))
        desk.plain("delete", "l")
        assert desk.tables() == {TABLE: {}}
        desk.plain(*emptying)
        assert (desk.keys(), desk.tables()) == ([], {})
        desk.plain("insert", "k", pack(1))
        assert desk.tables() == {TABLE: {}}

    @pytest.mark.parametrize("emptying", EMPTYING, ids=lambda operation: operation[0])
    def test_a_namespace_is_there_while_it_holds_records(self, desk: Desk, emptying):
        schema = {TABLE: {"indexes": ["f"], "store": True}}
        desk.do("declare", TABLE, "", ["f"])
        assert (desk.namespaces(), desk.tables()) == ([], schema)
        desk.upsert("k", f=1)
        desk.upsert("k", namespace="other")
        desk.upsert("k", f=2)
        assert desk.namespaces() == [NAMESPACE, "other"]
        desk.store(*emptying)
        assert (desk.namespaces(), desk.tables()) == (["other"], schema)
        desk.store("delete", "k", namespace="other")
        assert (desk.namespaces(), desk.tables()) == ([], schema)

    def test_what_comes_between_the_first_and_the_last_record_leaves_it_alone(self, desk: Desk):
        desk.plain("put", "a", pack(1))
        desk.upsert("a")
        before = desk.owner.find("", "", TABLE), desk.owner.find("", f"n:{TABLE}", NAMESPACE)
        for operation in (desk.plain, desk.store):
            operation("put_many", [["b", pack({"id": "b", "created": 1})]])
            operation("delete", "a")
            operation("patch", "b", pack({"f": 1}))
        after = desk.owner.find("", "", TABLE), desk.owner.find("", f"n:{TABLE}", NAMESPACE)
        assert after == before

    def test_a_table_may_be_plain_and_a_store(self, desk: Desk):
        schema = {TABLE: {"indexes": [], "store": True}}
        desk.plain("put", "k", pack(1))
        desk.upsert("k")
        assert desk.tables() == schema
        assert (desk.get("k"), desk.get("k", NAMESPACE)["id"]) == (1, "k")
        desk.plain("clear")
        assert desk.tables() == schema
        desk.plain("put", "k", pack(1))
        desk.store("clear_all")
        assert (desk.tables(), desk.get("k")) == (schema, 1)

    @pytest.mark.parametrize(
        "operation",
        [
            ("put", "k", {"id": "k", "created": 1}), ("insert", "k", {"id": "k", "created": 1}),
            ("setdefault", "k", {"id": "k", "created": 1}),
            ("upsert", "k", {"id": "k", "created": 1}),
            ("cas", "k", 0, {"id": "k", "created": 1}),
        ],
        ids=lambda operation: operation[0],
    )  # fmt: skip
    def test_the_first_record_of_a_store_declares_it(self, desk: Desk, operation):
        name, *arguments, record = operation
        desk.store(name, *arguments, pack(record))
        assert desk.tables() == {TABLE: {"indexes": [], "store": True}}
        assert desk.namespaces() == [NAMESPACE]

    @pytest.mark.parametrize(
        "operation",
        [("delete", "k"), ("pop", "k"), ("popitem",), ("clear",), ("clear_all",),
         ("store_patch", "k", pack({"a": 1})), ("patch", "k", pack({"a": 1})),
         ("delete_many", ["k"]), ("delete_where", [["f", pack(1)]]), ("put_many", [])],
        ids=lambda operation: operation[0],
    )  # fmt: skip
    def test_what_finds_nothing_declares_nothing(self, desk: Desk, operation):
        assert not desk.store(*operation)
        assert (desk.tables(), desk.namespaces()) == ({}, [])

    def test_many_tables_and_namespaces(self, desk: Desk):
        for i in range(200):
            desk.do("put", f"table {i}", "", "k", pack(i))
            desk.upsert("k", namespace=f"namespace {i}")
        assert len(desk.tables()) == 201
        assert desk.namespaces() == [f"namespace {i}" for i in range(200)]
        assert desk.store("clear_all") == 200
        assert desk.namespaces() == []
        assert desk.get("k", table="table 7") == 7

    def test_it_survives_the_writer(self, desk: Desk):
        desk.do("declare", TABLE, "", ["f"])
        desk.upsert("k", f=1)
        desk.take_over()
        desk.upsert("l", f=1)
        desk.upsert("k", f=2)
        assert (desk.find(f=1), desk.find(f=2)) == (["l"], ["k"])

    def test_an_aborted_declaration_is_forgotten(self, desk: Desk):
        desk.upsert("k", f=1)
        desk.stage("declare", TABLE, "", ["f"])
        desk.owner.abort()
        desk.upsert("k", f=2)
        assert desk.tables() == {TABLE: {"indexes": [], "store": True}}
        assert desk.find(f=2) == []
        desk.do("declare", TABLE, "", ["f"])
        assert desk.find(f=2) == ["k"]
        desk.stage("declare", TABLE, "", ["g"])
        desk.owner.abort()
        desk.upsert("k", f=3, g=1)
        assert (desk.find(f=3), desk.find(g=1)) == (["k"], [])

    def test_the_catalogue_is_out_of_reach(self, desk: Desk):
        for operation in ("put", "upsert", "insert"):
            with pytest.raises(InvalidKey):
                desk.do(operation, "", "", TABLE, pack({"id": TABLE, "created": 1}))
        with pytest.raises(InvalidKey):
            desk.do("clear", "", "s")

    def test_the_name_of_a_store_leaves_room(self, desk: Desk):
        record = pack({"id": "k", "created": 1})
        desk.do("put", "x" * 255, "", "k", record)
        desk.do("upsert", "x" * 253, "n" * 255, "k", record)
        with pytest.raises(InvalidKey, match="at most 253"):
            desk.do("upsert", "x" * 254, "n", "k", record)

    @pytest.mark.parametrize(
        "schema", [None, {"store": True}, {"indexes": "f", "store": True}, {"indexes": [1]}, []]
    )
    def test_a_damaged_record_of_it_is_named(self, desk: Desk, schema):
        desk.owner.put("", "", TABLE, pack(schema))
        desk.owner.commit()
        with pytest.raises(CorruptSegment, match="catalogue of table 't'"):
            desk.upsert("k")
