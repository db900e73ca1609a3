"""What a resource is: its declaration on a Store class, and what every record of it has."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from ..errors import InvalidArgument, InvalidKey, InvalidRecord
from ..keys import key_of, name_of, shown
from ..layout import NAME_BYTES_MAX
from ..protocol import INDEXES_MAX
from .form import PLAIN, Form, form_of

Record: TypeAlias = dict[str, Any]

TABLE_BYTES_MAX = NAME_BYTES_MAX - 2
"""Less than the name of a plain table: the catalogue of its namespaces is named after it."""
FIXED = ("id", "object", "created")
"""The fields that no patch or increment changes."""
CREATED_MIN, CREATED_MAX = 1 - (1 << 63), (1 << 63) - 1
"""One less than 64 bits have: the format needs a word for none."""


class Resource:
    """The declaration of a store: where its records are and what each of them has.

    A subclass sets ``table`` and ``resource``, and as it likes ``prefix`` (to make ids),
    ``url_path`` ("/v1/<table>" unless set) and ``indexes`` (fields that find() need not scan
    for). They are checked when the class is created; InvalidArgument says what is wrong.
    """

    table: ClassVar[str] = ""
    resource: ClassVar[str] = ""
    prefix: ClassVar[str | None] = None
    url_path: ClassVar[str | None] = None
    indexes: ClassVar[Sequence[str]] = ()
    _form: ClassVar[Form] = PLAIN

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._form = form_of(cls) or cls._form
        if cls.table == "" and cls.resource == "":
            return  # a common base of several stores
        _check_names(cls)
        _check_indexes(cls, cls.indexes)
        cls.indexes = tuple(cls.indexes)
        if cls.url_path is None:
            cls.url_path = f"/v1/{cls.table}"

    @classmethod
    def _completed(cls, record: object) -> Record:
        """Return a copy of ``record`` with all it lacks of id, object and created.

        Raises InvalidRecord.
        """
        fields = cls._form.fields(record)
        if "id" not in fields:
            fields["id"] = cls._new_id()
        fields = cls._replacement(fields)
        fields.setdefault("created", now())
        return fields

    @classmethod
    def _replacement(cls, record: object) -> Record:
        """Return a copy of ``record``, which has an id, with its object; created may be missing.

        Raises InvalidRecord.
        """
        fields = cls._form.fields(record)
        if "id" not in fields:
            raise InvalidRecord(
                f'this {cls.resource} has no "id" to tell which one it replaces; insert() makes '
                f"one for a new record",
                field="id",
            )
        fields["id"] = _id_of(fields["id"])
        fields.setdefault("object", cls.resource)
        if "created" in fields:
            _check_created(fields["created"])
        return fields

    @classmethod
    def _new_id(cls) -> str:
        if cls.prefix is None:
            raise InvalidRecord(
                f'this {cls.resource} has no "id", and its store no prefix to make one: give the '
                f"record an id, or the class a prefix",
                field="id",
            )
        return f"{cls.prefix}_{secrets.token_hex(8)}"


def _check_names(cls: type[Resource]) -> None:
    for name in ("table", "resource"):
        value: Any = getattr(cls, name)
        if not isinstance(value, str) or not value:
            raise _wrong(cls, f'{name} = "..." is missing or not text: {shown(value)}')
    for name in ("prefix", "url_path"):
        value = getattr(cls, name)
        if value is not None and (not isinstance(value, str) or not value):
            raise _wrong(cls, f"{name} is text, or None for none; not {shown(value)}")
    try:
        name_of("table", cls.table)
        size = len(cls.table.encode())
        if size > TABLE_BYTES_MAX:
            raise InvalidKey(
                f"the table name has {size} bytes, at most {TABLE_BYTES_MAX} are allowed"
            )
    except InvalidKey as error:
        raise _wrong(cls, str(error)) from None


def _check_indexes(cls: type[Resource], indexes: Any) -> None:
    if not isinstance(indexes, (tuple, list)):
        raise _wrong(
            cls, f'indexes is a tuple of field names, as in ("status",); not {shown(indexes)}'
        )
    for field in indexes:
        if not isinstance(field, str) or not field:
            raise _wrong(cls, f"an index is the name of a field, not {shown(field)}")
    if len(set(indexes)) != len(indexes):
        raise _wrong(cls, f"an index is declared twice: {shown(indexes)}")
    if len(indexes) > INDEXES_MAX:
        raise _wrong(cls, f"at most {INDEXES_MAX} indexes, not {len(indexes)}")


def _wrong(cls: type[Resource], problem: str) -> InvalidArgument:
    return InvalidArgument(f"class {cls.__name__}: {problem}")


def _id_of(record_id: object) -> str:
    if not isinstance(record_id, str) or not record_id:
        raise InvalidRecord(
            f"the id of a record is a str that is not empty, not {type(record_id).__name__} "
            f"({shown(record_id)})",
            field="id",
        )
    try:
        return str(key_of(record_id))
    except InvalidKey as error:
        raise InvalidRecord(f"the id of a record is its key: {error}", field="id") from None


def _check_created(created: object) -> None:
    if type(created) is not int or not CREATED_MIN <= created <= CREATED_MAX:
        raise InvalidRecord(
            f'"created" is the time in whole seconds since 1970, an int; not '
            f"{type(created).__name__} ({shown(created)})",
            field="created",
        )


def check_changes(fields: Mapping[str, Any]) -> None:
    """Check that none of ``fields`` is one that never changes. InvalidRecord."""
    for field in FIXED:
        if field in fields:
            raise InvalidRecord(
                f'"{field}" never changes; update() replaces a whole record', field=field
            )


def now() -> int:
    """Return the time in whole seconds since 1970, as ``created`` has it."""
    return int(time.time())
