"""What a client asks of a server whose writer is about to be killed, and what it may see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shmstore import Client, Store

KEYS = [f"k{i}" for i in range(12)]
IDS = [f"pa_{i}" for i in range(8)]


class Parcels(Store):
    """A store with two indexes."""

    table, resource, prefix = "parcels", "parcel", "pa"
    indexes = ("status", "region")


def prepare(client: Client) -> None:
    """Bring a server to the state before a request, whatever it is in."""
    table, other, parcels = client.table("t"), client.table("u"), Parcels(client)
    with client.transaction() as together:
        for name in ("t", "u", "new"):
            together.table(name).clear()
    parcels.clear()
    with client.pipeline() as pipeline:
        pipeline.table("t").put_many({key: _record(i) for i, key in enumerate(KEYS[:8])})
        pipeline.table("u").put_many({"count": 5, "k0": "text"})
        for i in range(6):
            Parcels(pipeline).insert(_parcel(i))
    assert (len(table), len(other), len(parcels)) == (8, 2, 6)


def _record(number: int) -> dict[str, Any]:
    return {"number": number, "text": "x" * number * 20}


def _parcel(number: int) -> dict[str, Any]:
    region, status = ("north", "south")[number % 2], ("new", "sent", "lost")[number % 3]
    return {"id": IDS[number], "created": 100 + number, "region": region, "status": status}


def views(client: Client) -> Iterator[Any]:
    """Yield all there is, each part of one snapshot that is not older than the one before it."""
    for name in ("t", "u", "new"):
        table = client.table(name)
        yield table.get_many([*KEYS, "count"])
        yield table.packed_list()
        yield len(table)
    parcels = Parcels(client)
    yield parcels.get_many(IDS)
    yield parcels.find()
    yield parcels.count()
    yield parcels.find(status="new")
    yield parcels.find(region="south")


def views_of_keys(client: Client) -> Iterator[Any]:
    """Yield record after record, for requests that are no single mutation."""
    for name in ("t", "u", "new"):
        table = client.table(name)
        for key in (*KEYS, "count"):
            yield table.get(key)
    parcels = Parcels(client)
    for record_id in IDS:
        yield parcels.get(record_id)


def put(client: Client) -> Any:
    return client.table("t").put("k1", {"changed": True}) > 0


def put_large(client: Client) -> Any:
    return client.table("t").put("k1", "y" * 3000) > 0


def insert_new(client: Client) -> Any:
    return client.table("t").insert_new("k9", "new"), client.table("t").insert_new("k0", "no")


def insert_into_a_new_table(client: Client) -> Any:
    return client.table("new").insert_new("k0", "first")


def increment(client: Client) -> Any:
    return client.table("u").increment("count", by=3)


def patch(client: Client) -> Any:
    return client.table("t").patch("k2", text="patched", more=[1, 2])


def compare_and_swap(client: Client) -> Any:
    table = client.table("t")
    return table.compare_and_swap("k3", table.version("k3"), "swapped")


def pop(client: Client) -> Any:
    return client.table("t").pop("k4")


def popitem(client: Client) -> Any:
    return client.table("t").popitem()


def delete(client: Client) -> Any:
    return client.table("t").delete("k5")


def delete_many(client: Client) -> Any:
    return client.table("t").delete_many(["k0", "k2", "k4", "missing"])


def put_many(client: Client) -> Any:
    return client.table("t").put_many({key: "many" for key in KEYS}) > 0


def update(client: Client) -> Any:
    return client.table("t").update({"k1": 1, "k10": 10}, k11=11)


def transaction(client: Client) -> Any:
    with client.transaction() as together:
        table, other, parcels = together.table("t"), together.table("u"), Parcels(together)
        replies = [
            table.put("k0", "moved"),
            other.increment("count"),
            table.pop("k1"),
            table.delete("k2"),
            other.insert_new("k3", [None, True]),
            parcels.patch(IDS[0], status="sent"),
            parcels.delete(IDS[1]),
        ]
        parcels.insert(_parcel(6))
    return [reply.result() for reply in replies[1:]]


def clear(client: Client) -> Any:
    return client.table("t").clear()


def store_insert(client: Client) -> Any:
    return Parcels(client).insert(_parcel(7))


def store_replace(client: Client) -> Any:
    return Parcels(client).update({"id": IDS[2], "region": "west", "status": "new"})


def store_patch(client: Client) -> Any:
    return Parcels(client).patch(IDS[3], status="lost", weight=3)


def store_delete(client: Client) -> Any:
    return Parcels(client).delete(IDS[4])


def delete_where(client: Client) -> Any:
    return Parcels(client).delete_where(status="new")


def store_clear(client: Client) -> Any:
    return Parcels(client).clear()


def pipeline(client: Client) -> Any:
    with client.pipeline() as block:
        table, other, parcels = block.table("t"), block.table("u"), Parcels(block)
        replies = [
            table.put("k0", "piped"),
            other.increment("count", by=2),
            table.pop("k1"),
            other.insert_new("k9", "inserted"),
            table.patch("k6", text="piped"),
            parcels.delete(IDS[1]),
            parcels.increment(IDS[2], "weight", by=4),
            table.delete_many(["k2", "k3"]),
        ]
    return [reply.result() for reply in replies[1:]]


@dataclass(frozen=True)
class Request:
    """Something a client asks for, and how to see whether it was done."""

    ask: Callable[[Client], Any]
    """Returns the same whenever it is asked in the state that ``prepare`` makes."""
    views: Callable[[Client], Iterator[Any]] = views
    atomic: bool = True
    """Whether it is done by a single mutation."""

    @property
    def name(self) -> str:
        return self.ask.__name__


REQUESTS = (
    *(
        Request(ask)
        for ask in (
            put,
            put_large,
            insert_new,
            insert_into_a_new_table,
            increment,
            patch,
            compare_and_swap,
            pop,
            popitem,
            delete,
            delete_many,
            put_many,
            update,
            transaction,
            clear,
            store_insert,
            store_replace,
            store_patch,
            store_delete,
            delete_where,
            store_clear,
        )
    ),
    Request(pipeline, views_of_keys, atomic=False),
)
