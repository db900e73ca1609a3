"""A table: a mapping whose reads look into shared memory and whose mutations go to the writer.

Bound to a client, a method returns its result. Bound to a pipeline or a transaction, methods that
change something return a Reply, and reading is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar, overload

from ..codec import unpack
from ..engine import pack, quick_pairs
from ..errors import RecordNotFound
from ..keys import Key, key_of, keys_of, missing, shown
from ..pipe import check_timeout
from .arguments import amounts_of, is_something, same, version_of
from .reading import Readable, batch_of

Self = TypeVar("Self", bound="Table")
Result = TypeVar("Result")
Viewed = TypeVar("Viewed", covariant=True)
Records: TypeAlias = (
    Mapping[str, Any] | Mapping[bytes, Any] | Mapping[Key, Any] | Iterable[tuple[Key, Any]]
)
"""Spelt out, as a mapping's key type is invariant."""
RAISE: Any = object()
"""Stands for no default."""


class Codec(Protocol[Viewed]):
    """What makes an object of a value where it lies, as the module shmstore.arrays does."""

    def unpack(self, view: memoryview, /) -> Viewed:
        """Return what the value stands for. It may keep the view, or parts of it."""


class Table(Readable, MutableMapping[Key, Any]):
    """A mutable mapping from str or bytes keys to records, shared between processes.

    It behaves as a dict does, with these differences: str and bytes keys are different keys and
    no other types are allowed (InvalidKey); records are msgpack's types and aware datetimes, and
    each read returns fresh objects, so changing one changes nothing here; a table may change
    while it is walked. Any process may read and, through its client, mutate; threads may share a
    table. It can be pickled together with its client.

    Every mutation returns when it is applied: who reads afterwards sees it. Beyond the errors
    named below each may raise RequestTimeout, WriterUnavailable and StoreFull.
    """

    # Mutations: through the pipe, applied by the writer one after the other.

    def put(self, key: Key, value: Any) -> int:
        """Store ``value`` under ``key``, whether or not there was one; return its version.

        Raises InvalidKey, InvalidRecord, RecordTooLarge. Costs one round trip.
        """
        arguments = [self._name, self._namespace, key_of(key), pack(value)]
        return self._handle.call("put", arguments, int)

    def __setitem__(self, key: Key, value: Any) -> None:
        """Store ``value`` under ``key``, as put()."""
        arguments = [self._name, self._namespace, key_of(key), pack(value)]
        self._handle.call("put", arguments, int)

    def insert_new(self, key: Key, value: Any, *, while_alive: bool = False) -> bool:
        """Store ``value`` unless ``key`` has a record; tell whether it was stored.

        With ``while_alive`` the record is tied to this process: when that has ended, however it
        ended, the writer deletes it. The tie lasts until the record is deleted, whoever replaces
        its value meanwhile. ProcessUnseen if the writer cannot see this process.
        """
        arguments = [key_of(key), pack(value)]
        if while_alive:
            arguments.append(self._handle.holder())
        return self._call("insert", arguments, is_something)

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return the record of ``key``, storing ``default`` first if there is none.

        Atomic: of many callers exactly one stores, and all get what it stored.
        """
        return self._call("setdefault", [key_of(key), pack(default)], lambda pair: unpack(pair[1]))

    def put_many(self, records: Records) -> int:
        """Store all ``records`` as one atomic batch; return their version.

        They become visible together. Raises InvalidKey and InvalidRecord before anything is
        sent. Costs one round trip.
        """
        batch = batch_of(records)
        pairs: Any = quick_pairs(batch)
        if pairs is None:
            pairs = [[key_of(key), pack(value)] for key, value in batch.items()]
        return self._call("put_many", [pairs], int)

    def update(self, other: Any = (), /, **records: Any) -> None:
        """Store the records of a mapping, of pairs and of keywords, as one atomic batch."""
        batch = {**batch_of(other), **records}
        if batch:
            self.put_many(batch)

    def delete(self, key: Key) -> bool:
        """Remove the record of ``key``; tell whether there was one."""
        return self._call("delete", [key_of(key)], bool)

    def __delitem__(self, key: Key) -> None:
        """Remove the record of ``key``; RecordNotFound (a KeyError) if there is none."""
        key = key_of(key)

        def convert(removed: bool) -> None:
            if not removed:
                raise missing(key, self._name, self._namespace)

        self._call("delete", [key], convert)

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove the records of ``keys`` as one atomic batch; return how many there were."""
        return self._call("delete_many", [keys_of(keys)], int)

    def pop(self, key: Key, default: Any = RAISE) -> Any:
        """Remove and return the record of ``key``, or return ``default``.

        Atomic: of many callers exactly one gets it. RecordNotFound without a default.
        """
        key = key_of(key)

        def convert(data: bytes | None) -> Any:
            if data is not None:
                return unpack(data)
            if default is RAISE:
                raise missing(key, self._name, self._namespace)
            return default

        return self._call("pop", [key], convert)

    def popitem(self) -> tuple[Key, Any]:
        """Remove and return the (key, record) that was inserted last.

        Atomic. RecordNotFound (a KeyError) if the table is empty.
        """

        def convert(pair: list[Any] | None) -> tuple[Key, Any]:
            if pair is None:
                raise RecordNotFound(f"table {shown(self._name)} is empty", table=self._name)
            return pair[0], unpack(pair[1])

        return self._call("popitem", [], convert)

    def increment(
        self,
        key: Key,
        field: str | None = None,
        by: int | float = 1,
        *,
        default: int | float = 0,
        wrap_at: int | float | None = None,
        reset_to: int | float | None = None,
    ) -> Any:
        """Add ``by`` to a number, the record itself or one ``field`` of it; return the sum.

        What is missing counts as ``default`` and is created. A sum beyond ``wrap_at`` (above it,
        or below it when ``by`` is negative) becomes ``reset_to`` instead, 0 unless given.
        Atomic in the writer. InvalidRecord where there is no number, or the sum leaves 64 bits.
        """
        amounts = amounts_of(by, default, wrap_at, reset_to)
        return self._call("increment", [key_of(key), field, *amounts, False], same)

    def patch(self, key: Key, /, **fields: Any) -> bool:
        """Set some fields of a record that is a map; False if there is no record.

        Atomic in the writer: patches of different fields never undo each other.
        """
        return self._call("patch", [key_of(key), pack(fields)], bool)

    def compare_and_swap(self, key: Key, version: int, value: Any) -> bool:
        """Store ``value`` if the record still has ``version``; tell whether it was stored.

        Version 0 stands for no record: then it is inserted. Take the version from
        get_versioned() or version().
        """
        return self._call("cas", [key_of(key), version_of(version), pack(value)], is_something)

    def clear(self) -> None:
        """Remove all records, as one atomic mutation."""
        self._call("clear", [], int)

    @overload
    def view(self, key: Key) -> memoryview: ...

    @overload
    def view(self, key: Key, codec: Codec[Viewed]) -> Viewed: ...

    def view(self, key: Key, codec: Codec[Any] | None = None) -> Any:
        """Return a read-only view of the value of ``key`` where it lies, without a copy.

        Of a record that is bytes it shows what these hold, of any other its msgpack. ``codec``
        makes of it what the record stands for: shmstore.arrays an array of numpy. It stays as it
        is, whatever becomes of the record, the client and the server, for as long as there is
        anything that was made of it, in this process and in children it forks. What was replaced
        is kept that long, and takes its part of the capacity. Costs a round trip; while there is
        another view of the same value, a lookup. RecordNotFound (a KeyError) if there is no
        record; LimitReached beyond 4096 values, or three quarters of the capacity, in one process;
        ProcessUnseen if the writer cannot see this process.
        """
        key = key_of(key)
        version = self.version(key)
        found = self._handle.view(self._name, self._namespace, key, version) if version else None
        if found is None:
            raise self._missing(key)
        return found if codec is None else codec.unpack(found)

    def wait_changed(self, key: Key, version: int | None = 0, timeout: float | None = None) -> int:
        """Return the version of the record of ``key`` as soon as it is not ``version``.

        0 stands for no record, as in version(); so does None. At once if it is another one
        already, else when the commit that changes it is told of by the writer: nobody polls. A
        state that was passed through within moments may not be seen. Threads may wait while others
        use the client. RequestTimeout after ``timeout`` seconds, None waits for ever; LimitReached
        beyond 1024 waits of a client. Outlasts the death of a writer.
        """
        key, known = key_of(key), version_of(version or 0)
        check_timeout(timeout)
        current = self.version(key)
        if current != known:
            return current
        return self._handle.wait_changed([self._name, self._namespace, key, known], timeout)

    @contextmanager
    def pipeline(self: Self) -> Iterator[Self]:
        """Return a context in which this table's mutations are sent without waiting for each.

        They return a Reply. Leaving it waits for all and raises the first error; an exception
        inside does not take back what was sent. See Pipeline.
        """
        with self._handle.pipeline() as handle:
            yield type(self)(handle, self._name, self._namespace)

    def __ior__(self: Self, other: Any) -> Self:  # type: ignore[override,misc]  # as in dict
        """Store the records of ``other``, as update()."""
        self.update(other)
        return self

    def _call(
        self, operation: str, arguments: list[Any], convert: Callable[[Any], Result]
    ) -> Result:
        return self._handle.call(operation, [self._name, self._namespace, *arguments], convert)
