"""What may name a record, a table, a namespace or a field, and how errors show it."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any, TypeAlias

from .errors import InvalidKey, RecordNotFound
from .layout import KEY_BYTES_MAX, NAME_BYTES_MAX

Key: TypeAlias = str | bytes

SHOWN_MAX = 80
"""Longest piece of a key or name that an error message repeats."""

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxlong = _brief.maxother = SHOWN_MAX


def key_of(key: object) -> Key:
    """Return ``key`` as the exact str or bytes that is stored.

    Subclasses are accepted and become plain. Raises InvalidKey for any other type, for text that
    is not valid Unicode and for keys beyond 64 KiB.
    """
    if type(key) is str and len(key) <= KEY_BYTES_MAX and key.isascii():
        return key
    if isinstance(key, str):
        text = str.__str__(key)
        _check_size("key", text, KEY_BYTES_MAX)
        return text
    if isinstance(key, bytes):
        if len(key) > KEY_BYTES_MAX:
            raise _too_long("key", len(key), KEY_BYTES_MAX)
        return bytes.__getitem__(key, slice(None))
    raise InvalidKey(
        f"a key is str or bytes, not {type(key).__name__} ({shown(key)}); convert it, for example "
        f"with str(key)",
        type=type(key).__name__,
    )


def keys_of(keys: Iterable[Key]) -> list[Key]:
    """Return ``keys`` without repetitions, checked as key_of() does."""
    if isinstance(keys, (str, bytes)):
        raise InvalidKey(f"expected several keys, in a list for example, not {shown(keys)}")
    return list(dict.fromkeys(map(key_of, keys)))


def name_of(what: str, name: object) -> str:
    """Return ``name`` as plain str; ``what`` (table, namespace, field) is for the message.

    Raises InvalidKey unless it is text of 1 to 255 bytes.
    """
    if not isinstance(name, str):
        raise InvalidKey(
            f"the name of a {what} is a str, not {type(name).__name__} ({shown(name)})",
            type=type(name).__name__,
        )
    text = str.__str__(name)
    if not text:
        raise InvalidKey(f"the name of a {what} cannot be empty; give it 1 to 255 bytes of text")
    _check_size(f"{what} name", text, NAME_BYTES_MAX)
    return text


def missing(key: Key, table: str, namespace: str = "") -> RecordNotFound:
    """Return the error that says which record is not there."""
    place = f"table {shown(table)}"
    if namespace:
        place += f", namespace {shown(namespace)}"
    return RecordNotFound(
        f"no record {shown(key)} in {place}", table=table, namespace=namespace, key=key
    )


def shown(value: Any) -> str:
    """Return the repr of ``value``, cut to what a message can hold.

    Costs little for whatever a peer sends: of containers only what stands first is looked at.
    """
    if isinstance(value, (str, bytes)) and len(value) > SHOWN_MAX:
        return f"{value[:SHOWN_MAX]!r}... ({len(value)} long)"
    text = _brief.repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _check_size(what: str, text: str, bytes_max: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(
            f"{what} {shown(text)} holds a surrogate at position {error.start}, which is not text; "
            f"use bytes for what is not Unicode",
            position=error.start,
        ) from None
    if size > bytes_max:
        raise _too_long(what, size, bytes_max)


def _too_long(what: str, size: int, bytes_max: int) -> InvalidKey:
    return InvalidKey(
        f"this {what} has {size} bytes, at most {bytes_max} are allowed; use a digest of it, or "
        f"put the long part into the record",
        size=size,
        limit=bytes_max,
    )
