"""Finding the records whose fields have given values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..codec import canonical, index_name
from ..engine import Record
from ..table.reading import Readable


def find(
    table: Readable,
    indexes: Sequence[str],
    fields: dict[str, Any],
    opened: Callable[[bytes], Any],
) -> list[Any]:
    """Return the records that have all ``fields``, exact in type, newest first, of one snapshot.

    ``indexes`` are those of the fields that are indexed; the one with the fewest records is read.
    ``opened`` makes a record of its bytes. Raises InvalidRecord for a value that no record can
    hold.
    """
    wanted = {field: canonical(value) for field, value in fields.items()}
    index = _smallest(table, [index_name(field, fields[field]) for field in indexes])
    found = (value for value in table.packed_list(index) if not wanted or _has(value, wanted))
    return [opened(value) for value in found]


def _smallest(table: Readable, names: list[bytes]) -> bytes:
    if len(names) < 2:
        return names[0] if names else b""
    return min(names, key=table.count)


def _has(data: bytes, wanted: dict[str, bytes]) -> bool:
    record = Record(data)
    return all(
        field in record and canonical(record[field]) == value for field, value in wanted.items()
    )
