"""Arguments of mutations that are checked before they are sent, and converters of results."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidArgument
from ..keys import shown


def amounts_of(by: Any, default: Any, wrap_at: Any, reset_to: Any) -> list[Any]:
    """Return the numbers of an increment, checked. Raises InvalidArgument."""
    for name, value in (("by", by), ("default", default)):
        if type(value) not in (int, float):
            raise InvalidArgument(f"{name} is an int or a float, not {shown(value)}")
    for name, value in (("wrap_at", wrap_at), ("reset_to", reset_to)):
        if value is not None and type(value) not in (int, float):
            raise InvalidArgument(f"{name} is an int, a float or None, not {shown(value)}")
    if wrap_at is None and reset_to is not None:
        raise InvalidArgument("reset_to is for sums beyond wrap_at: give wrap_at too")
    return [by, default, wrap_at, reset_to]


def version_of(version: object) -> int:
    """Return a version as version() gives it, checked. Raises InvalidArgument."""
    if type(version) is not int or version < 0:
        raise InvalidArgument(
            f"a version is an int as version() returns it, 0 for no record; not {shown(version)}"
        )
    return version


def is_something(result: Any) -> bool:
    return result is not None


def same(result: Any) -> Any:
    return result
