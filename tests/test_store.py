"""Stores: declaration, ids, namespaces, finds and atomic mutations."""

from __future__ import annotations

import pickle
import re

import pytest

from shmstore import layout
from shmstore.errors import (
    InvalidArgument,
    InvalidKey,
    InvalidRecord,
    RecordNotFound,
    RecordTooLarge,
)
from shmstore.namespaces import current, namespace
from shmstore.store import Store
from shmstore.stores.customers import Customers
from tests.contract import EachClient
from tests.local import Local


class Orders(Store):
    table, resource, prefix = "orders", "order", "or"
    indexes = ("status", "customer")


class Unprefixed(Store):
    table, resource = "unprefixed", "thing"


def ids(records):
    return [record["id"] for record in records]


class TestStore(EachClient):
    @pytest.fixture
    def orders(self, client):
        return Orders(client)

    # Inserting and updating

    def test_insert_fills_in_id_object_and_created(self, orders):
        given = {"status": "new"}
        order = orders.insert(given)
        assert given == {"status": "new"}
        assert re.fullmatch("or_[0-9a-f]{16}", order["id"])
        assert order["object"] == "order"
        assert type(order["created"]) is int
        assert order["status"] == "new"
        assert orders.get(order["id"]) == orders[order["id"]] == order

    def test_insert_returns_what_will_be_read(self, orders):
        order = orders.insert({"items": (1, 2)})
        assert order["items"] == [1, 2]
        order["items"].append(3)
        assert orders[order["id"]]["items"] == [1, 2]

    def test_insert_keeps_what_is_given(self, orders):
        given = {"id": "mine", "object": "other", "created": 5, "n": 1}
        assert orders.insert(given) == given
        assert orders["mine"] == given

    def test_insert_of_an_existing_id_overwrites(self, orders):
        orders.insert({"id": "a", "created": 5, "old": 1})
        second = orders.insert({"id": "a", "created": 7, "new": 1})
        assert orders["a"] == second == {"id": "a", "object": "order", "created": 7, "new": 1}
        assert orders.count() == 1

    def test_update_is_an_upsert_of_the_whole_record(self, orders):
        orders.insert({"id": "a", "created": 5, "old": 1})
        assert orders.update({"id": "a", "created": 6, "new": 1}) == orders["a"]
        assert orders["a"] == {"id": "a", "object": "order", "created": 6, "new": 1}
        assert orders.update({"id": "b"}) == orders["b"]
        assert orders.count() == 2

    def test_update_keeps_the_time_of_creation_unless_given(self, orders):
        orders.insert({"id": "a", "created": 5})
        assert orders.update({"id": "a", "n": 1})["created"] == 5
        assert orders["a"]["created"] == 5

    def test_update_needs_an_id(self, orders):
        with pytest.raises(InvalidRecord, match="insert"):
            orders.update({"n": 1})

    @pytest.mark.parametrize(
        "record_id", [1, None, "", b"bytes", 1.5, ["a"], "x" * 65537, "\ud800"]
    )
    def test_an_id_is_text(self, orders, record_id):
        for attempt in (orders.insert, orders.update):
            with pytest.raises(InvalidRecord, match="id"):
                attempt({"id": record_id})
        assert orders.count() == 0

    @pytest.mark.parametrize("created", [1.5, "now", None, True, 2**63])
    def test_created_is_an_int(self, orders, created):
        with pytest.raises(InvalidRecord, match="created"):
            orders.insert({"created": created})

    @pytest.mark.parametrize("record", [None, 5, "text", ["id"], [("id", "a")]])
    def test_a_record_is_a_mapping(self, orders, record):
        for attempt in (orders.insert, orders.update):
            with pytest.raises(InvalidRecord, match="mapping"):
                attempt(record)
        assert orders.count() == 0

    def test_what_msgpack_cannot_carry_is_refused(self, orders):
        with pytest.raises(InvalidRecord, match=r"\['tags'\]"):
            orders.insert({"tags": {1}})
        assert orders.count() == 0

    def test_without_a_prefix_an_id_must_be_given(self, client):
        things = Unprefixed(client)
        with pytest.raises(InvalidRecord, match="prefix"):
            things.insert({"n": 1})
        assert things.insert({"id": "given"})["id"] == "given"

    def test_insert_many_is_one_batch(self, orders):
        given = [{"n": number} for number in range(50)]
        inserted = orders.insert_many(given)
        assert [record["n"] for record in inserted] == list(range(50))
        assert orders.list_namespace(current()) == inserted[::-1]
        with pytest.raises(InvalidRecord):
            orders.insert_many([{"n": 1}, {"id": 5}])
        assert orders.count() == 50
        assert orders.insert_many([]) == []

    # Reading

    def test_a_missing_record(self, orders):
        assert orders.get("nobody") is None
        assert orders.get("nobody", 5) == 5
        with pytest.raises(RecordNotFound, match=r"nobody.*orders") as caught:
            orders["nobody"]
        assert isinstance(caught.value, KeyError)

    def test_it_reads_like_a_mapping(self, orders):
        made = [orders.insert({"n": number}) for number in range(200)]
        assert made[0]["id"] in orders
        assert "nobody" not in orders
        assert len(orders) == orders.count() == 200
        assert list(orders) == ids(made)[::-1]
        assert orders.get_many([made[3]["id"], "nobody"]) == {made[3]["id"]: made[3]}

    def test_an_id_of_another_type_is_no_key(self, orders):
        for attempt in (orders.get, orders.delete, orders.__getitem__, orders.pop):
            with pytest.raises(InvalidKey, match="str"):
                attempt(5)

    def test_names(self, orders, client):
        assert orders.table_name == orders.table == "orders"
        assert orders.prefix == "or"
        assert orders.url_path == "/v1/orders"
        assert "orders" in repr(orders)

    # Namespaces

    def test_all_is_scoped_to_the_namespace(self, orders):
        mine = orders.insert({"id": "a", "status": "new"})
        with namespace("somewhere else"):
            orders.clear_namespace("somewhere else")
            assert orders.get("a") is None
            assert (orders.count(), list(orders), orders.list().data) == (0, [], [])
            assert orders.find(status="new") == orders.find() == []
            assert orders.delete("a") is False
            assert orders.delete_where(status="new") == 0
            assert orders.pop("a", None) is None
            assert orders.patch("a", n=1) is None
            orders.insert({"id": "a", "status": "other"})
        assert orders["a"] == mine

    def test_list_namespace_and_clear_namespace(self, orders):
        here = [orders.insert({"n": number}) for number in range(150)]
        with namespace("there") as there:
            orders.clear_namespace(there)
            other = orders.insert({"n": 0})
        with namespace("a third"):
            assert orders.list_namespace("there") == [other]
            assert orders.clear_namespace("there") == 1
            assert orders.clear_namespace("there") == 0
            assert orders.clear_namespace("never heard of") == 0
            assert orders.list_namespace("never heard of") == []
        assert orders.list_namespace(current()) == here[::-1]

    @pytest.mark.parametrize("name", ["", None, 5, "x" * 256])
    def test_a_namespace_is_text(self, orders, name):
        with pytest.raises(InvalidKey, match="namespace"):
            orders.list_namespace(name)
        with pytest.raises(InvalidKey, match="namespace"):
            orders.clear_namespace(name)

    def test_clear_spans_all_namespaces(self, client, orders):
        orders.clear()
        customer = Customers(client).insert({"email": "a@b.c"})
        for name in ("one", "two", "two"):
            with namespace(name):
                orders.insert({"status": "new"})
        assert orders.clear() == 3
        assert orders.clear() == 0
        for name in ("one", "two"):
            assert orders.list_namespace(name) == []
            with namespace(name):
                assert orders.find(status="new") == []
        assert Customers(client)[customer["id"]] == customer
        orders.insert({"status": "new"})
        assert len(orders.find(status="new")) == 1

    # Finding

    def test_find_by_an_indexed_field(self, orders):
        made = [orders.insert({"status": status}) for status in ("new", "paid", "new", "sent")]
        assert orders.find(status="new") == [made[2], made[0]]
        assert orders.find(status="lost") == []

    def test_find_follows_updates(self, orders):
        orders.insert({"id": "a", "status": "new"})
        orders.insert({"id": "b", "status": "new"})
        orders.update({"id": "a", "status": "paid"})
        assert ids(orders.find(status="new")) == ["b"]
        orders.patch("b", status="paid")
        assert orders.find(status="new") == []
        assert ids(orders.find(status="paid")) == ["b", "a"]
        orders.update({"id": "b"})
        orders.delete("a")
        assert orders.find(status="paid") == []

    def test_find_by_several_fields(self, orders):
        orders.insert({"id": "a", "status": "new", "customer": "x", "n": 1})
        orders.insert({"id": "b", "status": "new", "customer": "y", "n": 1})
        orders.insert({"id": "c", "status": "new", "customer": "y", "n": 2})
        assert ids(orders.find(status="new", customer="y")) == ["c", "b"]
        assert ids(orders.find(status="new", customer="y", n=1)) == ["b"]
        assert ids(orders.find(n=1)) == ["b", "a"]
        assert orders.find(status="new", customer="z") == []
        assert ids(orders.find()) == ["c", "b", "a"]

    @pytest.mark.parametrize("field", ["status", "plain"])
    def test_equality_is_exact_in_type(self, orders, field):
        values = [1, 1.0, True, 0, False, None, "1", b"1", [1], [1.0], {"a": 1}, {"a": True}, ""]
        for number, value in enumerate(values):
            orders.insert({"id": str(number), field: value})
        orders.insert({"id": "missing"})
        for number, value in enumerate(values):
            assert ids(orders.find(**{field: value})) == [str(number)]

    def test_equality_of_nested_values_ignores_the_order_of_maps(self, orders):
        orders.insert({"id": "a", "status": {"x": 1, "y": [2]}, "plain": {"x": 1, "y": [2]}})
        assert ids(orders.find(status={"y": [2], "x": 1})) == ["a"]
        assert ids(orders.find(plain={"y": (2,), "x": 1})) == ["a"]

    def test_long_values_are_found(self, orders):
        long = "x" * 5000
        orders.insert({"id": "a", "status": long})
        orders.insert({"id": "b", "status": long + "y"})
        assert ids(orders.find(status=long)) == ["a"]

    def test_fields_may_have_any_name(self, orders):
        orders.insert({"id": "a", "self": 1, "record_id": 2, "namespace": 3})
        assert ids(orders.find(self=1, record_id=2, namespace=3)) == ["a"]
        assert orders.patch("a", record_id=5, self=6)["record_id"] == 5
        assert orders.delete_where(self=6) == 1

    def test_what_no_record_can_hold_cannot_be_found(self, orders):
        for field in ("status", "plain"):
            with pytest.raises(InvalidRecord):
                orders.find(**{field: {1, 2}})
            with pytest.raises(InvalidRecord):
                orders.delete_where(**{field: {1, 2}})

    def test_an_index_declared_later_has_the_older_records(self, client, request):
        name = request.node.name[:200]

        class Before(Store):
            table, resource, prefix = name, "thing", "th"

        class After(Before):
            indexes = ("color",)

        Before(client).insert({"id": "a", "color": "red"})
        with namespace("another"):
            Before(client).insert({"id": "b", "color": "red"})
        assert ids(After(client).find(color="red")) == ["a"]
        After(client).insert({"id": "c", "color": "red"})
        Before(client).insert({"id": "d", "color": "red"})
        assert ids(After(client).find(color="red")) == ["d", "c", "a"]
        with namespace("another"):
            assert ids(After(client).find(color="red")) == ["b"]

    def test_find_before_anything_was_stored(self, client, request):
        class Never(Store):
            table, resource, indexes = request.node.name[:200], "thing", ("color",)

        assert Never(client).find(color="red") == []
        assert Never(client).delete_where(color="red") == 0
        assert Never(client).delete("a") is False
        assert Never(client).clear() == 0
        assert Never(client).list().data == []

    def test_delete_where(self, orders):
        for number in range(6):
            orders.insert({"status": "new" if number % 2 else "paid", "n": number})
        assert orders.delete_where(status="new") == 3
        assert orders.delete_where(status="paid", n=4) == 1
        assert orders.delete_where(n=0) == 1
        assert orders.delete_where(n=0.0) == 0
        assert [record["n"] for record in orders.find()] == [2]
        with pytest.raises(InvalidArgument, match="clear_namespace"):
            orders.delete_where()

    # Changing one record

    def test_patch_merges(self, orders):
        order = orders.insert({"a": 1, "metadata": {"x": "1", "y": "2"}})
        patched = orders.patch(order["id"], b=2, metadata={"x": "", "z": "3"})
        assert patched == orders[order["id"]]
        assert patched == {**order, "b": 2, "metadata": {"y": "2", "z": "3"}}
        assert orders.patch("nobody", a=1) is None
        assert "nobody" not in orders

    @pytest.mark.parametrize("field", ["id", "object", "created"])
    def test_fixed_fields_never_change(self, orders, field):
        order = orders.insert({})
        with pytest.raises(InvalidRecord, match=field):
            orders.patch(order["id"], **{field: 5})
        with pytest.raises(InvalidRecord, match=field):
            orders.increment(order["id"], field)
        assert orders[order["id"]] == order

    def test_increment(self, orders):
        order = orders.insert({"n": 1, "text": "t"})
        assert orders.increment(order["id"], "n") == 2
        assert orders.increment(order["id"], "new", by=5, default=10) == 15
        assert orders.increment(order["id"], "n", by=9, wrap_at=5, reset_to=1) == 1
        with pytest.raises(InvalidRecord):
            orders.increment(order["id"], "text")
        with pytest.raises(RecordNotFound, match="nobody"):
            orders.increment("nobody", "n")
        assert orders[order["id"]] == {**order, "n": 1, "new": 15}

    def test_increment_of_an_indexed_field(self, orders):
        order = orders.insert({"status": 1})
        orders.increment(order["id"], "status")
        assert ids(orders.find(status=2)) == [order["id"]]
        assert orders.find(status=1) == []

    def test_compare_and_swap(self, orders):
        assert orders.compare_and_swap("a", 0, {"status": "new", "created": 5}) is True
        assert orders.compare_and_swap("a", 0, {"status": "other"}) is False
        version, record = orders.get_versioned("a")
        assert record == {"id": "a", "object": "order", "created": 5, "status": "new"}
        assert orders.compare_and_swap("a", version, {"id": "a", "status": "paid"}) is True
        assert orders["a"]["created"] == 5
        assert ids(orders.find(status="paid")) == ["a"]
        assert orders.find(status="new") == []
        assert orders.version("a") > version
        assert orders.version("nobody") == 0
        with pytest.raises(InvalidRecord, match="'b'"):
            orders.compare_and_swap("a", version, {"id": "b"})

    def test_delete(self, orders):
        order = orders.insert({"status": "new"})
        assert orders.delete(order["id"]) is True
        assert orders.delete(order["id"]) is False
        assert (orders.count(), orders.find(status="new")) == (0, [])

    def test_delete_many(self, orders):
        made = ids(orders.insert_many([{}, {}, {}]))
        assert orders.delete_many([made[0], "nobody", made[2]]) == 2
        assert list(orders) == [made[1]]

    def test_pop_takes_a_record(self, orders):
        order = orders.insert({"status": "new"})
        assert orders.pop(order["id"]) == order
        assert orders.pop(order["id"], None) is None
        with pytest.raises(RecordNotFound):
            orders.pop(order["id"])
        assert orders.find(status="new") == []

    def test_two_store_objects_are_one_store(self, client, orders):
        order = orders.insert({"status": "new"})
        assert Orders(client)[order["id"]] == order


