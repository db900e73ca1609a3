"""Secondary indexes follow every operation, and the rules of equality."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from shmstore.codec import pack
from shmstore.errors import InvalidArgument, InvalidKey, InvalidRecord
from shmstore.protocol import INDEXES_MAX
from tests.desk import NAMESPACE, TABLE, Desk, open_desk


@pytest.fixture
def desk(engine: ModuleType) -> Iterator[Desk]:
    with open_desk(engine) as desk:
        yield desk


VALUES = [
    None, True, False, 1, 1.0, 0.0, 0, "", "1", b"1", b"", [], [1], {}, {"a": 1, "b": 2},
    "x" * 2000, float("nan"), 2**64 - 1,
]  # fmt: skip


class TestIndexes:
    @pytest.fixture
    def desk(self, desk: Desk) -> Desk:
        desk.do("declare", TABLE, "", ["f", "g"])
        return desk

    def test_equality_is_exact_in_type(self, desk: Desk):
        for at, value in enumerate(VALUES):
            desk.upsert(f"k{at}", f=value)
        desk.upsert("absent")
        for at, value in enumerate(VALUES):
            assert desk.find(f=value) == [f"k{at}"]
        for at, value in enumerate(VALUES):
            assert desk.store("delete_where", [["f", pack(value)]]) == 1
            assert desk.find(f=value) == []
            assert f"k{at}" not in desk.keys(NAMESPACE)
        assert desk.keys(NAMESPACE) == ["absent"]

    def test_equal_values_however_written(self, desk: Desk):
        desk.upsert("a", f=0.0, g={"x": 1, "y": 2})
        desk.upsert("b", f=-0.0, g={"y": 2, "x": 1})
        assert desk.find(f=-0.0) == desk.find(g={"x": 1, "y": 2}) == ["a", "b"]

    def test_they_follow_every_change(self, desk: Desk):
        desk.upsert("k", f=1, g=1)
        assert (desk.find(f=1), desk.find(g=1)) == (["k"], ["k"])
        desk.upsert("k", f=2, g=1)
        assert (desk.find(f=1), desk.find(f=2), desk.find(g=1)) == ([], ["k"], ["k"])
        desk.upsert("k", f=2, g=1, created=5)
        assert (desk.find(f=2), desk.find(g=1)) == (["k"], ["k"])
        desk.store("store_patch", "k", pack({"f": 3}))
        assert (desk.find(f=2), desk.find(f=3)) == ([], ["k"])
        desk.store("patch", "k", pack({"f": 4}))
        assert (desk.find(f=3), desk.find(f=4)) == ([], ["k"])
        desk.store("increment", "k", "f", 1, 0, None, None, True)
        assert (desk.find(f=4), desk.find(f=5)) == ([], ["k"])
        desk.store("cas", "k", desk.version("k", NAMESPACE), pack({"id": "k", "created": 1}))
        assert (desk.find(f=5), desk.find(g=1), desk.keys(NAMESPACE)) == ([], [], ["k"])
        desk.store("put", "k", pack({"id": "k", "created": 1, "f": 6}))
        assert desk.find(f=6) == ["k"]

    @pytest.mark.parametrize(
        "removal",
        [("delete", "k"), ("pop", "k"), ("delete_many", ["k"]), ("popitem",), ("clear",),
         ("clear_all",), ("delete_where", [["f", pack(1)]]), ("delete_where", [["g", pack(2)]]),
         ("delete_where", [["other", pack(3)]])],
        ids=lambda operation: operation[0],
    )  # fmt: skip
    def test_they_lose_what_is_removed(self, desk: Desk, removal):
        desk.upsert("k", f=1, g=2, other=3)
        desk.store(*removal)
        assert desk.keys(NAMESPACE) == desk.find(f=1) == desk.find(g=2) == []
        desk.upsert("k", f=1)
        assert desk.find(f=1) == ["k"]

    def test_values_nobody_can_read_are_in_none(self, desk: Desk):
        record = b"\x84\xa2id\xa1k\xa7created\x01\xa1f\xa1\xff\xa1g\x01"
        desk.store("put", "k", record)
        assert desk.find(g=1) == ["k"]
        desk.store("delete_where", [["f", pack(1)]])
        desk.store("put", "l", b"\x83\xa2id\xa1l\xa7created\x01\xa1h\xa1\xff")
        assert desk.store("delete_where", [["h", pack(1)]]) == 0
        desk.do("declare", TABLE, "", ["h"])
        assert desk.store("delete_where", [["f", b"\xa1x"], ["g", pack(1)]]) == 0
        with pytest.raises(InvalidRecord):
            desk.store("delete_where", [["f", b"\xa1\xff"]])
        assert desk.store("clear") == 2

    @pytest.mark.parametrize("indexes", [[], ["f"], ["f", "g"]])
    def test_delete_where(self, engine: ModuleType, indexes):
        desk = Desk(engine)
        desk.do("declare", TABLE, "", indexes)
        for i in range(100):
            fields: dict[str, Any] = {} if i % 5 else {"g": None}
            desk.upsert(f"k{i}", f=i % 2, **fields)
        desk.upsert("k0", namespace="other", f=0, g=None)
        assert desk.store("delete_where", [["f", pack(0)], ["g", pack(None)]]) == 10
        assert desk.store("delete_where", [["f", pack(0)], ["g", pack(None)]]) == 0
        assert desk.store("delete_where", [["g", pack(None)]]) == 10
        assert desk.store("delete_where", [["f", pack(1.0)]]) == 0
        assert desk.store("delete_where", [["f", pack(0)]]) == 40
        assert desk.store("delete_where", [["missing", pack(None)]]) == 0
        assert len(desk.keys(NAMESPACE)) == 40
        assert desk.keys("other") == ["k0"]
        desk.segment.close()

    def test_delete_where_on_a_plain_table(self, desk: Desk):
        desk.plain("put_many", [["a", pack({"f": 1})], ["b", pack(1)], ["c", pack({"f": 2})]])
        assert desk.plain("delete_where", [["f", pack(1)]]) == 1
        assert desk.keys() == ["b", "c"]

    def test_delete_where_without_filters(self, desk: Desk):
        with pytest.raises(InvalidArgument, match="clear"):
            desk.store("delete_where", [])

    def test_new_indexes_are_filled(self, desk: Desk):
        for namespace in "ab":
            for i in range(70):
                desk.upsert(f"k{i}", created=i, namespace=namespace, f=1, n=i % 2, o=None)
        desk.upsert("absent", namespace="a")
        desk.plain("put", "k", pack({"n": 1}))
        order = desk.keys("a")
        version = desk.version("k3", "a")
        desk.do("declare", TABLE, "", ["n", "f", "o", "n"])
        assert desk.version("k3", "a") == version
        assert desk.tables()[TABLE] == {"indexes": ["f", "g", "n", "o"], "store": True}
        for namespace in "ab":
            assert desk.find(namespace, n=0) == [f"k{i}" for i in range(0, 70, 2)]
            assert desk.find(namespace, n=1) == [f"k{i}" for i in range(1, 70, 2)]
            assert len(desk.find(namespace, o=None)) == len(desk.find(namespace, f=1)) == 70
        assert desk.keys("a") == order
        assert desk.get("k3", "a") == {"id": "k3", "created": 3, "f": 1, "n": 1, "o": None}
        desk.upsert("k0", namespace="a", n=1)
        assert len(desk.find("a", n=0)) == 34

    def test_declaring_again_changes_nothing(self, desk: Desk):
        desk.upsert("k", f=1)
        version = desk.owner.committed
        desk.do("declare", TABLE, "", ["g", "f"])
        desk.do("declare", TABLE, "", [])
        assert desk.owner.committed == version

    def test_indexes_are_limited(self, desk: Desk):
        desk.do("declare", TABLE, "", [f"f{i}" for i in range(INDEXES_MAX - 2)])
        with pytest.raises(InvalidArgument, match="indexes"):
            desk.do("declare", TABLE, "", ["one more"])

    @pytest.mark.parametrize("indexes", ["f", None, [1], [""], [b"f"], ["x" * 256], [["f"]], {}])
    def test_wrong_indexes(self, desk: Desk, indexes):
        with pytest.raises((InvalidArgument, InvalidKey)):
            desk.do("declare", TABLE, "", indexes)
