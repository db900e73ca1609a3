"""What the operations do to the records of stores, which have an id and a time."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from shmstore.codec import pack, unpack
from shmstore.errors import InvalidArgument, InvalidKey, InvalidRecord, RecordNotFound
from tests.desk import INT_MAX, NAMESPACE, NOW, TABLE, Desk, open_desk


@pytest.fixture
def desk(engine: ModuleType) -> Iterator[Desk]:
    with open_desk(engine) as desk:
        yield desk


class TestStore:
    def test_upsert(self, desk: Desk):
        assert desk.upsert("k", url="a") == NOW
        assert desk.upsert("k", url="b", created=5) == 5
        assert desk.get("k", NAMESPACE) == {"id": "k", "created": 5, "url": "b"}

    def test_what_is_lacking_is_taken_from_the_old_record(self, desk: Desk):
        desk.upsert("k", created=5, object="thing", extra=1)
        assert desk.store("upsert", "k", pack({"id": "k", "new": 1}), NOW) == 5
        assert desk.get("k", NAMESPACE) == {"id": "k", "new": 1, "object": "thing", "created": 5}
        desk.store("upsert", "k", pack({"id": "k", "created": 6, "object": None}), NOW)
        assert desk.get("k", NAMESPACE) == {"id": "k", "created": 6, "object": None}

    def test_a_new_record_is_created_now(self, desk: Desk):
        desk.store("upsert", "k", pack({"id": "k"}), NOW)
        assert desk.get("k", NAMESPACE) == {"id": "k", "created": NOW}
        for arguments in ((), (None,)):
            with pytest.raises(InvalidRecord, match=r"created of .* is missing"):
                desk.store("upsert", "l", pack({"id": "l"}), *arguments)

    @pytest.mark.parametrize("now", [True, 1.5, "1", b"1", []], ids=str)
    def test_now_is_an_int(self, desk: Desk, now):
        with pytest.raises(InvalidArgument):
            desk.store("upsert", "k", pack({"id": "k"}), now)

    @pytest.mark.parametrize(
        "record",
        [
            None, 1, "k", ["id", "k"], {}, {"created": 1}, {"id": "k"},
            {"id": "other", "created": 1},
            {"id": b"k", "created": 1}, {"id": None, "created": 1}, {"id": 1, "created": 1},
            {"id": "k", "created": None}, {"id": "k", "created": True}, {"id": "k", "created": 1.0},
            {"id": "k", "created": "1"}, {"id": "k", "created": 2**63},
            {"id": "k", "created": -(2**63)}, {"id": "k", "created": INT_MAX},
            {b"id": "k", "created": 1},
            {"id": "k", "created": [1]}, {"id": ["k"], "created": 1},
        ],
        ids=ascii,
    )  # fmt: skip
    def test_what_is_no_store_record(self, desk: Desk, record):
        desk.upsert("k", url="old")
        desk.upsert("gone")
        desk.store("delete", "gone")
        operations = (("put",), ("cas", desk.version("k", NAMESPACE)))
        for name, *arguments in operations:
            with pytest.raises(InvalidRecord):
                desk.store(name, "k", *arguments, pack(record))
        with pytest.raises(InvalidRecord):
            desk.store("insert", "new", pack(record))
        with pytest.raises(InvalidRecord):
            desk.store("put_many", [["ok", pack({"id": "ok", "created": 1})], ["k", pack(record)]])
        assert desk.get("k", NAMESPACE) == {"id": "k", "created": NOW, "url": "old"}
        assert desk.keys(NAMESPACE) == ["k"]

    @pytest.mark.parametrize("created", [0, -1, 2**63 - 1, 1 - 2**63, NOW * 1000])
    def test_any_time_of_64_bits(self, desk: Desk, created):
        desk.upsert("k", created=created)
        desk.upsert("l", created=0)
        items = desk.owner.chunk(TABLE, NAMESPACE, b"", None, None, False)
        assert [item[2] for item in items] == sorted([created, 0])

    def test_ids_are_text(self, desk: Desk):
        with pytest.raises(InvalidKey, match="a str"):
            desk.store("put", b"k", pack({"id": b"k", "created": 1}))

    def test_one_text_packed_in_two_ways_is_one_field(self, desk: Desk):
        desk.upsert("k")
        with pytest.raises(InvalidRecord, match="never changes 'id'"):
            desk.store("store_patch", "k", b"\x81\xd9\x02id\xa1x")

    def test_a_record_lives_in_a_namespace(self, desk: Desk):
        for operation in ("upsert", "store_patch"):
            with pytest.raises(InvalidArgument, match="namespace"):
                desk.plain(operation, "k", pack({"id": "k", "created": 1}))

    def test_newest_is_last(self, desk: Desk):
        desk.upsert("b", created=2)
        desk.upsert("a", created=1)
        desk.upsert("c", created=2)
        assert desk.keys(NAMESPACE) == ["a", "b", "c"]
        desk.upsert("a", created=3)
        assert desk.store("popitem")[0] == "a"
        assert desk.store("popitem")[0] == "c"

    def test_a_deleted_record_is_a_cursor_still(self, desk: Desk):
        for i in range(6):
            desk.upsert(f"k{i}")
        deletions: list[Any] = [
            ("delete", "k3"),
            ("pop", "k1"),
            ("delete_many", ["k2"]),
            ("popitem",),
        ]
        for operation in deletions:
            desk.store(*operation)
        page = desk.owner.reader.page
        assert [unpack(r)["id"] for r in page(TABLE, NAMESPACE, 9, "k3", None)[0]] == ["k0"]
        assert [unpack(r)["id"] for r in page(TABLE, NAMESPACE, 9, "k5", None)[0]] == ["k4", "k0"]
        desk.store("delete_where", [["id", pack("k4")]])
        assert [unpack(r)["id"] for r in page(TABLE, NAMESPACE, 9, "k4", None)[0]] == ["k0"]

    def test_patch(self, desk: Desk):
        desk.upsert("k", a=1, b=2)
        data = desk.store("store_patch", "k", pack({"b": None, "c": [3]}))
        expected = {"id": "k", "created": NOW, "a": 1, "b": None, "c": [3]}
        assert (unpack(data), desk.get("k", NAMESPACE)) == (expected, expected)
        assert desk.store("store_patch", "missing", pack({"a": 1})) is None
        assert desk.store("patch", "k", pack({"a": 5})) is True
        assert desk.get("k", NAMESPACE)["a"] == 5

    @pytest.mark.parametrize(
        ("before", "change", "after"),
        [
            ({"a": "1", "b": "2"}, {"b": "3", "c": "4"}, {"a": "1", "b": "3", "c": "4"}),
            ({"a": "1", "b": "2"}, {"a": ""}, {"b": "2"}),
            ({"a": "1"}, {"a": "", "x": ""}, {}),
            ({"a": "1"}, {"a": None, "b": b""}, {"a": None, "b": b""}),
            ({"a": "1"}, {}, {"a": "1"}),
            (None, {"a": "1", "b": ""}, {"a": "1"}),
            ("text", {"a": "1"}, {"a": "1"}),
            ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"c": 2}}),
            ({1: "1"}, {1: ""}, {}),
        ],
    )
    def test_metadata_is_merged(self, desk: Desk, before, change, after):
        desk.upsert("k", metadata=before)
        desk.store("store_patch", "k", pack({"metadata": change}))
        assert desk.get("k", NAMESPACE)["metadata"] == after

    def test_metadata_of_a_record_that_has_none(self, desk: Desk):
        desk.upsert("k")
        desk.store("store_patch", "k", pack({"metadata": {"a": "1", "b": ""}}))
        assert desk.get("k", NAMESPACE)["metadata"] == {"a": "1"}

    @pytest.mark.parametrize("metadata", [None, "", 1, ["a"]])
    def test_metadata_is_a_mapping(self, desk: Desk, metadata):
        desk.upsert("k", metadata={"a": "1"})
        with pytest.raises(InvalidRecord, match="metadata is not a mapping"):
            desk.store("store_patch", "k", pack({"metadata": metadata}))

    @pytest.mark.parametrize("field", ["id", "object", "created"])
    @pytest.mark.parametrize("operation", ["patch", "store_patch", "increment"])
    def test_some_fields_never_change(self, desk: Desk, field, operation):
        desk.upsert("k", object="thing")
        before = desk.get("k", NAMESPACE)
        arguments: tuple[Any, ...] = (pack({field: "k", "a": 1}),)
        if operation == "increment":
            arguments = (field, 1, 0, None, None, True)
        with pytest.raises(InvalidRecord, match=f"never changes '{field}'"):
            desk.store(operation, "k", *arguments)
        assert desk.get("k", NAMESPACE) == before

    def test_increment(self, desk: Desk):
        desk.upsert("k", n=1)
        assert desk.store("increment", "k", "n", 2, 0, None, None, True) == 3
        assert desk.store("increment", "k", "new", 1.5, 1, None, None, False) == 2.5
        assert desk.get("k", NAMESPACE) == {"id": "k", "created": NOW, "n": 3, "new": 2.5}
        for must_exist in (True, False):
            with pytest.raises(RecordNotFound):
                desk.store("increment", "missing", "n", 1, 0, None, None, must_exist)
        with pytest.raises(InvalidRecord):
            desk.store("increment", "k", None, 1, 0, None, None, False)

    def test_namespaces_are_apart(self, desk: Desk):
        desk.upsert("k", namespace="a", v=1)
        desk.upsert("k", namespace="b", v=2)
        desk.store("delete", "k", namespace="a")
        assert desk.get("k", "a") is None
        assert desk.get("k", "b")["v"] == 2
        desk.upsert("k", namespace="a", v=3)
        assert desk.store("clear", namespace="b") == 1
        assert desk.get("k", "a")["v"] == 3

    def test_clear_all(self, desk: Desk):
        desk.do("declare", TABLE, "", ["f"])
        for namespace in "abc":
            for i in range(40):
                desk.upsert(f"k{i}", namespace=namespace, f=i % 3)
        desk.do("upsert", "other", "a", "k", pack({"id": "k", "created": 1}))
        desk.plain("put", "plain", pack(1))
        assert desk.store("clear_all") == 120
        assert desk.namespaces() == []
        for namespace in "abc":
            assert desk.keys(namespace) == []
            assert desk.find(namespace, f=1) == []
        assert desk.keys("a", table="other") == ["k"]
        assert desk.keys() == ["plain"]
        assert desk.store("clear_all") == 0
