"""What the fixtures of the generated suites return, and how their tests look at it.

Made of numbers alone, so that a test can tell whether it got what was made elsewhere.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

SEED = 20260711
LOOKS = 100
"""How many places of something large a test looks at."""
PLACES = ("north", "east", "south", "west")
SERVICE = {"host": "localhost", "port": 5432}


def computing(seconds: float) -> dict[str, Any]:
    """Return something small that takes so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(10_000))
    return dict(SERVICE)


def waiting(seconds: float) -> dict[str, Any]:
    """Return something small that has to be waited for, as a service that starts."""
    time.sleep(seconds)
    return dict(SERVICE)


def check_service(value: Mapping[str, Any]) -> None:
    """Look at something small."""
    assert value == SERVICE


def sku(number: int) -> str:
    """Return the key of a record."""
    return f"sku-{number:08d}"


def record(number: int) -> dict[str, Any]:
    """Return a nested record, of about 200 bytes as JSON."""
    return {
        "sku": sku(number),
        "name": f"article number {number}",
        "price": {"amount": 100 + number % 900, "net": number % 3 == 0},
        "stock": [
            {"place": PLACES[number % 4], "count": number % 50},
            {"place": PLACES[(number + 1) % 4], "count": number % 70},
        ],
        "tags": ["new", "sale", "heavy"][: 1 + number % 3],
    }


def records(count: int) -> dict[str, dict[str, Any]]:
    """Return a catalogue of so many records."""
    return {sku(number): record(number) for number in range(count)}


def check_some(value: Mapping[str, Any], count: int) -> None:
    """Look at some records, as a test does."""
    assert len(value) == count
    for number in random.Random(SEED).choices(range(count), k=LOOKS):
        assert value[sku(number)] == record(number)


def check_all(value: Mapping[str, Any], count: int) -> None:
    """Walk over all records."""
    walked = 0
    for number, (key, each) in enumerate(value.items()):
        assert each["sku"] == key
        walked = number + 1
    assert walked == count
    check_some(value, count)


def array(size: int) -> numpy.ndarray[Any, Any]:
    """Return an array of so many bytes."""
    import numpy

    return numpy.arange(size // 8, dtype=numpy.float64)


def check_array(value: numpy.ndarray[Any, Any], size: int) -> None:
    """Look at some elements."""
    assert (value.shape, value.dtype.str) == ((size // 8,), "<f8")
    places = value[:: max(1, len(value) // LOOKS)]
    assert (places == [place * max(1, len(value) // LOOKS) for place in range(len(places))]).all()


def small(number: int) -> dict[str, Any]:
    """Return one of many small values."""
    return {"number": number, "name": f"fixture {number}"}


def check_small(values: list[Mapping[str, Any]]) -> None:
    """Look at all of them."""
    assert [value["number"] for value in values] == list(range(len(values)))
