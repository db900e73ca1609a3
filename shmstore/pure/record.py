"""Records that are decoded where they are read: a mapping and an array over packed bytes.

Making one decodes nothing. The first touch walks it once: it notes where each value lies, reads
the keys, and refuses with InvalidRecord what is no whole msgpack object, has a key that cannot be
hashed or is no text. A value is decoded when it is touched, and kept; maps and arrays inside are
records of their own over the same bytes. The walk needs no stack, so no depth is too deep for it.

Safe under the GIL: threads that touch a field at once may decode it twice, one result is kept.
"""

from __future__ import annotations

from collections.abc import ItemsView, KeysView, Mapping, Sequence, Sized, ValuesView
from typing import Any, NoReturn, TypeAlias, cast, final

from ..codec import accept_packed, unpack
from ..errors import InvalidRecord

Place: TypeAlias = "tuple[int, int]"
"""Where a value begins and ends."""

_set = object.__setattr__  # that of records refuses

_MAP_16, _MAP_32, _ARRAY_16, _ARRAY_32 = 0xDE, 0xDF, 0xDC, 0xDD


def _fixed_sizes() -> list[int]:
    sizes = [1] * 0x80 + [0] * 0x20 + list(range(1, 33)) + [0] * 0x20 + [1] * 0x20
    sizes[0xC0] = sizes[0xC2] = sizes[0xC3] = 1
    sizes[0xCA:0xD4] = [5, 9, 2, 3, 5, 9, 2, 3, 5, 9]
    sizes[0xD4:0xD9] = [3, 4, 6, 10, 18]
    return sizes


_FIXED = _fixed_sizes()
"""Bytes of a value by its first byte; 0 where that does not say."""
_MEASURED = {
    **{0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0)},
    **{0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)},
    **{0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)},
}
"""Bytes of the length that follows the first byte, and bytes between it and the contents."""
_COUNTED = {_ARRAY_16: (2, 1), _ARRAY_32: (4, 1), _MAP_16: (2, 2), _MAP_32: (4, 2)}
"""Bytes of the count that follows the first byte, and values to each counted item."""


def record_of(data: bytes) -> Any:
    """Return a packed record as a Record or a RecordArray; what is neither map nor array decoded.

    Raises InvalidRecord for a scalar that cannot be decoded; a map or an array raises it when it
    is touched.
    """
    kind = _kind(data[0]) if data else None
    return unpack(data) if kind is None else kind(data)


def field_of(data: bytes, field: Any, default: Any = None) -> Any:
    """Return one field of a packed mapping as plain objects, decoding that field alone.

    Raises InvalidRecord if the record is not a mapping or cannot be read.
    """
    value = Record(data).get(field, default)
    return value.copy() if type(value) in (Record, RecordArray) else value


def refuse(data: bytes) -> NoReturn:
    """Raise the InvalidRecord that says why these bytes are no record."""
    unpack(data)
    raise InvalidRecord("the bytes are no readable msgpack record", path="record")


class _Packed:
    """Part of some bytes, which never change: what both kinds of record have in common."""

    __slots__ = ("_data", "_end", "_kept", "_places", "_start")

    _data: bytes
    _start: int
    _end: int
    _kept: dict[int, Any]  # by where the value begins
    _places: Any  # of the values inside, from the first touch on

    def __init__(self, data: bytes) -> None:
        if type(data) is not bytes:
            raise TypeError(f"a record is made from bytes, not from {type(data).__name__}")
        if not data or _kind(data[0]) is not type(self):
            what = "mapping and has no fields" if type(self) is Record else "array"
            raise InvalidRecord(f"the record is not a {what}", path="record")
        self._over(data, (0, len(data)))

    def _over(self, data: bytes, place: Place) -> None:
        _set(self, "_data", data)
        _set(self, "_start", place[0])
        _set(self, "_end", place[1])
        _set(self, "_kept", {})
        _set(self, "_places", None)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        self._refuse_to_change()

    def __delattr__(self, name: str) -> NoReturn:
        self._refuse_to_change()

    def packed(self) -> bytes:
        """Return the msgpack bytes. Raises InvalidRecord where it has none."""
        len(cast(Sized, self))
        return self._data[self._start : self._end]

    def copy(self) -> Any:
        """Return it all as plain objects, which may be changed. Raises InvalidRecord."""
        return unpack(self._data[self._start : self._end])

    def __repr__(self) -> str:
        name = type(self).__name__
        try:
            return f"{name}({self.copy()!r})"
        except InvalidRecord:
            return f"<{name} of {self._end - self._start} unreadable bytes>"

    def _refuse_to_change(self, *arguments: object, **options: object) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is read-only, and no change of it would reach the store: "
            f"change its .copy() and store that"
        )

    __setitem__ = __delitem__ = _refuse_to_change

    def _at(self, place: Place) -> Any:
        """The value at ``place``: the one that is kept, or a new one that is kept from now on."""
        start, end = place
        value = self._kept.get(start, self)
        if value is not self:
            return value
        kind = _kind(self._data[start])
        if kind is None:
            value = unpack(self._data[start:end])
        else:
            value = object.__new__(kind)
            value._over(self._data, place)
        return self._kept.setdefault(start, value)

    def _inside(self) -> list[Place]:
        """The places of the values inside; in a map each key comes before its value."""
        try:
            return _walk(self._data, self._start, self._end)
        except IndexError:
            refuse(self._data[self._start : self._end])