# Declarations

BAD_DECLARATIONS = {
    "no resource": {"table": "t"},
    "no table": {"resource": "r"},
    "table of bytes": {"table": b"t", "resource": "r"},
    "table too long": {"table": "t" * 254, "resource": "r"},
    "resource of another type": {"table": "t", "resource": 5},
    "empty prefix": {"table": "t", "resource": "r", "prefix": ""},
    "prefix of another type": {"table": "t", "resource": "r", "prefix": 5},
    "url_path of another type": {"table": "t", "resource": "r", "url_path": 5},
    "indexes as text": {"table": "t", "resource": "r", "indexes": "status"},
    "index of another type": {"table": "t", "resource": "r", "indexes": (5,)},
    "index twice": {"table": "t", "resource": "r", "indexes": ("a", "a")},
    "too many indexes": {"table": "t", "resource": "r", "indexes": tuple(map(str, range(65)))},
}


@pytest.mark.parametrize("attributes", BAD_DECLARATIONS.values(), ids=BAD_DECLARATIONS)
def test_a_bad_declaration_is_refused_where_the_class_is_made(attributes):
    with pytest.raises(InvalidArgument, match="class Bad"):
        type("Bad", (Store,), attributes)


def test_a_common_base_declares_nothing():
    class Base(Store):
        def first(self):
            return self.list(limit=1).data

    class Things(Base):
        table, resource = "things", "thing"

    assert Things.url_path == "/v1/things"
    with pytest.raises(InvalidArgument, match="Base"):
        Base(Local())


