"""What every table must do, written once, and the clients it is done through."""

from __future__ import annotations

import datetime
import math
from collections.abc import ItemsView, KeysView, MutableMapping, ValuesView

import pytest

from shmstore.errors import InvalidArgument, InvalidKey, InvalidRecord, RecordNotFound
from shmstore.namespaces import namespace
from shmstore.server import start, supervisor
from shmstore.table import Table
from tests.local import Local
from tests.waiting import eventually

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**64 - 1,
    -(2**63),
    0.5,
    math.inf,
    -math.inf,
    "",
    "ünïcode \N{SNOWMAN}",
    b"",
    b"\x00\xff",
    [],
    [1, [2, [3]]],
    {},
    {"a": {"b": [None, True]}, "": b""},
    {1: "int key", b"b": "bytes key", None: "no key"},
    datetime.datetime(2024, 2, 29, 12, 30, 1, 123456, tzinfo=datetime.timezone.utc),
    "x" * 100_000,
]


class EachClient:
    """Runs the tests of a class in process and across processes, in tables of their own."""

    @pytest.fixture(scope="class", params=["in process", "across processes"])
    @classmethod
    def shared_server(cls, request):
        if request.param == "in process":
            yield None
        else:
            with pytest.MonkeyPatch.context() as patch:
                # The spare comes now: the leak guard would blame the test it came up in.
                patch.setattr(supervisor, "SPARE_AFTER_SECONDS", 0.0)
                with start(capacity="32MiB") as server:
                    eventually(lambda: server._supervisor.spare_pid)
                    yield server

    @pytest.fixture
    def client(self, shared_server):
        client = Local() if shared_server is None else shared_server.connect()
        yield client
        if isinstance(client, Local):
            assert client.check() == []
        client.close()

    @pytest.fixture(autouse=True)
    def own_namespace(self, request):
        with namespace(request.node.name[:200]) as name:
            yield name


