"""The views of a table: what keys(), values() and items() return.

They are live like those of a dict: set-like for keys and items, iterable in both directions. A
walk fetches records in chunks; each chunk is one snapshot, and a key that is there throughout
appears exactly once.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any, Protocol

from ..codec import unpack
from ..keys import Key
from .handles import Handle

CHUNK_RECORDS_FIRST = 32
CHUNK_RECORDS_MAX = 512
CHUNK_BYTES = 4 << 20
"""What a walk aims to hold of the table at a time."""


def walk_keys(
    handle: Handle, table: str, namespace: str, newest_first: bool = False
) -> Iterator[Key]:
    """Yield the keys in order of (created, insertion), a chunk per snapshot."""
    position: list[int] | None = None
    limit = CHUNK_RECORDS_MAX
    while True:
        rows = handle.read("chunk", table, namespace, b"", position, limit, newest_first, False)
        yield from (row[0] for row in rows)
        if len(rows) < limit:
            return
        position = _end_of(rows)


def walk(
    handle: Handle, table: str, namespace: str, newest_first: bool = False
) -> Iterator[tuple[Key, bytes]]:
    """Yield (key, packed record) in order of (created, insertion), a chunk per snapshot."""
    position: list[int] | None = None
    limit = CHUNK_RECORDS_FIRST
    while True:
        rows = handle.read("chunk", table, namespace, b"", position, limit, newest_first)
        size = 1
        for key, value, _, _ in rows:
            size += len(value)
            yield key, value
        if len(rows) < limit:
            return
        position = _end_of(rows)
        limit = max(1, min(CHUNK_RECORDS_MAX, CHUNK_BYTES * len(rows) // size))


def _end_of(rows: list[list[Any]]) -> list[int]:
    """Return the position of the last of some items."""
    return [rows[-1][2] or 0, rows[-1][3]]


class Viewed(Protocol):
    """What a view needs of its table."""

    def __contains__(self, key: object) -> bool: ...

    def __reversed__(self) -> Iterator[Key]: ...

    def get_bytes(self, key: Key) -> Any: ...

    def packed_items(self, newest_first: bool = False) -> Iterator[tuple[Key, bytes]]: ...


class TableKeys(KeysView[Key]):
    """The keys of a table, set-like."""

    _mapping: Viewed

    def __contains__(self, key: object) -> bool:
        # Set operations meet members of any type in the other set: those are just not here.
        return isinstance(key, (str, bytes)) and key in self._mapping

    def __reversed__(self) -> Iterator[Key]:
        return reversed(self._mapping)


class TableValues(ValuesView[Any]):
    """The records of a table."""

    _mapping: Viewed

    def __contains__(self, value: object) -> bool:
        return any(value == other for other in self)

    def __iter__(self) -> Iterator[Any]:
        return (unpack(value) for _, value in self._mapping.packed_items())

    def __reversed__(self) -> Iterator[Any]:
        return (unpack(value) for _, value in self._mapping.packed_items(newest_first=True))


class TableItems(ItemsView[Key, Any]):
    """The (key, record) pairs of a table, set-like as far as records are hashable."""

    _mapping: Viewed

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key, value = item
        if not isinstance(key, (str, bytes)):
            return False
        data = self._mapping.get_bytes(key)
        return data is not None and bool(unpack(data) == value)

    def __iter__(self) -> Iterator[tuple[Key, Any]]:
        return ((key, unpack(value)) for key, value in self._mapping.packed_items())

    def __reversed__(self) -> Iterator[tuple[Key, Any]]:
        pairs = self._mapping.packed_items(newest_first=True)
        return ((key, unpack(value)) for key, value in pairs)
