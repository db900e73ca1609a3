"""What the operations on plain records do, and transactions; every engine in turn."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import msgpack
import pytest

from shmstore.codec import pack
from shmstore.errors import (
    InvalidArgument,
    InvalidKey,
    InvalidRecord,
    ProtocolError,
    RecordNotFound,
    StoreFull,
)
from tests.desk import INT_MAX, NAMESPACE, TABLE, Desk, open_desk


@pytest.fixture
def desk(engine: ModuleType) -> Iterator[Desk]:
    with open_desk(engine) as desk:
        yield desk


class TestRecords:
    def test_put(self, desk: Desk):
        first = desk.plain("put", "k", pack([1]))
        assert (desk.get("k"), desk.version("k")) == ([1], first)
        second = desk.plain("put", "k", pack(None))
        assert second > first
        assert (desk.get("k"), desk.version("k")) == (None, second)

    def test_str_and_bytes_keys_differ(self, desk: Desk):
        desk.plain("put", "k", pack(1))
        desk.plain("put", b"k", pack(2))
        assert (desk.get("k"), desk.get(b"k"), desk.keys()) == (1, 2, ["k", b"k"])

    def test_put_many(self, desk: Desk):
        version = desk.plain("put_many", [["a", pack(1)], [b"b", pack(2)], ["a", pack(3)]])
        assert (desk.get("a"), desk.get(b"b")) == (3, 2)
        assert desk.version("a") == desk.version(b"b") == version
        assert desk.plain("put_many", []) == version

    def test_insert(self, desk: Desk):
        version = desk.plain("insert", "k", pack(1))
        assert version == desk.version("k")
        assert desk.plain("insert", "k", pack(2)) is None
        assert desk.get("k") == 1

    def test_setdefault(self, desk: Desk):
        assert desk.plain("setdefault", "k", pack(1)) == [True, pack(1)]
        assert desk.plain("setdefault", "k", pack(2)) == [False, pack(1)]
        assert desk.get("k") == 1

    def test_cas(self, desk: Desk):
        assert desk.plain("cas", "k", 7, pack(0)) is None
        version = desk.plain("cas", "k", 0, pack(1))
        assert version == desk.version("k")
        assert desk.plain("cas", "k", 0, pack(2)) is None
        assert desk.plain("cas", "k", version + 1, pack(2)) is None
        assert desk.get("k") == 1
        assert desk.plain("cas", "k", version, pack(3)) == desk.version("k") > version
        assert desk.plain("cas", "k", version, pack(4)) is None
        assert desk.get("k") == 3

    def test_pop(self, desk: Desk):
        desk.plain("put", "k", pack("v"))
        assert desk.plain("pop", "k") == pack("v")
        assert desk.plain("pop", "k") is None
        assert desk.keys() == []

    def test_popitem(self, desk: Desk):
        desk.plain("put_many", [["a", pack(1)], ["b", pack(2)], [b"c", pack(3)]])
        desk.plain("put", "a", pack(4))
        assert desk.plain("popitem") == [b"c", pack(3)]
        assert desk.plain("popitem") == ["b", pack(2)]
        assert desk.plain("popitem") == ["a", pack(4)]
        assert desk.plain("popitem") is None

    def test_delete(self, desk: Desk):
        desk.plain("put", "k", pack(1))
        assert desk.plain("delete", "k") is True
        assert desk.plain("delete", "k") is False
        assert desk.get("k") is None

    def test_delete_many(self, desk: Desk):
        desk.plain("put_many", [["a", pack(1)], ["b", pack(2)], ["c", pack(3)]])
        assert desk.plain("delete_many", ["a", "a", "x", b"c", "c"]) == 2
        assert desk.keys() == ["b"]
        assert desk.plain("delete_many", []) == 0

    def test_clear(self, desk: Desk):
        assert desk.plain("clear") == 0
        desk.plain("put_many", [[f"k{i}", pack(i)] for i in range(100)])
        desk.do("put", "other", "", "k", pack(1))
        assert desk.plain("clear") == 100
        assert desk.keys() == []
        assert desk.keys(table="other") == ["k"]
        desk.plain("put", "k", pack(2))
        assert desk.keys() == ["k"]

    def test_patch(self, desk: Desk):
        assert desk.plain("patch", "k", pack({"a": 1})) is False
        assert desk.get("k") is None
        desk.plain("put", "k", pack({"a": 1, "b": {"c": 2}, 5: 6}))
        assert desk.plain("patch", "k", pack({"b": None, "n": [1], "id": 9})) is True
        assert desk.get("k") == {"a": 1, "b": None, 5: 6, "n": [1], "id": 9}
        assert desk.plain("patch", "k", pack({})) is True

    @pytest.mark.parametrize("record", [None, 1, "a", [], b""])
    def test_only_mappings_have_fields(self, desk: Desk, record):
        desk.plain("put", "k", pack(record))
        version = desk.version("k")
        for operation in (
            ("patch", "k", pack({})),
            ("increment", "k", "f", 1, 0, None, None, False),
        ):
            with pytest.raises(InvalidRecord, match="not a mapping"):
                desk.plain(*operation)
        desk.plain("put", "m", pack({}))
        with pytest.raises(InvalidRecord, match="patch is not a mapping"):
            desk.plain("patch", "m", pack(record))
        assert (desk.get("k"), desk.version("k")) == (record, version)

    def test_fields_nobody_can_read_are_kept(self, desk: Desk):
        strange = b"\x83\xa1a\x01\x91\x01\xa1\xff\xa1b\x02"
        desk.plain("put", "k", strange)
        desk.plain("patch", "k", pack({"a": 5}))
        desk.plain("increment", "k", "b", 1, 0, None, None, False)
        found = desk.owner.find(TABLE, "", "k")
        assert found.value == b"\x83\xa1a\x05\x91\x01\xa1\xff\xa1b\x03"


class TestIncrement:
    def increment(
        self,
        desk: Desk,
        key: str = "k",
        field: str | None = None,
        by: Any = 1,
        default: Any = 0,
        wrap_at: Any = None,
        reset_to: Any = None,
        must_exist: bool = False,
    ) -> Any:
        return desk.plain("increment", key, field, by, default, wrap_at, reset_to, must_exist)

    def test_what_is_missing_counts_as_the_default(self, desk: Desk):
        assert self.increment(desk, default=10) == 11
        assert self.increment(desk, default=10) == 12
        assert self.increment(desk, "m", "f", default=5) == 6
        assert self.increment(desk, "m", "g", by=-2) == -2
        assert (desk.get("k"), desk.get("m")) == (12, {"f": 6, "g": -2})

    def test_it_may_have_to_exist(self, desk: Desk):
        for field in (None, "f"):
            with pytest.raises(RecordNotFound):
                self.increment(desk, field=field, must_exist=True)
        assert desk.keys() == []
        desk.plain("put", "k", pack({}))
        assert self.increment(desk, field="f", must_exist=True) == 1

    @pytest.mark.parametrize(
        ("start", "by", "expected"),
        [
            (1, 0, 1), (1, -5, -4), (0, INT_MAX, INT_MAX), (INT_MAX, -1, INT_MAX - 1),
            (INT_MAX, 0, INT_MAX), (-(2**63), 0, -(2**63)), (1, 0.5, 1.5), (1.5, 1, 2.5),
            (0.5, 0.5, 1.0), (INT_MAX, 1.0, 2.0**64), (1e308, 1e308, float("inf")), (-1, 1, 0),
        ],
    )  # fmt: skip
    def test_sums(self, desk: Desk, start, by, expected):
        for key, field, record in (("k", None, start), ("m", "f", {"a": 1, "f": start, "z": 2})):
            desk.plain("put", key, pack(record))
            result = self.increment(desk, key, field, by)
            assert (result, type(result)) == (expected, type(expected))
        assert desk.get("k") == expected
        assert list(desk.get("m").items()) == [("a", 1), ("f", expected), ("z", 2)]

    @pytest.mark.parametrize(
        ("start", "by", "wrap_at", "reset_to", "expected"),
        [
            (9, 1, 10, None, 10), (10, 1, 10, None, 0), (10, 1, 10, 5, 5), (10, 5, 12, 1, 1),
            (1, -1, 0, None, 0), (0, -1, 0, None, 0), (0, -1, 0, 9, 9), (0, -1, 10, 9, 9),
            (20, 0, 10, 5, 20), (0, 0, 10, 5, 0), (20, 1, 10, 0, 0), (-5, -1, -10, 3, -6),
            (1.5, 1, 2, 0.5, 0.5), (INT_MAX, 1, INT_MAX, 7, 7), (-(2**63), -1, -(2**63), None, 0),
        ],
    )  # fmt: skip
    def test_wraps_as_update_counter_does(self, desk: Desk, start, by, wrap_at, reset_to, expected):
        desk.plain("put", "k", pack(start))
        assert self.increment(desk, by=by, wrap_at=wrap_at, reset_to=reset_to) == expected
        assert desk.get("k") == expected

    @pytest.mark.parametrize(
        ("start", "by"),
        [(INT_MAX, 1), (-(2**63), -1), (INT_MAX, INT_MAX), (-(2**63), -(2**63))],
    )
    def test_beyond_64_bits(self, desk: Desk, start, by):
        desk.plain("put", "k", pack(start))
        with pytest.raises(InvalidRecord, match="64 bits"):
            self.increment(desk, by=by)
        with pytest.raises(InvalidRecord, match="64 bits"):
            self.increment(desk, "new", "f", by=by, default=start)
        assert (desk.get("k"), desk.keys()) == (start, ["k"])

    @pytest.mark.parametrize("value", [True, False, None, "1", b"1", [1], {"a": 1}, b"", "x" * 50])
    def test_what_is_no_number(self, desk: Desk, value):
        desk.plain("put_many", [["k", pack(value)], ["m", pack({"f": value})]])
        for key, field in (("k", None), ("m", "f")):
            with pytest.raises(InvalidRecord, match="no int or float"):
                self.increment(desk, key, field)
        assert (desk.get("k"), desk.get("m")) == (value, {"f": value})

    @pytest.mark.parametrize(
        "arguments",
        [
            {"by": True}, {"by": None}, {"by": "1"}, {"default": None}, {"default": False},
            {"wrap_at": "1"}, {"wrap_at": True}, {"reset_to": []}, {"must_exist": None},
            {"must_exist": 1},
        ],
        ids=str,
    )  # fmt: skip
    def test_wrong_arguments(self, desk: Desk, arguments):
        with pytest.raises(InvalidArgument):
            self.increment(desk, **arguments)

    @pytest.mark.parametrize("field", [1, b"f", True, ["f"], {}], ids=str)
    def test_a_field_is_text(self, desk: Desk, field):
        with pytest.raises(InvalidKey):
            self.increment(desk, field=field)


class TestTransaction:
    def test_all_of_it(self, desk: Desk):
        results = desk.do(
            "transaction",
            ["put", ["a", "", "k", pack(1)]],
            ["put", ["a", "", "k", pack(2)]],
            ["increment", ["a", "", "k", None, 5, 0, None, None, False]],
            ["declare", [TABLE, "", ["f"]]],
            ["upsert", [TABLE, NAMESPACE, "r", pack({"id": "r", "created": 1, "f": 1})]],
            ["insert", [TABLE, NAMESPACE, "r", pack({"id": "r", "created": 1, "f": 2})]],
            ["pop", ["a", "", "nothing"]],
            ["put", ["b", "", "k", pack(1)]],
            ["delete", ["b", "", "k"]],
        )
        version = desk.owner.committed
        assert results == [version, version, 7, None, 1, None, None, version, True]
        assert desk.get("k", table="a") == 7
        assert desk.find(f=1) == ["r"]
        assert desk.tables() == {"a": {}, TABLE: {"indexes": ["f"], "store": True}}
        assert desk.do("transaction") == []

    def test_records_come_and_go(self, desk: Desk):
        desk.do("declare", TABLE, "", ["f"])
        desk.upsert("old", f=1)
        record = pack({"id": "old", "created": 2, "f": 2})
        desk.do(
            "transaction",
            ["delete", [TABLE, NAMESPACE, "old"]],
            ["upsert", [TABLE, NAMESPACE, "old", record]],
            ["clear", [TABLE, NAMESPACE]],
            ["upsert", [TABLE, NAMESPACE, "old", record]],
            ["upsert", [TABLE, NAMESPACE, "new", pack({"id": "new", "created": 1, "f": 2})]],
            ["delete_where", [TABLE, NAMESPACE, [["id", pack("old")]]]],
        )
        assert (desk.find(f=1), desk.find(f=2), desk.keys(NAMESPACE)) == ([], ["new"], ["new"])
        assert desk.namespaces() == [NAMESPACE]

    @pytest.mark.parametrize(
        ("bad", "kind"),
        [
            (["put", ["a", "", "k", b"\xc1"]], InvalidRecord),
            (["put", ["a", "", 1, pack(1)]], InvalidKey),
            (["put", ["a", ""]], ProtocolError),
            (["nothing", ["a", ""]], ProtocolError),
            (["increment", ["a", "", "text", None, 1, 0, None, None, False]], InvalidRecord),
            (["increment", ["a", "", "x", None, 1, 0, None, None, True]], RecordNotFound),
            (["upsert", ["a", "n", "k", pack({})]], InvalidRecord),
        ],
    )
    def test_an_error_names_the_position_and_undoes_all(self, desk: Desk, bad, kind):
        desk.do("put", "a", "", "text", pack("text"))
        for position in range(3):
            operations = [["put", ["a", "", f"k{i}", pack(i)]] for i in range(2)]
            operations.insert(position, bad)
            with pytest.raises(kind, match=f"operation {position} of the transaction") as caught:
                desk.do("transaction", *operations)
            assert caught.value.details["position"] == position
        assert desk.keys(table="a") == ["text"]

    def test_what_the_border_refuses_stages_nothing(self, desk: Desk):
        with pytest.raises(ProtocolError):
            desk.stage("transaction", ["put", ["a", "", "k", pack(1)]], ["put", ["a", ""]])
        assert not desk.owner.staged

    def test_transactions_do_not_nest(self, desk: Desk):
        with pytest.raises(InvalidArgument, match="itself"):
            desk.do("transaction", ["transaction", []])

    @pytest.mark.parametrize(
        "operation", [None, 1, "put", [], ["put"], ["put", [], 1], {"put": []}]
    )
    def test_what_is_no_operation(self, desk: Desk, operation):
        with pytest.raises(ProtocolError):
            desk.do("transaction", operation)

    def test_a_full_store_changes_nothing(self, engine: ModuleType):
        desk = Desk(engine, 2 << 20)
        desk.plain("put", "k", pack(1))
        value = pack(b"x" * 500_000)
        with pytest.raises(StoreFull):
            desk.do("transaction", *(["put", ["t", "", f"k{i}", value]] for i in range(10)))
        with pytest.raises(StoreFull):
            desk.plain("put_many", [[f"k{i}", value] for i in range(10)])
        assert (desk.keys(), desk.tables()) == (["k"], {TABLE: {}})
        desk.plain("put", "l", pack(2))
        assert desk.owner.check() == []
        desk.segment.close()


def test_msgpack_of_other_libraries(engine: ModuleType):
    desk = Desk(engine)
    desk.plain("put", "k", msgpack.packb({"f": 1}, use_single_float=True))
    assert desk.get("k") == {"f": 1}
    desk.segment.close()
