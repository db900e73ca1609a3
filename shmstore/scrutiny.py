"""What cannot be stored in a record, and where it stands: the walk behind ``codec.pack``.

It runs only on records the packer refused or that need a second look, uses no recursion and ends
on circular structures too.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from typing import Any, NamedTuple

from .errors import InvalidRecord

DEPTH_MAX = 1024
INT_MIN = -(1 << 63)
INT_MAX = (1 << 64) - 1
PATH_PARTS_MAX = 8
_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = 60

_SAFE = frozenset({type(None), bool, float, bytes, bytearray, memoryview})
_KEY_TYPES = frozenset({type(None), bool, float, bytes, int, str})
_ADVICE: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((set, frozenset), "make it a list"),
    (bool, "make it a bool"),
    (int, "convert it with int()"),
    (float, "convert it with float()"),
    (complex, "make it a list of two floats"),
    (str, "convert it with str()"),
    (bytes, "convert it with bytes()"),
    (datetime, "convert it to a plain datetime with a time zone"),
    (dict, "convert it with dict()"),
    (tuple, "convert it with tuple() or make it a dict"),
    (list, "convert it with list()"),
)
_OTHER_ADVICE = (
    "records hold None, bool, int, float, str, bytes, list, dict and aware datetimes alone; "
    "convert it first"
)


class _Place(NamedTuple):
    value: Any
    key: Any
    parent: _Place | None
    depth: int


def scrutinize(
    record: Any, opaque: frozenset[type] = frozenset(), values: AbstractSet[type] = frozenset()
) -> None:
    """Raise InvalidRecord, naming path, type and remedy, for the first thing that is wrong.

    ``opaque`` are further types to let pass, ``values`` such as no key may have. Returns None
    where nothing is found.
    """
    known = _SAFE | opaque | values
    keys = _KEY_TYPES | opaque
    # The type of msgpack's extensions, which are opaque, is a kind of tuple.
    stack = [] if type(record) in known else [_Place(record, None, None, 0)]
    while stack:
        place = stack.pop()
        if isinstance(place.value, (dict, list, tuple)):
            stack.extend(reversed(list(_children(place, known, keys))))
        elif type(place.value) not in known:
            _check_scalar(place)


def _children(place: _Place, known: frozenset[type], keys: frozenset[type]) -> Iterator[_Place]:
    container = place.value
    kind = type(container)
    if place.depth >= DEPTH_MAX:
        raise _endless(place)
    if kind is dict:
        for key in container:
            _check_key(place, key, keys)
        pairs = container.items()
    elif kind is list or kind is tuple:
        pairs = enumerate(container)
    else:
        raise _foreign(place)
    for key, value in pairs:
        kind = type(value)
        if kind not in known and not (kind is str and value.isascii()):
            yield _Place(value, key, place, place.depth + 1)


def _check_scalar(place: _Place) -> None:
    value = place.value
    kind = type(value)
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise _wrong(place, "an int beyond 64 bits", "store it as a str or as bytes")
    elif kind is str:
        if not _is_text(value):
            raise _wrong(
                place, "a str with surrogate characters", "store it as bytes, or clean it first"
            )
    elif kind is datetime:
        _check_datetime(place)
    else:
        raise _foreign(place)


def _check_datetime(place: _Place) -> None:
    try:
        offset = place.value.utcoffset()
        if offset is not None:
            place.value.astimezone(timezone.utc)
    except OverflowError as error:
        raise _wrong(
            place,
            "a datetime outside the years 1 to 9999 in UTC",
            "move it inside or store it as a str",
        ) from error
    except Exception as error:  # whatever a foreign time zone raises
        raise _wrong(
            place, f"a datetime whose time zone fails ({error})", "give it another one"
        ) from error
    if offset is None:
        raise _wrong(place, "a naive datetime", "give it a time zone, as in tzinfo=timezone.utc")


def _check_key(place: _Place, key: Any, allowed: frozenset[type]) -> None:
    kind = type(key)
    if kind is str and (key.isascii() or _is_text(key)):
        return
    if kind is float and key != key:
        problem = "the float nan, which equals nothing and could not be found again"
    elif kind is str:
        problem = "a str with surrogate characters"
    elif kind is int and not INT_MIN <= key <= INT_MAX:
        problem = "an int beyond 64 bits"
    elif kind not in allowed:
        problem = f"of type {kind.__qualname__}"
    else:
        return
    path = _path(place)
    raise InvalidRecord(
        f"{path} has a key {_show(key)} that is {problem}; "
        "keys are str, bytes, int, float, bool or None: choose another one",
        path=path,
        type=kind.__qualname__,
        value=_show(key),
    )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _foreign(place: _Place) -> InvalidRecord:
    kind = type(place.value)
    advice = next((text for base, text in _ADVICE if issubclass(kind, base)), _OTHER_ADVICE)
    return _wrong(place, f"of type {kind.__module__}.{kind.__qualname__}", advice)


def _endless(place: _Place) -> InvalidRecord:
    ancestors = []
    ancestor: _Place | None = place
    while ancestor is not None:
        ancestors.append(ancestor)
        ancestor = ancestor.parent
    seen: set[int] = set()
    for ancestor in reversed(ancestors):
        if id(ancestor.value) in seen:
            return _wrong(ancestor, "a container inside itself", "break the circle")
        seen.add(id(ancestor.value))
    return _wrong(place, f"nested more than {DEPTH_MAX} deep", "make the record flatter")


def _wrong(place: _Place, problem: str, advice: str) -> InvalidRecord:
    path = _path(place)
    shown = _show(place.value)
    return InvalidRecord(
        f"{path} is {problem}, which cannot be stored ({shown}); {advice}",
        path=path,
        type=type(place.value).__qualname__,
        value=shown,
    )


def _path(place: _Place) -> str:
    parts: list[str] = []
    while place.parent is not None:
        parts.append(f"[{_show(place.key)}]")
        place = place.parent
    parts.reverse()
    if len(parts) > PATH_PARTS_MAX:
        parts[PATH_PARTS_MAX - 1 : -1] = ["..."]
    return "record" + "".join(parts)


def _show(value: Any) -> str:
    try:
        shown = _REPR.repr(value)
    except Exception:
        shown = f"<{type(value).__qualname__}>"
    return shown.encode("utf-8", "backslashreplace").decode()