# What is sent


@pytest.fixture
def local():
    client = Local()
    yield client
    assert client.check() == []
    client.close()


def test_a_store_is_declared_once_per_client(local):
    Orders(local).insert({})
    Orders(local).insert({})
    Orders(local).find(status="new")
    assert local.requests == ["declare", "upsert", "upsert"]


def test_a_store_that_another_client_declared_is_not_declared_again(local):
    Orders(local).insert({})
    another = Local.__new__(Local)
    another.__dict__.update(vars(local), requests=[])
    Orders(another).insert({})
    assert another.requests == ["upsert"]


def test_reading_declares_nothing(local):
    orders = Orders(local)
    orders.find(status="new")
    orders.list()
    orders.count()
    assert local.requests == []


def test_reads_can_be_answered_by_the_writer(local):
    orders = Orders(local)
    made = orders.insert_many([{"status": "new"}, {"status": "paid"}])
    local.stalled = True
    assert orders.find(status="new") == [made[0]]
    assert orders.list().data == made[::-1]
    assert (orders.count(), list(orders)) == (2, ids(made)[::-1])


def test_a_record_too_large_is_refused(local, monkeypatch):
    monkeypatch.setattr(layout, "VALUE_BYTES_MAX", 1000)
    with pytest.raises(RecordTooLarge):
        Orders(local).insert({"text": "x" * 1000})
    assert Orders(local).count() == 0


def test_a_store_is_pickled_with_its_client(client):
    order = Orders(client).insert({"status": "new"})
    copy = pickle.loads(pickle.dumps(Orders(client)))
    assert copy.find(status="new") == [order]
    assert copy.insert({}) != order
    copy._handle.close()


@pytest.mark.parametrize("handle", ["a name", None, Orders])
def test_a_store_is_bound_to_a_client(handle):
    with pytest.raises(InvalidArgument, match=r"connect\(\)"):
        Orders(handle)


def test_customers_are_found_by_email(local):
    customers = Customers(local)
    first = customers.insert({"email": "a@example.com"})
    second = customers.insert({"email": "a@example.com"})
    customers.insert({"email": "b@example.com"})
    assert customers.find_by_email("a@example.com") == [second, first]
    assert customers.find_by_email("nobody@example.com") == []
    assert first["id"].startswith("cus_")
