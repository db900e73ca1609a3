"""Which tables a server has, and in which namespaces they hold records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import shmstore
from shmstore.codec import unpack
from shmstore.table.views import walk
from shmstore.writer.catalogue import NAMESPACES, TABLE, TABLES


class Listing(NamedTuple):
    """One table; "" among its namespaces stands for plain records."""

    name: str
    is_store: bool
    indexes: list[str]
    namespaces: list[str]


def tables(client: shmstore.Client) -> Iterator[Listing]:
    """Yield all tables, in the order in which they came to be."""
    for name, packed in walk(client, TABLE, TABLES):
        schema, table = unpack(packed), str(name)
        spaces = [str(space) for space, _ in walk(client, TABLE, NAMESPACES + table)]
        if count(client, table, ""):
            spaces.insert(0, "")
        yield Listing(table, bool(schema.get("store")), schema.get("indexes", []), spaces)


def count(client: shmstore.Client, table: str, namespace: str) -> int:
    """Return how many records a table has in a namespace."""
    return int(client.read("count", table, namespace))
