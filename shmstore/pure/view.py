"""The lookups by key of one (table, namespace): the base of a table.

Attached at first use by ``_attach``; where the writer overtook every try, or the reader was
closed, ``_ask`` gives the answer. Both are the subclass's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from ..codec import unpack
from ..errors import ReadStalled, RecordNotFound
from .lookup import Key
from .reader import Reader
from .record import field_of, record_of

_OVERTAKEN_OR_CLOSED = (ReadStalled, ValueError)


class View:
    """Records by key, as they lie in memory. Any process may call all of it."""

    def _attach(self) -> tuple[Reader, int]:
        """Return the reader, and the scope of these records in it."""
        raise NotImplementedError

    def _ask(self, method: str, key: Key) -> Any:
        """Return what ``method`` of the reader says of ``key``, from the writer if need be."""
        raise NotImplementedError

    def _missing(self, key: Key) -> RecordNotFound:
        """Return the error that says that ``key`` has no record."""
        raise NotImplementedError

    @cached_property
    def _attached(self) -> tuple[Reader, int]:
        return self._attach()

    @cached_property
    def _look_up(self) -> Callable[[int, Key], bytes | None]:
        return self._attached[0].get

    @cached_property
    def _scope(self) -> int:
        return self._attached[1]

    def get_bytes(self, key: Key, default: Any = None) -> Any:
        """Return the record as the msgpack bytes that are stored, or ``default``.

        One lookup in memory. Raises InvalidKey.
        """
        try:
            data = self._look_up(self._scope, key)
        except _OVERTAKEN_OR_CLOSED:
            data = self._ask("get", key)
        return default if data is None else data

    def get(self, key: Key, default: Any = None) -> Any:
        """Return the record of ``key``, or ``default``.

        One lookup in memory and decoding. Raises InvalidKey.
        """
        # get_bytes() once more: a call would cost about as much as the lookup.
        try:
            data = self._look_up(self._scope, key)
        except _OVERTAKEN_OR_CLOSED:
            data = self._ask("get", key)
        return default if data is None else unpack(data)

    def record(self, key: Key, default: Any = None) -> Any:
        """Return the record of ``key`` as a Record, or ``default``.

        One lookup in memory; a field is decoded when it is touched. A record that is an array
        comes as a RecordArray, a scalar as it is. Raises InvalidKey.
        """
        data = self.get_bytes(key)
        return default if data is None else record_of(data)

    def get_field(self, key: Key, field: Any, default: Any = None) -> Any:
        """Return one field of a record, or ``default`` if the record or the field is missing.

        Only that field is decoded. Raises InvalidRecord if the record is not a map.
        """
        data = self.get_bytes(key)
        return default if data is None else field_of(data, field, default)

    def __getitem__(self, key: Key) -> Any:
        """Return the record of ``key``; RecordNotFound (a KeyError) if there is none."""
        data = self.get_bytes(key)
        if data is None:
            raise self._missing(key)
        return unpack(data)

    def __contains__(self, key: object) -> bool:
        """Tell whether ``key`` has a record. InvalidKey for what can never be a key."""
        return self.version(key) != 0  # type: ignore[arg-type]  # the reader refuses the others

    def version(self, key: Key) -> int:
        """Return the version of the record of ``key``; 0 if there is none.

        Each mutation of a record gives it a higher one. Meant for compare_and_swap().
        """
        reader, scope = self._attached
        try:
            return reader.version(scope, key) or 0
        except _OVERTAKEN_OR_CLOSED:
            return self._ask("version", key) or 0
