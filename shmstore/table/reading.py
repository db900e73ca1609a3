"""The reading half of a table: lookups and walks in shared memory.

None of it needs the writer, but for reads that the writer overtook on every try.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..codec import unpack
from ..engine import Reader, View, record_of
from ..errors import RecordNotFound
from ..keys import Key, key_of, keys_of, missing, name_of
from .handles import Handle, check_handle
from .views import TableItems, TableKeys, TableValues, walk, walk_keys


class Readable(View, Mapping[Key, Any]):
    """A mapping from keys to records that lie in shared memory. Any process may call all of it."""

    def __init__(self, handle: Handle, name: str, namespace: str = "") -> None:
        check_handle(handle)
        self._handle = handle
        self._name = name_of("table", name)
        self._namespace = name_of("namespace", namespace) if namespace else ""

    @property
    def name(self) -> str:
        """The name of the table."""
        return self._name

    @property
    def namespace(self) -> str:
        """The namespace of the records seen here; "" in a plain table."""
        return self._namespace

    def __repr__(self) -> str:
        suffix = f" in namespace {self._namespace!r}" if self._namespace else ""
        return f"<shmstore.Table {self._name!r}{suffix}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._handle, self._name, self._namespace)

    def _attach(self) -> tuple[Reader, int]:
        reader = self._handle.reader
        return reader, reader.scope(self._name, self._namespace)

    def _ask(self, method: str, key: Key) -> Any:
        return self._handle.read(method, self._attach()[1], key_of(key))

    def _missing(self, key: Key) -> RecordNotFound:
        return missing(key_of(key), self._name, self._namespace)

    def __len__(self) -> int:
        """Return the number of records. Costs one lookup, whatever the size."""
        return self.count()

    def count(self, index: bytes = b"") -> int:
        """Return the number of records, or of those in one list of an index; costs one lookup."""
        return int(self._handle.read("count", self._name, self._namespace, index))

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys in the order they were first inserted, a chunk per snapshot.

        A key that is there throughout appears exactly once; one that comes or goes meanwhile
        may appear or not.
        """
        return walk_keys(self._handle, self._name, self._namespace)

    def __reversed__(self) -> Iterator[Key]:
        """Yield the keys, last inserted first, as __iter__ does."""
        return walk_keys(self._handle, self._name, self._namespace, newest_first=True)

    def packed_items(self, newest_first: bool = False) -> Iterator[tuple[Key, bytes]]:
        """Yield (key, record as msgpack bytes) as __iter__ does, without decoding."""
        return walk(self._handle, self._name, self._namespace, newest_first)

    def packed_list(self, index: bytes = b"") -> list[bytes]:
        """Return the records in one list of an index, or all; newest first, of one snapshot."""
        rows = self._handle.read("chunk", self._name, self._namespace, index, None, None, True)
        return [row[1] for row in rows]

    def keys(self) -> TableKeys:
        """Return a live, set-like view of the keys."""
        return TableKeys(self)

    def values(self) -> TableValues:
        """Return a live view of the records."""
        return TableValues(self)

    def items(self) -> TableItems:
        """Return a live, set-like view of the (key, record) pairs."""
        return TableItems(self)

    def copy(self) -> dict[Key, Any]:
        """Return a dict of all records. Unlike dict(table) it looks none of them up again."""
        return dict(self.items())

    def get_many(self, keys: Iterable[Key], *, lazy: bool = False) -> dict[Key, Any]:
        """Return the records of those ``keys`` that are there, in the order given.

        All are of one snapshot; if ``lazy``, as record() gives them. Costs a lookup per key.
        Raises InvalidKey.
        """
        opened = record_of if lazy else unpack
        return {key: opened(data) for key, data in self.packed_many(keys).items()}

    def packed_many(self, keys: Iterable[Key]) -> dict[Key, bytes]:
        """Return the records of those ``keys`` that are there as get_many() does, undecoded."""
        wanted = keys_of(keys)
        found = self._handle.read("get_many", self._attach()[1], wanted)
        pairs = zip(wanted, found, strict=True)
        return {key: data for key, data in pairs if data is not None}

    def get_versioned(self, key: Key, default: Any = None) -> tuple[int, Any]:
        """Return (version, record) of one snapshot; (0, ``default``) if there is none."""
        version, data = self.packed_versioned(key)
        return version, default if data is None else unpack(data)

    def packed_versioned(self, key: Key) -> tuple[int, bytes | None]:
        """Return (version, record as msgpack bytes) of one snapshot; (0, None) if there is none."""
        found = self._ask("get_versioned", key)
        return (0, None) if found is None else (int(found[0]), found[1])

    def __or__(self, other: Mapping[Key, Any]) -> dict[Key, Any]:
        """Return a dict of these records and those of ``other``, which win."""
        return self.copy() | batch_of(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Mapping[Key, Any]) -> dict[Key, Any]:
        """Return a dict of the records of ``other`` and these, which win."""
        return batch_of(other) | self.copy() if isinstance(other, Mapping) else NotImplemented


def batch_of(records: Any) -> dict[Any, Any]:
    """Return a mapping or an iterable of pairs as a dict."""
    return records.copy() if isinstance(records, Readable) else dict(records)
