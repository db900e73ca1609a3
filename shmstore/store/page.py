"""A page of records, as list() returns it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import InvalidArgument, InvalidKey, UnknownCursor
from ..keys import key_of, shown

LIMIT_DEFAULT = 10
LIMIT_MAX = 100


@dataclass(frozen=True)
class Page:
    """Some records of a store, newest first, all of one snapshot.

    ``has_more`` tells whether there are further records in the direction of the walk, and
    ``next_cursor`` is then the id to go on from: pass it as ``starting_after``, or, on a page
    that was asked for with ``ending_before``, as ``ending_before`` again. It is None at the end.
    ``data`` holds dicts, or Records if the page was asked for with ``lazy``.
    """

    object: ClassVar[str] = "list"

    data: list[Any]
    has_more: bool
    url: str
    next_cursor: str | None

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def as_dict(self) -> dict[str, Any]:
        """Return {"object", "url", "has_more", "data"}, as a resource API answers."""
        return {
            "object": self.object,
            "url": self.url,
            "has_more": self.has_more,
            "data": list(self.data),
        }


def limit_of(limit: object) -> int:
    """Return how many records a page may have: at most 100. InvalidArgument below 1."""
    if type(limit) is not int or limit < 1:
        raise InvalidArgument(
            f"limit is an int from 1 to {LIMIT_MAX}, not {shown(limit)}", limit=shown(limit)
        )
    return min(limit, LIMIT_MAX)


def cursors_of(starting_after: object, ending_before: object) -> tuple[str | None, str | None]:
    """Return both cursors, of which one at most is given.

    Raises InvalidArgument, and UnknownCursor for what can never have been an id.
    """
    if starting_after is not None and ending_before is not None:
        raise InvalidArgument(
            "starting_after and ending_before exclude each other: give the one for the direction "
            "you walk in"
        )
    return _cursor("starting_after", starting_after), _cursor("ending_before", ending_before)


def _cursor(name: str, cursor: object) -> str | None:
    if cursor is None:
        return None
    if not isinstance(cursor, str):
        raise InvalidArgument(f"{name} is the id of a record, not {shown(cursor)}")
    try:
        return str(key_of(cursor))
    except InvalidKey as error:
        raise UnknownCursor(f"{name} is no id that a record can have: {error}") from None
