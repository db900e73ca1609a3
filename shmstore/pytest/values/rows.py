"""A mapping and a sequence whose rows lie in the store, each decoded when it is touched.

They stand for a dict, and for a list or tuple: equal to it, in its order, pickled and deep-copied
as it. They cannot be changed; each touch gives fresh objects, so changing a row changes nothing
here. Made in no time, whatever their size. May be used by any thread, and after a fork.
"""

from __future__ import annotations

import operator
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from itertools import islice
from typing import Any, NoReturn, TypeVar, overload

from ...errors import ShmstoreError
from ...keys import Key
from . import dumping, exact
from .keys import NoTableKey, key_of, table_key
from .parts import Parts

Walked = TypeVar("Walked")

ROWS_SHOWN_MAX = 3
CHARACTERS_SHOWN_MAX = 80


class _Rows:
    """What both have in common: rows by table key."""

    _stands_for: str
    _brackets: str

    def __init__(self, parts: Parts, count: int) -> None:
        self._parts = parts
        self._count = count

    def __len__(self) -> int:
        return self._count

    def _read_only(self, *arguments: Any, **named: Any) -> NoReturn:
        """Raise the TypeError that says how to get something that can be changed."""
        kind = type(self).__name__
        raise TypeError(
            f"a {kind} is read-only: all workers share it. Change a copy: value.copy() is a "
            f"{self._stands_for} of all {self._count} rows, and each row that you take is your own"
        )

    __setitem__ = __delitem__ = clear = pop = _read_only

    def _row(self, body: bytes) -> Any:
        return dumping.load(body, self._parts.view, self._parts.name)

    def _check_there(self) -> None:
        """Raise ValueGone if what was not found was removed."""
        if len(self._parts.rows) != self._count:
            raise self._parts.gone()

    def _checked(self, walked: Iterable[Walked]) -> Iterator[Walked]:
        """Yield all of a walk over the rows; raise ValueGone if it was not all of them."""
        count = 0
        for count, row in enumerate(walked, 1):  # noqa: B007 - it says how many there were
            yield row
        if count != self._count:
            raise self._parts.gone()

    def _walk(self, newest_first: bool = False) -> Iterator[tuple[Key, bytes]]:
        """Yield table key and body of all rows, of which a few are held at a time."""
        rows = self._parts.rows.items()
        return self._checked(reversed(rows) if newest_first else rows)

    def __repr__(self) -> str:
        kind = type(self).__name__
        try:
            shown = [self._row_shown(*row) for row in islice(self._walk(), ROWS_SHOWN_MAX)]
        except ShmstoreError as error:
            return f"<{kind} of {self._count} rows: {error}>"
        if self._count > ROWS_SHOWN_MAX:
            shown.append("...")
        return f"<{kind} of {self._count} rows: {', '.join(shown).join(self._brackets)}>"

    def _row_shown(self, key: Key, body: bytes) -> str:
        raise NotImplementedError


