"""Which tables there are, which of them are stores, and which namespaces these have in use.

The catalogue is kept in ordinary records, which any process can read:

    table "", namespace ""           table name -> {"indexes": [field...], "store": True},
                                     or {} for a plain table that holds records
    table "", namespace "n:<table>"  namespace -> {}, of the store's namespaces that hold records

A table that is both has the store's record. Writer process only; it stages and never commits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..codec import pack, unpack
from ..engine import Owner
from ..errors import CorruptSegment, InvalidArgument, InvalidKey
from ..layout import NAME_BYTES_MAX
from ..protocol import INDEXES_MAX
from .border import Place

TABLE = ""
TABLES = ""
NAMESPACES = "n:"
CHUNK = 32
"""Records looked at together by what walks many: few, as each may be large."""

_EMPTY = pack({})


class Catalogue:
    """The catalogue of the segment that ``owner`` writes."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._indexes: dict[str, tuple[str, ...]] = {}
        """Of stores whose record is committed: these only grow, and only by ``declare``."""

    def indexes(self, table: str) -> tuple[str, ...] | None:
        """Return the indexed fields of a store, or None if the table is none."""
        known = self._indexes.get(table)
        if known is not None:
            return known
        found = self._owner.find(TABLE, TABLES, table)
        if found is None or found.value == _EMPTY:
            return None
        indexes = _parsed(table, found.value)
        if found.version <= self._owner.committed:
            self._indexes[table] = indexes
        return indexes

    def declare(self, table: str, indexes: list[str]) -> tuple[str, ...]:
        """Make the table a store with at least these indexes; return which of them are new."""
        if len((NAMESPACES + table).encode()) > NAME_BYTES_MAX:
            raise InvalidKey(
                f"the name of a store's table has at most {NAME_BYTES_MAX - len(NAMESPACES)} "
                f"bytes, this one {len(table.encode())}"
            )
        existing = self.indexes(table)
        new = tuple(field for field in dict.fromkeys(indexes) if field not in (existing or ()))
        if existing is not None and not new:
            return ()
        merged = (*(existing or ()), *new)
        if len(merged) > INDEXES_MAX:
            raise InvalidArgument(
                f"table {table!r} would have {len(merged)} indexes; {INDEXES_MAX} are the limit"
            )
        self._indexes.pop(table, None)
        schema = pack({"indexes": list(merged), "store": True})
        self._owner.put(TABLE, TABLES, table, schema)
        return new

    def entered(self, place: Place) -> None:
        """Note that a place holds its first record."""
        if place.namespace:
            self._owner.put(TABLE, NAMESPACES + place.table, place.namespace, _EMPTY)
        elif self._owner.find(TABLE, TABLES, place.table) is None:
            self._owner.put(TABLE, TABLES, place.table, _EMPTY)

    def left(self, place: Place) -> None:
        """Note that a place lost its last record."""
        if place.namespace:
            self._owner.remove(TABLE, NAMESPACES + place.table, place.namespace)
        elif self.indexes(place.table) is None:
            self._owner.remove(TABLE, TABLES, place.table)

    def places(self, table: str) -> list[Place]:
        """Return the places of a store that hold records, in the order they came into use."""
        walked = walk(self._owner, Place(TABLE, NAMESPACES + table))
        return [Place(table, str(item[0])) for item in walked]


def walk(owner: Owner, place: Place, index: bytes = b"") -> Iterator[list[Any]]:
    """Yield [key, value, created, insertion] of all records, oldest first, as the batch has them.

    The record that was yielded last may be removed or replaced meanwhile.
    """
    position = None
    while items := owner.chunk(*place, index, position, CHUNK, False):
        yield from items
        position = [items[-1][2] or 0, items[-1][3]]


def _parsed(table: str, schema: bytes) -> tuple[str, ...]:
    fields = unpack(schema)
    indexes = fields.get("indexes") if isinstance(fields, dict) else None
    if not isinstance(indexes, list) or not all(isinstance(field, str) for field in indexes):
        raise CorruptSegment(f"the catalogue of table {table!r} is damaged: {fields!r}")
    return tuple(indexes)