class MappingContract(EachClient):
    """A table is a dict with str and bytes keys."""

    @pytest.fixture
    def table(self, client, request):
        return Table(client, request.node.name[:200])

    # Reading and writing one key

    def test_is_a_mutable_mapping(self, table):
        assert isinstance(table, MutableMapping)

    @pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
    def test_a_record_reads_back_equal_and_of_the_same_type(self, table, value):
        table["k"] = value
        assert table["k"] == value
        assert type(table["k"]) is type(value)

    def test_nan_reads_back(self, table):
        table["k"] = math.nan
        assert math.isnan(table["k"])

    def test_a_tuple_reads_back_as_a_list(self, table):
        table["k"] = (1, (2,))
        assert table["k"] == [1, [2]]

    def test_a_missing_key_is_a_key_error_that_names_table_and_key(self, table):
        with pytest.raises(KeyError) as caught:
            table["nobody"]
        assert isinstance(caught.value, RecordNotFound)
        assert "nobody" in str(caught.value)
        assert table.name in str(caught.value)
        assert caught.value.details["key"] == "nobody"

    def test_get_returns_the_default_for_a_missing_key_only(self, table):
        table["none"] = None
        assert table.get("missing") is None
        assert table.get("missing", 7) == 7
        assert table.get("none", 7) is None

    def test_text_and_bytes_are_different_keys(self, table):
        table["k"] = "text"
        table[b"k"] = "bytes"
        assert (table["k"], table[b"k"], len(table)) == ("text", "bytes", 2)
        del table["k"]
        assert list(table) == [b"k"]

    @pytest.mark.parametrize("key", ["", b"", "\0", "ключ", b"\xff", "k" * 65536, b"k" * 65536])
    def test_any_text_and_bytes_up_to_64_kib_are_keys(self, table, key):
        table[key] = 1
        assert table[key] == 1
        assert key in table
        assert list(table) == [key]

    @pytest.mark.parametrize("key", [1, 1.0, None, True, ("a",), bytearray(b"k"), frozenset()])
    def test_other_types_are_no_keys(self, table, key):
        for attempt in (
            lambda: table[key],
            lambda: table.get(key),
            lambda: key in table,
            lambda: table.put(key, 1),
            lambda: table.delete(key),
            lambda: table.pop(key, None),
            lambda: table.get_many([key]),
            lambda: table.version(key),
            lambda: table.get_bytes(key),
        ):
            with pytest.raises(InvalidKey, match=r"str or bytes|unhashable"):
                attempt()
        assert len(table) == 0

    @pytest.mark.parametrize("key", ["\ud800", "k" * 65537, b"k" * 65537, "é" * 32769])
    def test_surrogates_and_long_keys_are_refused(self, table, key):
        for attempt in (lambda: table.put(key, 1), lambda: table.get(key), lambda: key in table):
            with pytest.raises(InvalidKey):
                attempt()
        assert len(table) == 0

    def test_subclasses_of_text_are_plain_keys(self, table):
        class Name(str):
            __slots__ = ()

        table[Name("k")] = 1
        assert table[Name("k")] == table["k"] == 1
        assert [type(key) for key in table] == [str]

    @pytest.mark.parametrize(
        "value",
        [2**64, -(2**63) - 1, {1, 2}, datetime.datetime(2024, 1, 1), object(), "\ud800", 1j],
        ids=lambda value: type(value).__name__,
    )
    def test_what_msgpack_cannot_carry_is_refused_and_changes_nothing(self, table, value):
        table["k"] = "old"
        with pytest.raises(InvalidRecord, match=r"\['a'\]\[1\]"):
            table["k"] = {"a": [0, value]}
        with pytest.raises(InvalidRecord):
            table.update(other=1, k=value)
        assert table.copy() == {"k": "old"}

    def test_records_are_fresh_objects(self, table):
        table["k"] = {"list": [1]}
        table["k"]["list"].append(2)
        table.get("k")["more"] = True
        assert table["k"] == {"list": [1]}

    # Order and size

    def test_keys_keep_the_order_of_first_insertion(self, table):
        model = {}
        for key in ("c", "a", b"b", "d"):
            table[key] = model[key] = 1
        table["a"] = model["a"] = 2
        del table["c"], model["c"]
        table["c"] = model["c"] = 3
        assert list(table) == list(model)
        assert list(reversed(table)) == list(reversed(model))
        assert list(table.items()) == list(model.items())

    def test_a_walk_over_many_chunks_meets_every_key_once(self, table):
        keys = [f"key-{number:05}" for number in range(3000)]
        table.update(dict.fromkeys(keys, 0))
        assert list(table) == keys
        assert list(reversed(table)) == keys[::-1]

    def test_a_key_that_stays_appears_once_while_others_come_and_go(self, table):
        keys = [f"key-{number:04}" for number in range(600)]
        table.update(dict.fromkeys(keys, 0))
        seen = []
        for number, key in enumerate(table):
            seen.append(key)
            if number < 600:
                table.delete(f"key-{number * 7 % 600 // 2 * 2:04}")
                table[f"new-{number}"] = 0
                table[f"key-{number // 2 * 2 + 1:04}"] = 1
        stayed = [key for key in keys if int(key[4:]) % 2]
        assert [key for key in seen if key in set(stayed)] == stayed
        assert len(seen) == len(set(seen))

    def test_a_cleared_table_ends_a_walk(self, table):
        table.update({str(number): number for number in range(500)})
        walk = iter(table)
        next(walk)
        table.clear()
        assert len(list(walk)) < 500

    def test_length_and_truth_follow_the_records(self, table):
        assert len(table) == 0
        assert not table
        table["a"] = table["b"] = 1
        assert len(table) == 2
        assert table
        del table["a"]
        assert len(table) == 1

    # The methods of dict

    def test_del_of_a_missing_key_is_a_key_error(self, table):
        with pytest.raises(RecordNotFound, match="nobody"):
            del table["nobody"]

    def test_setdefault_stores_once(self, table):
        assert table.setdefault("k", [1]) == [1]
        assert table.setdefault("k", [2]) == [1]
        assert table.setdefault("n") is None
        assert table.copy() == {"k": [1], "n": None}

    def test_pop(self, table):
        table["k"] = {"a": 1}
        assert table.pop("k", "default") == {"a": 1}
        assert table.pop("k", "default") == "default"
        assert table.pop("k", None) is None
        with pytest.raises(RecordNotFound, match="'k'"):
            table.pop("k")

    def test_pop_returns_a_stored_none(self, table):
        table["k"] = None
        assert table.pop("k", "default") is None
        assert "k" not in table

    def test_popitem_takes_what_was_inserted_last(self, table):
        table.update(a=1, b=2, c=3)
        table["a"] = 4
        assert [table.popitem() for _ in range(3)] == [("c", 3), ("b", 2), ("a", 4)]
        with pytest.raises(RecordNotFound, match="empty"):
            table.popitem()

    def test_update_takes_mappings_pairs_and_keywords(self, table):
        table.update({"a": 1, b"b": 2})
        table.update([("c", 3), ("a", 4)], self=5, other=6)
        table.update()
        table.update(f=7)
        model = {"a": 4, b"b": 2, "c": 3, "self": 5, "other": 6, "f": 7}
        assert list(table.items()) == list(model.items())

    def test_update_from_another_table(self, table, client):
        other = Table(client, "another")
        other.clear()
        other.update(x=1, y=[2])
        table.update(other)
        assert table == other

    @pytest.mark.parametrize("junk", [5, [1], ["abc"], [("a", 1, 2)]])
    def test_update_refuses_what_dict_refuses(self, table, junk):
        with pytest.raises((TypeError, ValueError)) as expected:
            {}.update(junk)
        with pytest.raises(expected.type):
            table.update(junk)

    def test_equality_is_that_of_mappings(self, table):
        table.update(a=1, b=[2])
        assert table == {"b": [2], "a": 1}
        assert table != {"a": 1}
        assert table != [("a", 1)]
        with pytest.raises(TypeError):
            hash(table)

    def test_union(self, table):
        table.update(a=1, b=2)
        assert table | {"b": 3, "c": 4} == {"a": 1, "b": 3, "c": 4}
        assert {"b": 3, "c": 4} | table == {"b": 2, "c": 4, "a": 1}
        assert list({"b": 3, "c": 4} | table) == ["b", "c", "a"]
        before = table
        table |= [("d", 5)]
        assert table is before
        assert table.copy() == {"a": 1, "b": 2, "d": 5}
        with pytest.raises(TypeError):
            table | [("e", 6)]

    def test_clear(self, table):
        table.update(a=1, b=2)
        assert table.clear() is None
        assert table.copy() == {}
        table.clear()
        table["a"] = 3
        assert table.copy() == {"a": 3}

    # Views

    def test_views_are_live(self, table):
        views = table.keys(), table.values(), table.items()
        keys, values, items = views
        kinds = (KeysView, ValuesView, ItemsView)
        assert all(map(isinstance, views, kinds))
        table.update(a=1, b=2)
        assert (len(keys), len(values), len(items)) == (2, 2, 2)
        assert (list(keys), list(values), list(items)) == (["a", "b"], [1, 2], [("a", 1), ("b", 2)])
        assert list(reversed(keys)) == ["b", "a"]
        assert list(reversed(values)) == [2, 1]
        assert list(reversed(items)) == [("b", 2), ("a", 1)]

    def test_views_are_set_like(self, table):
        model = {"a": 1, b"b": 2, "c": 3}
        table.update(model)
        for ours, theirs in ((table.keys(), model.keys()), (table.items(), model.items())):
            assert ours == theirs
            assert theirs == ours
        others = {"a", "z", 1, None}
        assert table.keys() & others == {"a"}
        assert table.keys() - others == {b"b", "c"}
        assert table.keys() | others == model.keys() | others
        assert table.keys() ^ others == model.keys() ^ others
        assert others & table.keys() == {"a"}
        assert table.keys() <= {"a", b"b", "c", "d"}
        assert table.keys().isdisjoint({1, "b"})
        assert table.items() & {("a", 1), ("c", 4), (1, 2)} == {("a", 1)}

    def test_membership_in_views(self, table):
        table.update(a=1, n=None)
        assert "a" in table.keys()  # noqa: SIM118
        assert 1 not in table.keys()  # noqa: SIM118
        assert 1 in table.values()
        assert 2 not in table.values()
        assert ("a", 1) in table.items()
        assert ("n", None) in table.items()
        assert ("a", 2) not in table.items()
        assert ("z", None) not in table.items()
        assert (1, 1) not in table.items()
        assert "a" not in table.items()

    # Beyond dict

    def test_put_returns_growing_versions(self, table):
        first = table.put("k", 1)
        second = table.put("k", 2)
        assert 0 < first < second == table.version("k")
        assert table.get_versioned("k") == (second, 2)

    def test_a_missing_record_has_version_0(self, table):
        assert table.version("k") == 0
        assert table.get_versioned("k") == (0, None)
        assert table.get_versioned("k", "default") == (0, "default")

    def test_put_many_is_one_version(self, table):
        version = table.put_many({"a": 1, b"b": 2})
        assert version == table.version("a") == table.version(b"b")
        table.put_many([("c", 3), ("a", 4)])
        assert table.copy() == {"a": 4, b"b": 2, "c": 3}

    def test_put_many_of_nothing(self, table):
        table.put_many({})
        assert table.copy() == {}

    def test_insert_new_never_overwrites(self, table):
        assert table.insert_new("k", 1) is True
        assert table.insert_new("k", 2) is False
        assert table["k"] == 1

    def test_delete_tells_whether_there_was_one(self, table):
        table["k"] = 1
        assert table.delete("k") is True
        assert table.delete("k") is False

    def test_delete_many_counts_those_that_were_there(self, table):
        table.update(a=1, b=2, c=3)
        assert table.delete_many(["a", "x", "c", "a", b"b"]) == 2
        assert table.copy() == {"b": 2}
        assert table.delete_many([]) == 0

    def test_get_many_returns_those_present_in_the_order_asked(self, table):
        table.update({"a": 1, "b": None, b"a": 3})
        found = table.get_many(iter(["b", "x", b"a", "a", "b"]))
        assert list(found.items()) == [("b", None), (b"a", 3), ("a", 1)]
        assert table.get_many([]) == {}

    @pytest.mark.parametrize("keys", ["ab", b"ab"])
    def test_one_key_is_not_several(self, table, keys):
        with pytest.raises(InvalidKey, match="list"):
            table.get_many(keys)
        with pytest.raises(InvalidKey, match="list"):
            table.delete_many(keys)

    def test_get_bytes_is_the_stored_msgpack(self, table):
        table["k"] = {"a": 1}
        assert table.get_bytes("k") == b"\x81\xa1a\x01"
        assert table.get_bytes("x") is None
        assert table.get_bytes("x", b"") == b""

    def test_get_field_decodes_one_field(self, table):
        table["k"] = {"a": [1], "b": None}
        assert table.get_field("k", "a") == [1]
        assert table.get_field("k", "b", 7) is None
        assert table.get_field("k", "c", 7) == 7
        assert table.get_field("x", "a", 7) == 7
        table["n"] = 5
        with pytest.raises(InvalidRecord):
            table.get_field("n", "a")

    def test_compare_and_swap(self, table):
        assert table.compare_and_swap("k", 0, "first") is True
        assert table.compare_and_swap("k", 0, "second") is False
        version = table.version("k")
        assert table.compare_and_swap("k", version + 1, "third") is False
        assert table.compare_and_swap("k", version, "fourth") is True
        assert table.compare_and_swap("k", version, "fifth") is False
        assert table["k"] == "fourth"
        assert table.compare_and_swap("x", version, "none") is False
        assert "x" not in table

    @pytest.mark.parametrize("version", [None, -1, 1.0, True, "1"])
    def test_a_version_is_an_int(self, table, version):
        with pytest.raises(InvalidArgument, match="version"):
            table.compare_and_swap("k", version, 1)

    def test_patch_changes_the_named_fields_alone(self, table):
        table["k"] = {"a": 1, "b": {"c": 2}}
        assert table.patch("k", b=3, key=4, self=5) is True
        assert table["k"] == {"a": 1, "b": 3, "key": 4, "self": 5}
        assert table.patch("x", a=1) is False
        assert "x" not in table
        table["n"] = 5
        with pytest.raises(InvalidRecord):
            table.patch("n", a=1)
        assert table["n"] == 5

    def test_increment_of_a_number(self, table):
        assert table.increment("k") == 1
        assert table.increment("k", by=-3) == -2
        assert table.increment("k", by=0.5) == -1.5
        assert table.increment("new", default=10, by=5) == 15
        assert table.copy() == {"k": -1.5, "new": 15}

    def test_increment_of_a_field(self, table):
        table["k"] = {"a": 1, "b": "text"}
        assert table.increment("k", "a", 4) == 5
        assert table.increment("k", "c", 2, default=1) == 3
        assert table.increment("new", "n") == 1
        assert table["k"] == {"a": 5, "b": "text", "c": 3}
        assert table["new"] == {"n": 1}
        with pytest.raises(InvalidRecord):
            table.increment("k", "b")

    def test_increment_wraps(self, table):
        assert [table.increment("up", wrap_at=3) for _ in range(5)] == [1, 2, 3, 0, 1]
        assert [table.increment("on", wrap_at=2, reset_to=1) for _ in range(4)] == [1, 2, 1, 2]
        down = [table.increment("down", by=-1, wrap_at=-1, reset_to=7) for _ in range(3)]
        assert down == [-1, 7, 6]

    @pytest.mark.parametrize("value", [True, "1", None, [1], {"n": 1}])
    def test_increment_needs_a_number(self, table, value):
        table["k"] = value
        with pytest.raises(InvalidRecord):
            table.increment("k")
        assert table["k"] == value

    def test_increment_stays_in_64_bits(self, table):
        table["k"] = 2**64 - 1
        with pytest.raises(InvalidRecord, match="64"):
            table.increment("k")
        assert table["k"] == 2**64 - 1

    @pytest.mark.parametrize(
        "arguments",
        [{"by": True}, {"by": "1"}, {"default": None}, {"wrap_at": "x"}, {"reset_to": 1}],
        ids=str,
    )
    def test_arguments_of_increment_are_checked(self, table, arguments):
        with pytest.raises(InvalidArgument, match=next(iter(arguments))):
            table.increment("k", **arguments)
        assert "k" not in table
