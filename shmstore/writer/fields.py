"""What the writer does to packed records: numbers, patches, and what a store's record must be.

Records are taken apart as packed fields by packed name, and nothing but the fields in question is
decoded: what a client put elsewhere in its record stays as it is. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TypeAlias

from ..codec import canonical_packed, index_name_packed, join_map, pack, split_map, unpack
from ..errors import InvalidKey, InvalidRecord
from ..keys import Key, shown

Fields: TypeAlias = dict[bytes, bytes]
Number: TypeAlias = int | float

INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
CREATED_MIN, CREATED_MAX = 1 - (1 << 63), (1 << 63) - 1
"""One less than 64 bits have: the format orders by ``created`` and needs a word for none."""
NUMBER_BYTES_MAX = 9

NAME_REMEMBERED_MAX = 256
"""Longest field name that is kept packed: others would fill the memory."""

_remembered_name = lru_cache(maxsize=1024)(pack)


def field_name(name: str) -> bytes:
    """Return a field's name as it stands in a packed record."""
    return _remembered_name(name) if len(name) <= NAME_REMEMBERED_MAX else pack(name)


ID, OBJECT, CREATED, METADATA = map(field_name, ("id", "object", "created", "metadata"))
FIXED = {ID: "id", OBJECT: "object", CREATED: "created"}
_DELETED = pack("")


def fields_of(record: bytes, what: str = "the record") -> Fields:
    """Return the fields of a packed record. InvalidRecord unless it is a mapping."""
    fields = split_map(record)
    if fields is None:
        raise InvalidRecord(f"{what} is not a mapping and has no fields", path="record")
    return fields


def number_of(value: bytes, what: str) -> Number:
    """Return the packed number. InvalidRecord for all else, bools too."""
    number = unpack(value) if len(value) <= NUMBER_BYTES_MAX else None
    if type(number) is int or type(number) is float:
        return number
    raise InvalidRecord(f"{what} is no int or float; only these can be incremented")


def added(number: Number, by: Number, wrap_at: Number | None, reset_to: Number | None) -> Number:
    """Return ``number + by``, or ``reset_to`` (None: 0) if that lies beyond ``wrap_at``.

    Beyond is above for a positive ``by``, below for a negative one. InvalidRecord if the result
    leaves 64 bits.
    """
    total = number + by
    if wrap_at is not None and ((by > 0 and total > wrap_at) or (by < 0 and total < wrap_at)):
        total = 0 if reset_to is None else reset_to
    if type(total) is int and not INT_MIN <= total <= INT_MAX:
        raise InvalidRecord(
            f"{shown(number)} + {shown(by)} does not fit into 64 bits; "
            "give wrap_at, or count in floats",
            value=str(total),
        )
    return total


def check_patch(changes: Fields) -> None:
    """Raise InvalidRecord if a patch of a store's record names a field that never changes."""
    for name, text in FIXED.items():
        if name in changes:
            raise InvalidRecord(
                f"a patch never changes {text!r}; leave it out, or replace the whole record",
                field=text,
            )


def patched(fields: Fields, changes: Fields) -> Fields:
    """Return a store's record with a patch applied: metadata is merged, "" deletes a key of it."""
    merged = {**fields, **changes}
    if METADATA in changes:
        changed = fields_of(changes[METADATA], "the patch of metadata")
        metadata = {**(split_map(fields.get(METADATA, b"")) or {}), **changed}
        kept = {name: value for name, value in metadata.items() if value != _DELETED}
        merged[METADATA] = join_map(kept)
    return merged


def completed(fields: Fields, existing: Fields | None, now: int | None) -> bool:
    """Fill in what a store's record lacks of object and created; tell whether it lacked any.

    They are those of the existing record; for a new one, created is ``now``.
    """
    lacking = [name for name in (OBJECT, CREATED) if name not in fields]
    for name in lacking:
        if existing is not None and name in existing:
            fields[name] = existing[name]
        elif name == CREATED and now is not None:
            fields[name] = pack(now)
    return bool(lacking)


def created_of(fields: Fields, key: Key) -> int:
    """Return when a store's record was created, having checked that field and its id."""
    if not isinstance(key, str):
        raise InvalidKey(f"the key of a store's record is its id, a str; not {shown(key)}")
    if fields.get(ID) != pack(key):
        raise InvalidRecord(
            f"the id in a store's record must be its key {shown(key)}; give it that id",
            field="id",
        )
    value = fields.get(CREATED)
    created = unpack(value) if value is not None and len(value) <= NUMBER_BYTES_MAX else None
    if type(created) is not int or not CREATED_MIN <= created <= CREATED_MAX:
        problem = "is missing" if value is None else "is no int of 64 bits"
        raise InvalidRecord(
            f"created of the store's record {shown(key)} {problem}; "
            "give it the time in whole seconds since 1970",
            field="created",
        )
    return created


def index_names(fields: Fields, indexes: Iterable[str]) -> list[bytes]:
    """Return the names of the index lists a record belongs into.

    A field that is missing is in none, and neither is a value nobody can read.
    """
    names = []
    for field in indexes:
        value = fields.get(field_name(field))
        if value is not None:
            with suppress(InvalidRecord):
                names.append(index_name_packed(field, value))
    return names


def matches(record: bytes, wanted: Fields) -> bool:
    """Tell whether a record has all these fields with values of these canonical forms.

    What is no mapping, a missing field and a value nobody can read match nothing.
    """
    fields = split_map(record) or {}
    try:
        return all(
            name in fields and canonical_packed(fields[name]) == value
            for name, value in wanted.items()
        )
    except InvalidRecord:
        return False
