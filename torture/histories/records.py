"""What clients store: records that say which mutation wrote them.

A client's records are in numbered slots: first those of a plain table, of which slot 0 is a bare
number, then those of its namespace of a store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Ages: TypeAlias = list["int | None"]
"""Of each slot, how many mutations ago it was written; None where there is no record.

So mutation n finds what mutation n - 1 - age wrote."""
Row: TypeAlias = list[tuple[int, int]]
"""Records that are there: (slot, number of the mutation that wrote it)."""

PRIME = 7919
"""So that one mutation's padding is seldom as long as the next one's."""


@dataclass(frozen=True)
class Shape:
    """How many of what there is."""

    clients: int = 2
    readers: int = 2
    plain: int = 4
    """Records in a client's own table."""
    stored: int = 5
    """Records in its namespace of a store."""
    padding: int = 500
    """The most that a record of a table has of it."""
    capacity: str = "1MiB"
    """So little that memory is soon used again."""

    @property
    def slots(self) -> int:
        """All records of a client."""
        return self.plain + self.stored


def key_of(slot: int) -> str:
    """Return the key of a slot, in whichever table it is."""
    return f"k{slot:03}"


def record(slot: int, shape: Shape, number: int) -> Any:
    """Return what mutation ``number`` writes to a slot: records of many sizes, numbered twice."""
    if slot == 0:
        return number
    if slot < shape.plain:
        return {"n": number, "padding": "x" * (number * PRIME % shape.padding), "again": number}
    return {
        "id": key_of(slot),
        "created": slot,
        "n": number,
        "parity": number % 2,
        "shelf": slot % 2,
        "again": number,
    }


def number_in(found: Any) -> int | None:
    """Return the number of the mutation that wrote a record; 0 if two of them had a part in it."""
    if found is None or type(found) is int:
        return found
    number = found["n"]
    return number if type(number) is int and found["again"] == number else 0
