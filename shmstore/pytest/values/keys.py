"""The keys of a mapping as keys of a table: such that equal keys, of whatever types, are one.

A str is itself. All else becomes bytes: the packed form of the plainest key that equals it, as 1
for 1.0 and True. Where a key is not that one, its exact form is kept beside the row.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath
from typing import Any
from uuid import UUID

from ...layout import KEY_BYTES_MAX
from . import exact

_PLAIN = frozenset({type(None), int, str, bytes, date, timedelta, UUID, PurePosixPath})
"""Types whose keys equal none of another type, or are what those of other types are made to be."""
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (bytes, lambda key: bytes.__getitem__(key, slice(None))),
    (int, int.__int__),
    (float, float.__float__),
    (tuple, lambda key: tuple.__getitem__(key, slice(None))),
)
"""Types whose subclasses may equal them, with what makes one of a subclass's."""
_EXPONENT_MAX = 1000
"""Larger Decimals are not written out as ints, to be found under their equals."""


class NoTableKey(Exception):
    """This key has no form of which all keys that equal it are sure to have the same."""


def table_key(key: Any) -> str | bytes:
    """Return the key under which the row of ``key`` is stored.

    Raises NoTableKey: then it can be found by comparison alone. TypeError if it has no hash.
    """
    if type(key) is str and len(key) <= KEY_BYTES_MAX and key.isascii():
        return key
    hash(key)
    try:
        plain = _plainest(key)
        packed = exact.pack(plain)
    except (RecursionError, OverflowError):  # too deep; a datetime before the year 1 in UTC
        raise NoTableKey(key) from None
    if len(packed) > KEY_BYTES_MAX:
        raise NoTableKey(key)
    if type(plain) is str and _is_text(plain):
        return plain
    return packed


def exact_key(key: Any, stored: str | bytes) -> bytes | None:
    """Return what is kept of ``key`` beside its row; None if its table key tells all of it.

    Raises NoTableKey for a key of a type that cannot be kept.
    """
    if type(key) is str:
        return None
    try:
        packed = exact.pack(key)
    except exact.Uncoded:
        raise NoTableKey(key) from None
    return None if packed == stored else packed


def key_of(stored: str | bytes) -> Any:
    """Return the key that a table key stands for, if nothing is kept beside it."""
    return stored if type(stored) is str else exact.unpack(stored)


def _plainest(key: Any) -> Any:
    """Return an object that packs as that of any equal key does, and of no other."""
    kind = type(key)
    if kind in _PLAIN:
        return key
    if kind is tuple:
        return tuple(map(_plainest, key))
    if kind is frozenset:
        return sorted(exact.pack(_plainest(member)) for member in key)  # no key is a list
    if kind is PosixPath:
        return PurePosixPath(key)
    if kind in (datetime, time) and key.tzinfo is None:
        return key.replace(fold=0)
    if kind is datetime and type(key.tzinfo) is timezone:
        return key.astimezone(timezone.utc)
    if kind in (bool, float, complex, Decimal, Fraction):
        return _plainest_number(key)
    return _plainest(_of_known_type(key))


def _plainest_number(key: Any) -> Any:
    if key != key:
        raise NoTableKey(key)  # it equals nothing, and is found by identity
    if type(key) is complex:
        return complex(key.real + 0.0, key.imag + 0.0) if key.imag else _plainest_number(key.real)
    if key in (math.inf, -math.inf):
        return float(key)
    if type(key) is Decimal and abs(key.adjusted()) > _EXPONENT_MAX:
        raise NoTableKey(key)
    ratio = Fraction(key)
    return ratio.numerator if ratio.denominator == 1 else ratio


def _of_known_type(key: Any) -> Any:
    """Return the equal of ``key`` that is of a type of Python's own. Raises NoTableKey."""
    for base, made in _BASES:
        if isinstance(key, base):
            candidate = made(key)
            break
    else:
        try:
            candidate = operator.index(key)
        except TypeError:
            raise NoTableKey(key) from None
    if not (candidate == key and hash(candidate) == hash(key)):
        raise NoTableKey(key)
    return candidate


def _is_text(key: str) -> bool:
    try:
        return len(key.encode()) <= KEY_BYTES_MAX
    except UnicodeEncodeError:
        return False