@final
class Record(_Packed, Mapping[Any, Any]):
    """A mapping from a table: read-only, and decoded field by field, where it is touched.

    It stands for a dict: equal to it, in the same order, pickled and copied as one; ``copy()``
    gives it, for changes. Hashable. Maps and arrays inside are Record and RecordArray. It holds
    a copy of the stored bytes and so never changes, whatever happens in the table. Finding a
    field costs a walk over the packed fields; errors are those of the first touch, and a value
    that cannot be decoded is an InvalidRecord where it is touched, each time.
    """

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        return self._at(self._fields()[key])

    def __contains__(self, key: object) -> bool:
        return key in self._fields()

    def __len__(self) -> int:
        return len(self._fields())

    def __iter__(self) -> Any:
        return iter(self._fields())

    def keys(self) -> KeysView[Any]:
        """Return a view of the keys, as that of a dict. Decodes no value."""
        return self._fields().keys()

    def values(self) -> ValuesView[Any]:
        """Return a view of the values, as that of a dict. Decodes all that are no containers."""
        return self._touched().values()

    def items(self) -> ItemsView[Any, Any]:
        """Return a view of the fields, as that of a dict. Decodes all that are no containers."""
        return self._touched().items()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return bool(self.copy() == _plain(other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __or__(self, other: Any) -> dict[Any, Any]:
        return {**self.copy(), **_plain(other)} if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return {**_plain(other), **self.copy()} if isinstance(other, Mapping) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.copy(),)

    clear = pop = popitem = setdefault = update = _Packed._refuse_to_change

    def _touched(self) -> dict[Any, Any]:
        return {key: self._at(place) for key, place in self._fields().items()}

    def _fields(self) -> dict[Any, Place]:
        """Where the value of each key lies."""
        if self._places is None:
            data, places = self._data, self._inside()
            try:
                keys = [_key(data[start:end]) for start, end in places[::2]]
            except (TypeError, UnicodeDecodeError):
                refuse(self._data[self._start : self._end])
            _set(self, "_places", dict(zip(keys, places[1::2], strict=True)))
        fields: dict[Any, Place] = self._places
        return fields


@final
class RecordArray(_Packed, Sequence[Any]):
    """An array inside a record, or as one: read-only, and decoded item by item.

    It stands for a list as a Record stands for a dict; a slice of it is a list.
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        places: Any = self._values()[index]
        if isinstance(index, slice):
            return [self._at(place) for place in places]
        return self._at(places)

    def __len__(self) -> int:
        return len(self._values())

    def index(self, value: Any, *bounds: int) -> int:
        """Return the first index of ``value``. Raises ValueError if it is not there."""
        return list(self).index(value, *bounds)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (RecordArray, list)):
            return bool(self.copy() == _plain(other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.copy(),)

    append = clear = extend = insert = pop = remove = reverse = sort = _Packed._refuse_to_change

    def _values(self) -> list[Place]:
        if self._places is None:
            _set(self, "_places", self._inside())
        values: list[Place] = self._places
        return values


accept_packed(Record, RecordArray)


def _kind(first: int) -> type[Record] | type[RecordArray] | None:
    """The class for a value by its first byte."""
    if 0x80 <= first <= 0x8F or first in (_MAP_16, _MAP_32):
        return Record
    if 0x90 <= first <= 0x9F or first in (_ARRAY_16, _ARRAY_32):
        return RecordArray
    return None


def _plain(value: Any) -> Any:
    """A mapping or an array as what it is compared and merged as."""
    if isinstance(value, _Packed):
        return value.copy()
    return value if isinstance(value, (dict, list)) else dict(value)


def _key(data: bytes) -> Any:
    """A packed key as an object. TypeError or UnicodeDecodeError if it can be none."""
    if 0xA0 <= data[0] <= 0xBF:  # nearly all of them
        return str(data[1:], "utf-8")
    key = unpack(data)
    hash(key)
    return key


def _walk(data: bytes, start: int, end: int) -> list[Place]:
    """The places of all values inside the container from ``start`` to ``end``.

    Raises IndexError unless they end there.
    """
    at, count = _opened(data, start)
    if count > end - at:
        raise IndexError
    places = []
    for _ in range(count):
        start = at
        at += _FIXED[data[at]]
        if at == start:
            at = _skip(data, at)
        places.append((start, at))
    if at != end:
        raise IndexError
    return places


def _opened(data: bytes, start: int) -> tuple[int, int]:
    """Where the contents of a container begin, and of how many values they are."""
    first = data[start]
    if first < 0x90:
        return start + 1, 2 * (first & 15)
    if first < 0xA0:
        return start + 1, first & 15
    size, times = _COUNTED[first]
    at = start + 1 + size
    return at, times * int.from_bytes(data[start + 1 : at], "big")


def _skip(data: bytes, at: int) -> int:
    """Where the value at ``at`` ends, which may be beyond all data. Raises IndexError."""
    left = 1
    while left:
        first = data[at]
        left -= 1
        if _FIXED[first]:
            at += _FIXED[first]
        elif first in _MEASURED:
            size, more = _MEASURED[first]
            length = int.from_bytes(data[at + 1 : at + 1 + size], "big")
            at += 1 + size + more + length
        elif first == 0xC1:
            raise IndexError  # the one byte that begins nothing
        else:
            at, count = _opened(data, at)
            left += count
    return at
