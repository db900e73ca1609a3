"""Values of Python's own types as msgpack and back, each as exactly the type it was.

msgpack keeps None, bool, int of 64 bits, float, str, bytes, list and dict apart by itself; each
further type has a code of its own. Subclasses are other types: they are not for this codec.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

from ...codec import Extension, dialect

_NATIVE = frozenset({type(None), bool, int, float, str, bytes, list, dict})
_BYTEARRAY = 1
_MARKED: dict[int, type] = {2: tuple, 3: set, 4: frozenset}
_MARKS = {kind: Extension(code, b"") for code, kind in _MARKED.items()}
_COMPLEX = struct.Struct(">dd")


class Uncoded(Exception):
    """This object cannot be told apart from others by its code alone."""


class _Mark:
    """Stands first in a list that is to become something else."""

    def __init__(self, kind: Callable[[list[Any]], Any]) -> None:
        self.kind = kind


def _extended(value: Any) -> Any:
    kind = type(value)
    if kind in _MARKS:
        return [_MARKS[kind], *value]
    try:
        code, encode = _ENCODERS[kind]
    except KeyError:
        raise Uncoded(value) from None
    return Extension(code, encode(value))


def _opened(code: int, data: bytes) -> Any:
    return _DECODERS[code](data)


def _listed(items: list[Any]) -> Any:
    return items[0].kind(items[1:]) if items and type(items[0]) is _Mark else items


# That containers are lists with a mark, and not extensions, saves calls inside each other: those
# of msgpack take so much of the stack that a hundred of them may end the process.
_pack, unpack = dialect(_extended, _opened, _listed)


def pack(value: Any, kinds: set[type] | None = None) -> bytes:
    """Return a value of KINDS, all through; ``kinds`` are those in it, if they are known.

    Raises Uncoded for a time zone that is none of Python's own, and what msgpack raises for too
    deep a nesting.
    """
    return _pack(value if kinds is None or bytearray not in kinds else _marked(value))


def _marked(value: Any) -> Any:
    """Return a copy in which bytearrays are marked: msgpack would make bytes of them."""
    kind = type(value)
    if kind is bytearray:
        return Extension(_BYTEARRAY, bytes(value))
    if kind is dict:
        return {key: _marked(inner) for key, inner in value.items()}
    if kind is list or kind is tuple:
        return kind(map(_marked, value))
    return value


def _encode_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _decode_int(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _encode_complex(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _decode_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _encode_timedelta(value: timedelta) -> bytes:
    return _pack([value.days, value.seconds, value.microseconds])


def _decode_uuid(data: bytes) -> UUID:
    sixteen, safe = unpack(data)
    return UUID(bytes=sixteen, is_safe=SafeUUID(safe))


def _encode_datetime(value: datetime) -> bytes:
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return _pack([value.fold, *day, *clock, value.tzinfo])


def _decode_datetime(data: bytes) -> datetime:
    fold, *fields = unpack(data)
    decoded = datetime(*fields)
    return decoded.replace(fold=1) if fold else decoded


def _encode_time(value: time) -> bytes:
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return _pack([value.fold, *clock, value.tzinfo])


def _decode_time(data: bytes) -> time:
    fold, *fields = unpack(data)
    decoded = time(*fields)
    return decoded.replace(fold=1) if fold else decoded


def _encode_timezone(value: timezone) -> bytes:
    offset, name = value.utcoffset(None), value.tzname(None)
    named = name != timezone(offset).tzname(None)
    fields = [offset.days, offset.seconds, offset.microseconds]
    return _pack([*fields, name] if named else fields)


def _decode_timezone(data: bytes) -> timezone:
    days, seconds, microseconds, *name = unpack(data)
    return timezone(timedelta(days, seconds, microseconds), *name)


def _encode_zone(value: ZoneInfo) -> bytes:
    if value.key is None or ZoneInfo(value.key) is not value:
        raise Uncoded(value)  # from a file of its own, or one that keeps apart from its equals
    return _encode_text(value.key)


def _encode_text(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _of(kind: Callable[..., Any], decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda data: kind(decode(data))


def _from(kind: Callable[..., Any]) -> Callable[[bytes], Any]:
    return lambda data: kind(*unpack(data))


def _giving(mark: _Mark) -> Callable[[bytes], Any]:
    return lambda data: mark


_CODES: dict[type, tuple[int, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    int: (0, _encode_int, _decode_int),
    bytearray: (_BYTEARRAY, bytes, bytearray),
    complex: (5, _encode_complex, _decode_complex),
    date: (6, lambda value: _pack(value.toordinal()), _of(date.fromordinal, unpack)),
    time: (7, _encode_time, _decode_time),
    datetime: (8, _encode_datetime, _decode_datetime),
    timedelta: (9, _encode_timedelta, _from(timedelta)),
    timezone: (10, _encode_timezone, _decode_timezone),
    ZoneInfo: (11, _encode_zone, _of(ZoneInfo, _decode_text)),
    Decimal: (12, _encode_text, _of(Decimal, _decode_text)),
    Fraction: (13, lambda value: _pack([value.numerator, value.denominator]), _from(Fraction)),
    UUID: (14, lambda value: _pack([value.bytes, value.is_safe.value]), _decode_uuid),
    range: (15, lambda value: _pack([value.start, value.stop, value.step]), _from(range)),
    PosixPath: (16, _encode_text, _of(PosixPath, _decode_text)),
    PurePosixPath: (17, _encode_text, _of(PurePosixPath, _decode_text)),
    PureWindowsPath: (18, _encode_text, _of(PureWindowsPath, _decode_text)),
}

_ENCODERS = {kind: (code, encode) for kind, (code, encode, _) in _CODES.items()}
_DECODERS: dict[int, Callable[[bytes], Any]] = {
    **{code: decode for code, _, decode in _CODES.values()},
    **{code: _giving(_Mark(kind)) for code, kind in _MARKED.items()},
}

KINDS = _NATIVE | _MARKS.keys() | _ENCODERS.keys()
"""The types that ``pack`` takes."""
