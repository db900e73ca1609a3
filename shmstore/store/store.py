"""The resource pattern: records with an id, in namespaces, listed newest first, found by field.

A store is declared in three lines and bound to a client, a pipeline or a transaction::

    class Webhooks(shmstore.Store):
        table, resource, prefix, url_path = "webhooks", "webhook_endpoint", "we", "/v1/webhooks"
        indexes = ("status",)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from ..codec import pack
from ..engine import field_of, record_of
from ..errors import InvalidArgument, InvalidRecord
from ..keys import key_of, missing, name_of, shown
from ..namespaces import current
from ..table import RAISE, Table
from ..table.arguments import amounts_of, is_something, same, version_of
from ..table.handles import Handle, check_handle, client_of
from .finding import find
from .form import PLAIN
from .page import LIMIT_DEFAULT, LIMIT_MAX, Page, cursors_of, limit_of
from .resource import Resource, check_changes, now
from .schema import declare, declared

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Record = TypeVar("Record", default=dict[str, Any])
else:
    from typing import TypeVar

    Record = TypeVar("Record")  # the default is for type checkers
Records: TypeAlias = list[Record]
AnyRecords: TypeAlias = list[Any]
Fields: TypeAlias = list[str]
Arguments: TypeAlias = list[Any]  # inside the class, "list" is its method
Result = TypeVar("Result")
Self = TypeVar("Self", bound="Store[Any]")

TABLES_MAX = 256
"""Namespaces for which one store object keeps what it computed."""


class Store(Resource, Generic[Record]):
    """Records of one resource, each under its id, in the caller's namespace.

    Any process may read, from memory, and mutate, through its client; threads may share a store.
    Reads see one snapshot per call and return fresh objects. Every read, count, list, find and
    delete is scoped to ``namespace()`` as it is where it is called; clear() alone spans all.
    Every mutation returns when it is applied; beyond the errors named below each may raise
    RequestTimeout, WriterUnavailable and StoreFull. In a pipeline or a transaction insert() and
    update() return the record, other mutations a Reply, and reading is an error.

    Records are dicts. In a ``Store[Webhook]``, Webhook being a msgspec.Struct, they are of that
    type wherever a record is returned, and taken as such or as mappings; each read may then raise
    InvalidRecord, where a record does not fit the type.
    """

    def __init__(self, handle: Handle) -> None:
        if not self.table:
            raise InvalidArgument(
                f"class {type(self).__name__} is no store yet: set its table and resource"
            )
        check_handle(handle)
        self._handle = handle
        self._tables: dict[str, Table] = {}
        self._is_declared = False

    @property
    def table_name(self) -> str:
        """The name of the table that holds the records."""
        return self.table

    def __repr__(self) -> str:
        return f"<{type(self).__name__} store of table {self.table!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._handle,)

    # Reading: from memory, in any process, while no writer is running as well.

    def get(self, record_id: str, default: Any = None) -> Any:
        """Return the record, or ``default``. One lookup in memory and decoding."""
        table = self._in(current())
        if self._form is PLAIN:
            return table.get(record_id, default)
        data = table.get_bytes(record_id)
        return default if data is None else self._form.read(data)

    def __getitem__(self, record_id: str) -> Record:
        """Return the record; RecordNotFound (a KeyError) if there is none."""
        namespace = current()
        data = self._in(namespace).get_bytes(record_id)
        if data is None:
            raise missing(key_of(record_id), self.table, namespace)
        record: Record = self._form.read(data)
        return record

    def record(self, record_id: str, default: Any = None) -> Any:
        """Return the record as a shmstore.Record, or ``default``.

        One lookup in memory; a field is decoded when it is touched.
        """
        return self._in(current()).record(record_id, default)

    def get_many(self, record_ids: Iterable[str], *, lazy: bool = False) -> dict[str, Any]:
        """Return those of the records that are there by id, all of one snapshot.

        If ``lazy``, as record() gives them.
        """
        opened, found = self._opener(lazy), self._in(current()).packed_many(record_ids)
        return {str(key): opened(data) for key, data in found.items()}

    def __contains__(self, record_id: object) -> bool:
        """Tell whether there is a record of this id."""
        return record_id in self._in(current())

    def version(self, record_id: str) -> int:
        """Return the version of a record for compare_and_swap(); 0 if there is none."""
        return self._in(current()).version(record_id)

    def get_versioned(self, record_id: str, default: Any = None) -> tuple[int, Any]:
        """Return (version, record) of one snapshot; (0, ``default``) if there is none."""
        version, data = self._in(current()).packed_versioned(record_id)
        return version, default if data is None else self._form.read(data)

    def count(self) -> int:
        """Return the number of records. Costs one lookup, whatever the number."""
        return len(self._in(current()))

    def __len__(self) -> int:
        """Return the number of records, as count()."""
        return self.count()

    def __iter__(self) -> Iterator[str]:
        """Yield all ids, newest first, a chunk per snapshot.

        One that is there throughout appears exactly once.
        """
        return (str(key) for key in reversed(self._in(current())))

    def list(
        self,
        limit: int = LIMIT_DEFAULT,
        starting_after: str | None = None,
        ending_before: str | None = None,
        *,
        lazy: bool = False,
    ) -> Page:
        """Return a page of records, newest first: by (created, insertion), a total order.

        ``limit`` is 10 unless given and 100 at most. ``starting_after`` is the id of the record
        after which the page starts, ``ending_before`` of the one just before which it ends; that
        record may be deleted by now. If ``lazy``, the records are as record() gives them. Costs a
        lookup per record of the page, whatever the size of the store. Raises InvalidArgument, and
        UnknownCursor for an id that never was here.
        """
        return self._page(current(), limit, starting_after, ending_before, lazy)

    def pages(self, limit: int = LIMIT_MAX, *, lazy: bool = False) -> Iterator[Page]:
        """Yield all pages, newest first; each is a snapshot of its own.

        Records that are there throughout appear exactly once, whatever else is inserted. If
        ``lazy``, they are as record() gives them.
        """
        namespace, limit = current(), limit_of(limit)

        def walk() -> Iterator[Page]:
            page = self._page(namespace, limit, None, None, lazy)
            yield page
            while page.has_more:
                page = self._page(namespace, limit, page.next_cursor, None, lazy)
                yield page

        return walk()

    def find(self, /, *, lazy: bool = False, **fields: Any) -> AnyRecords:
        """Return the records that have all these fields with these values, newest first.

        Values are equal only if their types are too: 1 is not 1.0 nor True. A missing field
        never matches, not even None. With an index on one of the fields this costs its result;
        with several, that of the smallest; with none it reads the whole namespace. The result
        is one snapshot. Without fields it is all records. If ``lazy``, they are as record() gives
        them; so no field of this name can be looked for.
        """
        indexes = self._index_fields(fields)
        return find(self._in(current()), indexes, fields, self._opener(lazy))

    def list_namespace(self, namespace: str, *, lazy: bool = False) -> AnyRecords:
        """Return all records of ``namespace``, newest first, as one snapshot.

        If ``lazy``, they are as record() gives them.
        """
        table = self._in(name_of("namespace", namespace))
        return find(table, [], {}, self._opener(lazy))

    # Mutations: through the pipe, applied by the writer one after the other.

    def insert(self, record: Mapping[str, Any] | Record) -> Record:
        """Store ``record`` and return it as it will be read; one of the same id is replaced.

        Fills in what is missing of id ("<prefix>_<16 hex>"), object (the resource) and created
        (now, in seconds since 1970); the caller's mapping is not changed. Raises InvalidRecord
        and RecordTooLarge. Costs one round trip.
        """
        fields = self._completed(record)
        data = pack(fields)
        stored: Record = self._form.read(data)
        self._store("upsert", [fields["id"], data], same)
        return stored

    def insert_many(self, records: Iterable[Mapping[str, Any] | Record]) -> Records[Record]:
        """Store all ``records`` as insert() does, as one atomic batch; return them."""
        completed = [self._completed(record) for record in records]
        pairs = [[fields["id"], pack(fields)] for fields in completed]
        stored = [self._form.read(data) for _, data in pairs]
        if pairs:
            self._store("put_many", [pairs], same)
        return stored

    def update(self, record: Mapping[str, Any] | Record) -> Record:
        """Store ``record`` in place of the one with its id, or as a new one; return it.

        The whole record is replaced; only a missing object or created is filled in, created from
        the record that is replaced (in a pipeline or transaction: from the one that is there as
        this is called). Raises InvalidRecord and RecordTooLarge.
        """
        fields = self._replacement(record)
        if "created" not in fields and client_of(self._handle) is not self._handle:
            fields["created"] = self._created_of(fields["id"])
        data, time = pack(fields), now()
        self._form.check({"created": time, **fields})
        created = self._store("upsert", [fields["id"], data, time], same)
        if "created" not in fields:
            data = pack({**fields, "created": created})
        stored: Record = self._form.read(data)
        return stored

    def compare_and_swap(
        self, record_id: str, version: int, record: Mapping[str, Any] | Record
    ) -> bool:
        """Store ``record`` as update() does if the one of ``record_id`` still has ``version``.

        Version 0 stands for no record. Tells whether it was stored.
        """
        fields = self._replacement({"id": record_id, **self._form.fields(record)})
        if "created" not in fields:
            fields["created"] = self._created_of(record_id)
        if fields["id"] != record_id:
            raise InvalidRecord(
                f"the record says its id is {shown(fields['id'])}, the call {shown(record_id)}",
                field="id",
            )
        self._form.check(fields)
        return self._store("cas", [record_id, version_of(version), pack(fields)], is_something)

    def patch(self, record_id: str, /, **fields: Any) -> Record | None:
        """Set some fields of a record; return the record as it is now, None if there is none.

        Atomic in the writer. ``metadata`` is merged into the old one: a value of "" deletes its
        key. InvalidRecord for id, object and created, which never change.
        """
        check_changes(fields)
        return self._call("store_patch", [key_of(record_id), pack(fields)], self._read_some)

    def increment(
        self,
        record_id: str,
        field: str,
        by: int | float = 1,
        *,
        default: int | float = 0,
        wrap_at: int | float | None = None,
        reset_to: int | float | None = None,
    ) -> Any:
        """Add ``by`` to a field that is a number, or ``default`` if missing; return the sum.

        As Table.increment(), but RecordNotFound if there is no such record.
        """
        check_changes({field: by})
        amounts = amounts_of(by, default, wrap_at, reset_to)
        return self._call("increment", [key_of(record_id), field, *amounts, True], same)

    def delete(self, record_id: str) -> bool:
        """Remove a record; tell whether there was one."""
        return self._in(current()).delete(record_id)

    def delete_many(self, record_ids: Iterable[str]) -> int:
        """Remove several records as one atomic batch; return how many there were."""
        return self._in(current()).delete_many(record_ids)

    def pop(self, record_id: str, default: Any = RAISE) -> Any:
        """Remove and return a record, or return ``default``; RecordNotFound without one.

        Atomic: of many callers exactly one gets it.
        """
        namespace, key = current(), key_of(record_id)

        def convert(data: bytes | None) -> Any:
            if data is not None:
                return self._form.read(data)
            if default is RAISE:
                raise missing(key, self.table, namespace)
            return default

        return self._call("pop", [key], convert)

    def delete_where(self, /, **fields: Any) -> int:
        """Remove the records find() would return, as one atomic mutation; return how many."""
        if not fields:
            raise InvalidArgument(
                "delete_where() needs a field to go by; clear_namespace() removes all records"
            )
        filters = [[field, pack(value)] for field, value in fields.items()]
        return self._call("delete_where", [filters], int)

    def clear_namespace(self, namespace: str) -> int:
        """Remove all records of ``namespace``; return how many there were."""
        name_of("namespace", namespace)
        return self._handle.call("clear", [self.table, namespace], int)

    def clear(self) -> int:
        """Remove the records of all namespaces as one atomic mutation; return how many."""
        return self._handle.call("clear_all", [self.table, ""], int)

    @contextmanager
    def pipeline(self: Self) -> Iterator[Self]:
        """Return a context in which mutations are sent without waiting for each; see Pipeline."""
        with self._handle.pipeline() as handle:
            yield type(self)(handle)

    # Below here nothing is public.

    def _in(self, namespace: str) -> Table:
        table = self._tables.get(namespace)
        if table is None:
            if len(self._tables) >= TABLES_MAX:
                self._tables.clear()
            table = self._tables[namespace] = Table(self._handle, self.table, namespace)
        return table

    def _page(
        self, namespace: str, limit: Any, starting_after: Any, ending_before: Any, lazy: bool
    ) -> Page:
        limit = limit_of(limit)
        after, before = cursors_of(starting_after, ending_before)
        values, has_more = self._handle.read("page", self.table, namespace, limit, after, before)
        edge = values[-1 if before is None else 0] if has_more else None
        cursor = None if edge is None else field_of(edge, "id")
        return Page([*map(self._opener(lazy), values)], has_more, str(self.url_path), cursor)

    def _opener(self, lazy: bool) -> Callable[[bytes], Any]:
        return record_of if lazy else self._form.read

    def _read_some(self, data: bytes | None) -> Record | None:
        record: Record | None = None if data is None else self._form.read(data)
        return record

    def _index_fields(self, fields: dict[str, Any]) -> Fields:
        """The declared indexes that help to find ``fields``, once they can be read."""
        indexed = [field for field in self.indexes if field in fields]
        client = client_of(self._handle)
        return indexed if indexed and declared(client, self.table, tuple(self.indexes)) else []

    def _created_of(self, record_id: str) -> int:
        existing = Table(client_of(self._handle), self.table, current())
        return int(existing.get_field(record_id, "created", now()))

    def _store(
        self, operation: str, arguments: Arguments, convert: Callable[[Any], Result]
    ) -> Result:
        if not self._is_declared:
            declare(client_of(self._handle), self.table, tuple(self.indexes))
            self._is_declared = True
        return self._call(operation, arguments, convert)

    def _call(
        self, operation: str, arguments: Arguments, convert: Callable[[Any], Result]
    ) -> Result:
        return self._handle.call(operation, [self.table, current(), *arguments], convert)
