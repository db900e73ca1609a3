"""What tests of shared values compare with, and values to share."""

from __future__ import annotations

import collections
import dataclasses
import enum
import struct
from datetime import datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from shmstore.pytest.values import Options
from shmstore.pytest.values.dumping import dump, load

PICKLED = Options()
UNPICKLED = Options(pickle=False)


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    pass


class Count(int):
    pass


class Moment(datetime):
    pass


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class User:
    name: str
    friends: list[User] = dataclasses.field(default_factory=list)
    secret: Any = None


class OwnZone(tzinfo):
    """A zone that is none of Python's own."""

    def utcoffset(self, when):
        return timedelta(hours=3)

    def dst(self, when):
        return timedelta(0)

    def tzname(self, when):
        return "own"


class Resists:
    """Its reduction raises what no pickle module raises."""

    def __reduce__(self):
        raise ZeroDivisionError("not me")


class Astray:
    """Says that it is a global of this module, and is none."""

    def __reduce__(self):
        return "nowhere"


class Ephemeral:
    """Can be pickled, but not made again."""

    def __reduce__(self):
        return _fail, ()


def _fail():
    raise LookupError("nothing is left of me")


class Equal:
    """A key that equals something it is not of a kind with."""

    def __init__(self, other):
        self._other = other

    def __eq__(self, other):
        return bool(self._other == other)

    def __hash__(self):
        return hash(self._other)


class Caseless(str):
    """A key that equals more than its text, or less."""

    def __eq__(self, other):
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self):
        return hash(self.lower())


class Indexed(Equal):
    """As the integers of numpy are."""

    def __index__(self):
        return int(self._other)


def there_and_back(value: Any, options: Options = PICKLED) -> Any:
    """Return what another process would get."""
    dumped = dump(value, options)
    return load(dumped.body, lambda number: memoryview(dumped.buffers[number]), "value")


def same(one: Any, other: Any) -> bool:
    """Tell whether two values cannot be told apart, but by changing one of them."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if isinstance(one, (set, frozenset)):
        pairs = zip(sorted(one, key=repr), sorted(other, key=repr), strict=True)
        return len(one) == len(other) and all(same(*pair) for pair in pairs)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    return _traits(one) == _traits(other)


def _traits(value: Any) -> Any:
    """Return what tells a scalar from its equals."""
    if isinstance(value, (datetime, time)):
        zone = value.tzinfo
        return value.replace(tzinfo=None), value.fold, type(zone), _traits(zone)
    if isinstance(value, timezone):
        return value, value.tzname(None)
    if isinstance(value, ZoneInfo):
        return id(value)
    if isinstance(value, Decimal):
        return value.as_tuple()
    if isinstance(value, UUID):
        return value, value.is_safe
    return value
