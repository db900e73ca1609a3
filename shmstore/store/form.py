"""How records look to the callers of a store: as dicts, or as msgspec Structs of one type."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar, get_args, get_origin

from ..codec import pack, unpack
from ..errors import InvalidArgument, InvalidRecord
from ..keys import shown


class Form:
    """Records as dicts."""

    def read(self, data: bytes) -> Any:
        """Return a packed record as callers get it. Raises InvalidRecord."""
        return unpack(data)

    def fields(self, record: object) -> dict[str, Any]:
        """Return a record, as callers give it, as a new dict. Raises InvalidRecord."""
        if not isinstance(record, Mapping):
            raise InvalidRecord(
                f"a record is a mapping of fields, not {type(record).__name__} ({shown(record)})",
                type=type(record).__name__,
            )
        return dict(record)

    def check(self, fields: dict[str, Any]) -> None:
        """Raise InvalidRecord for fields that could not be read in this form."""


PLAIN = Form()


class StructForm(Form):
    """Records as Structs, which msgspec makes straight from the packed bytes; taken as dicts too.

    Fields that are UNSET are not stored.
    """

    def __init__(self, kind: Any) -> None:
        # Here, as nobody but who declares such a store needs to have it.
        from msgspec import MsgspecError, msgpack, to_builtins

        self._kind = kind
        self._decode = msgpack.Decoder(kind).decode
        self._to_builtins = to_builtins
        self._errors = (MsgspecError, ValueError, TypeError)

    def read(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        except self._errors as error:
            raise InvalidRecord(f"the record is no {self._kind.__name__}: {error}") from error

    def fields(self, record: object) -> dict[str, Any]:
        if not isinstance(record, self._kind):
            return super().fields(record)
        plain: dict[str, Any] = self._to_builtins(record, builtin_types=(bytes, datetime))
        return plain

    def check(self, fields: dict[str, Any]) -> None:
        self.read(pack(fields))


def form_of(declared: type) -> Form | None:
    """Return the form a class declares, as in ``class Webhooks(Store[Webhook])``; None if none.

    Raises InvalidArgument for a type that is no Struct, ImportError if there is no msgspec.
    """
    for base in declared.__dict__.get("__orig_bases__", ()):
        for kind in get_args(base):
            if isinstance(kind, TypeVar) or (get_origin(kind) or kind) is dict:
                continue
            return _struct_form(declared.__name__, kind)
    return None


def _struct_form(name: str, kind: Any) -> Form:
    try:
        from msgspec import Struct
    except ImportError as error:
        raise ImportError(
            f"class {name} names a type of its records, which needs msgspec: "
            f"pip install 'shmstore[msgspec]'"
        ) from error
    if not isinstance(kind, type) or not issubclass(kind, Struct):
        raise InvalidArgument(
            f"class {name}: the type of its records is a msgspec.Struct, not {kind}"
        )
    if kind.__struct_config__.array_like:
        raise InvalidArgument(f"class {name}: its records are maps, so {kind} is not array_like")
    return StructForm(kind)
