"""Records that certify themselves: key and number determine every byte."""

from __future__ import annotations

import random
import zlib
from typing import Any

from shmstore import Store

BODY_BYTES_MAX = 200_000
_RANDOM = random.Random(1).randbytes(2 * BODY_BYTES_MAX)
_SIZES = (10, 40, 90, 150, 200, 400, 1_000, 3_000, 10, 60, 120, 30_000, 80, 20, 700, BODY_BYTES_MAX)

TABLE = "values"
COUNTERS = "counters"
LEFT, RIGHT = "left", "right"
QUEUE = "queue"
SWAPPED = "swapped"
"""The key in COUNTERS that is changed by compare-and-swap: [count of each client]."""
REPLACED = 1
"""The register that is deleted and put again at once, so that its place in a walk changes."""
THINGS_EACH = 12
"""Things of each client; half of them are on."""
CLIENT = 10_000
"""Clients are told apart in created: so each has a place of its own in the order of a page."""


class Things(Store):
    """As many of each client as ever, half of them on."""

    table, resource, prefix = "things", "thing", "th"
    indexes = ("on",)


def certified(key: str, number: int) -> list[Any]:
    """Return the record that belongs under ``key`` as its ``number``-th."""
    chosen = zlib.crc32(f"{key} {number}".encode())
    size = _SIZES[chosen % len(_SIZES)]
    body = _RANDOM[chosen % BODY_BYTES_MAX :][:size]
    return [key, number, zlib.crc32(body, chosen), body]


def is_certified(key: str, record: Any) -> bool:
    """Tell whether a record is one of those that belong under ``key``."""
    return (
        isinstance(record, list)
        and len(record) == 4
        and type(record[1]) is int
        and bool(record == certified(key, record[1]))
    )


def register_key(client: int, which: int) -> str:
    """Return the key of a register of a client."""
    return f"register-{client}-{which}"


def group_keys(client: int) -> list[str]:
    """Return the keys that a client writes together."""
    return [f"group-{client}-{which}" for which in range(5)]


def item_key(client: int, number: int) -> str:
    """Return the key of an item in the queue."""
    return f"item-{client}-{number}"


def item_of(key: object) -> tuple[int, int]:
    """Return client and number of an item."""
    _, client, number = str(key).split("-")
    return int(client), int(number)


def line_key(client: int) -> str:
    """Return the key of the counter that a client increments in pipelines."""
    return f"line-{client}"


def twin_key(client: int) -> str:
    """Return the key of the counter that is a client's own."""
    return f"twin-{client}"
