"""Telling the writer, once, that a table is a store and which of its fields are indexed."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from ..codec import unpack
from ..table.handles import Link

_known: WeakKeyDictionary[Link, set[tuple[str, tuple[str, ...]]]] = WeakKeyDictionary()
"""Per client, what is known to be declared. Declarations are never taken back."""


def declare(client: Link, table: str, indexes: tuple[str, ...]) -> None:
    """See to it that ``table`` is a store with these indexes.

    Asks the writer only if the catalogue in memory does not say so already, and looks there only
    once per client. A new index is filled from the records that exist.
    """
    known = _known.setdefault(client, set())
    if (table, indexes) in known:
        return
    if not covers(_catalogued(client, table), indexes):
        client.call("declare", [table, "", list(indexes)], _nothing)
    known.add((table, indexes))


def declared(client: Link, table: str, indexes: tuple[str, ...]) -> bool:
    """Tell whether ``indexes`` can be read. If not, nothing was ever stored in ``table``.

    A store that lacks some of the indexes, because an older class declared it, gets them.
    """
    if (table, indexes) in _known.get(client, ()):
        return True
    if _catalogued(client, table) is None:
        return False
    declare(client, table, indexes)
    return True


def covers(schema: dict[str, Any] | None, indexes: tuple[str, ...]) -> bool:
    """Tell whether a catalogued schema is that of a store with all of ``indexes``."""
    return schema is not None and schema["store"] and set(indexes) <= set(schema["indexes"])


def _catalogued(client: Link, table: str) -> dict[str, Any] | None:
    data = client.read("get", client.reader.scope("", ""), table)
    schema: dict[str, Any] | None = None if data is None else unpack(data)
    return schema if schema and schema.get("store") else None


def _nothing(result: Any) -> None:
    return None