class SharedMapping(_Rows, Mapping[Any, Any]):
    """A dict whose rows lie in the store. Keys may be all that the dict had."""

    _stands_for = "dict"
    _brackets = "{}"

    def __init__(self, parts: Parts, count: int, exact_keys: bool) -> None:
        super().__init__(parts, count)
        self._exact_keys = exact_keys

    __ior__ = update = popitem = setdefault = _Rows._read_only

    def __getitem__(self, key: Any) -> Any:
        """Return the row of ``key``, fresh; KeyError if there is none. Costs one lookup."""
        body = self._find(key)
        if body is None:
            raise KeyError(key)
        return self._row(body)

    def __contains__(self, key: object) -> bool:
        """Tell whether ``key`` has a row, without decoding it."""
        return self._find(key) is not None

    def __iter__(self) -> Iterator[Any]:
        """Yield the keys in their order."""
        return map(self._key, self._checked(self._parts.rows.keys()))

    def __reversed__(self) -> Iterator[Any]:
        return map(self._key, self._checked(reversed(self._parts.rows.keys())))

    def keys(self) -> RowKeys:
        """Return a set-like view of the keys."""
        return RowKeys(self)

    def values(self) -> RowValues:
        """Return a view of the rows."""
        return RowValues(self)

    def items(self) -> RowItems:
        """Return a set-like view of the (key, row) pairs."""
        return RowItems(self)

    def pairs(self, newest_first: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield (key, row) in order, or in reverse order."""
        return ((self._key(stored), self._row(body)) for stored, body in self._walk(newest_first))

    def copy(self) -> dict[Any, Any]:
        """Return the dict that this stands for."""
        return dict(self.pairs())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        missing = object()
        return len(self) == len(other) and all(
            row == other.get(key, missing) for key, row in self.pairs()
        )

    __hash__ = None  # type: ignore[assignment]  # as a dict

    def __or__(self, other: Mapping[Any, Any]) -> dict[Any, Any]:
        return self.copy() | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[Any, Any]) -> dict[Any, Any]:
        return dict(other) | self.copy() if isinstance(other, Mapping) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (), None, None, self.pairs()

    def _find(self, key: Any) -> bytes | None:
        try:
            stored: Key | None = table_key(key)
        except NoTableKey:
            stored = self._find_equal(key)
        body = None if stored is None else self._parts.rows.get(stored)
        if body is None:
            self._check_there()
        return body

    def _find_equal(self, key: Any) -> Key | None:
        """Return the table key of the key that equals ``key``; compares with each."""
        for stored in self._checked(self._parts.rows.keys()):
            candidate = self._key(stored)
            if hash(candidate) == hash(key) and candidate == key:
                return stored
        return None

    def _key(self, stored: Key) -> Any:
        if self._exact_keys and type(stored) is bytes:
            packed = self._parts.keys.get(stored)
            if packed is not None:
                return exact.unpack(packed)
        return key_of(stored)

    def _row_shown(self, key: Key, body: bytes) -> str:
        return f"{_shown(self._key(key))}: {_shown(self._row(body))}"


class SharedSequence(_Rows, Sequence[Any]):
    """A list or a tuple whose rows lie in the store."""

    def __init__(self, parts: Parts, count: int, kind: type[list[Any]] | type[tuple[Any, ...]]):
        super().__init__(parts, count)
        self._kind = kind
        self._stands_for = kind.__name__
        self._brackets = "[]" if kind is list else "()"

    append = extend = insert = remove = reverse = sort = _Rows._read_only

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        """Return a row, fresh, or a list or tuple of those of a slice. One lookup for each."""
        if isinstance(index, slice):
            return self._kind(map(self._at, range(self._count)[index]))
        position = operator.index(index)
        if not -self._count <= position < self._count:
            raise IndexError(f"{self._stands_for} index out of range")
        return self._at(position % self._count)

    def __iter__(self) -> Iterator[Any]:
        return (self._row(body) for _, body in self._walk())

    def __reversed__(self) -> Iterator[Any]:
        return (self._row(body) for _, body in self._walk(newest_first=True))

    def copy(self) -> Any:
        """Return the list or tuple that this stands for."""
        return self._kind(self)

    def __eq__(self, other: object) -> bool:
        kind = other._kind if isinstance(other, SharedSequence) else type(other)
        if not issubclass(kind, self._kind):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))  # type: ignore[arg-type,call-overload]

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __add__(self, other: Any) -> Any:
        return self.copy() + (other.copy() if isinstance(other, SharedSequence) else other)

    def __radd__(self, other: Any) -> Any:
        return other + self.copy()

    def __mul__(self, times: int) -> Any:
        return self.copy() * times

    __rmul__ = __mul__

    def __iadd__(self, other: Any) -> Any:
        return self + other if self._kind is tuple else self._read_only()

    def __imul__(self, times: int) -> Any:
        return self * times if self._kind is tuple else self._read_only()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._kind, (list(self),)

    def _at(self, position: int) -> Any:
        body = self._parts.rows.get(row_key(position))
        if body is None:
            raise self._parts.gone()
        return self._row(body)

    def _row_shown(self, key: Key, body: bytes) -> str:
        return _shown(self._row(body))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= CHARACTERS_SHOWN_MAX else f"{text[:CHARACTERS_SHOWN_MAX]}..."


def row_key(position: int) -> bytes:
    """Return the table key of a row of a sequence."""
    return b"%d" % position


class RowKeys(KeysView[Any]):
    """The keys of a mapping, set-like."""

    _mapping: SharedMapping

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self._mapping)


class RowValues(ValuesView[Any]):
    """The rows of a mapping."""

    _mapping: SharedMapping

    def __contains__(self, value: object) -> bool:
        return any(value == row for row in self)

    def __iter__(self) -> Iterator[Any]:
        return (row for _, row in self._mapping.pairs())

    def __reversed__(self) -> Iterator[Any]:
        return (row for _, row in self._mapping.pairs(newest_first=True))


class RowItems(ItemsView[Any, Any]):
    """The (key, row) pairs of a mapping, set-like."""

    _mapping: SharedMapping

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping.pairs()

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return self._mapping.pairs(newest_first=True)
