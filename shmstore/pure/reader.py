"""Reading the segment from any process, without a lock and without a store.

Each public method is one snapshot: it notes the clock and the committed sequence, reads, and is
accepted only if the horizon has not passed its clock meanwhile; else it starts over.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterable
from functools import partial
from struct import error as StructError
from time import monotonic
from typing import Any, TypeVar

from ..errors import CorruptSegment, FormatMismatch, ReadStalled, ShmstoreError, UnknownCursor
from ..layout import (
    CAPACITY_WORD,
    COMMITTED_WORD,
    EXTENT_END_WORD,
    FORMAT_VERSION,
    FREE_CLOCK_WORD,
    HORIZON_WORD,
    MAGIC,
    MAGIC_WORD,
    NEXT_INSERTION_WORD,
    READ_SECONDS_MAX,
    READ_TRIES_MAX,
    ROOT_WORD,
    SEGMENT_ID_WORD,
    SEQ_FIELD,
    VERSION_WORD,
    WORD_BYTES,
)
from .clock import read_accept, read_begin
from .lookup import Item, Key, Lookup
from .order import Node, Position
from .records import (
    Damaged,
    Overtaken,
    list_name,
    load_value,
    sort_word,
)

T = TypeVar("T")
_DAMAGED = (Damaged, IndexError, StructError)
_UNREADABLE = (Overtaken, *_DAMAGED)


def is_formatted(memory: mmap.mmap) -> bool:
    """Tell whether a writer has laid out this segment."""
    return int.from_bytes(memory[MAGIC_WORD : MAGIC_WORD + WORD_BYTES], sys.byteorder) == MAGIC


class Reader(Lookup):
    """Reads one segment; any process, any thread. Errors of all methods: ``CorruptSegment``,
    and ``ReadStalled`` when the writer overtook every try."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Errors: ``FormatMismatch`` if the memory holds no segment of this format."""
        if not is_formatted(memory):
            raise FormatMismatch("this memory holds no shmstore segment")
        super().__init__(memory)
        try:
            self._check_header()
        except ShmstoreError:
            self.close()
            raise
        self.capacity = len(self._data)
        start = SEGMENT_ID_WORD * WORD_BYTES
        self.segment_id = bytes(self._data[start : start + 16])
        self.retries = 0
        """Reads that had to start over, in this process."""

    def _check_header(self) -> None:
        version = self._words[VERSION_WORD]
        if version != FORMAT_VERSION:
            raise FormatMismatch(
                f"the segment has format {version}, this shmstore reads {FORMAT_VERSION}; "
                "use the same version in all processes",
                found=version,
                expected=FORMAT_VERSION,
            )
        if self._words[CAPACITY_WORD] != len(self._data):
            raise CorruptSegment(
                f"the segment says {self._words[CAPACITY_WORD]:,} bytes and has {len(self._data):,}"
            )

    def get(self, scope: int, key: Key) -> bytes | None:
        """Return a copy of the stored value, or None. Costs a hash, a probe and the copy."""
        lead = self.hash_key(scope, key)
        # The first try of ``_snapshot``, which most often is enough, without what leads to it.
        words = self._words
        clock, committed = words[FREE_CLOCK_WORD], words[COMMITTED_WORD]
        try:
            value = self._value(scope, lead, committed)
        except _UNREADABLE:
            pass
        else:
            if words[HORIZON_WORD] <= clock:
                return value
        return self._snapshot(partial(self._value, scope, lead))

    def _value(self, scope: int, lead: tuple[int, int, bytes], committed: int) -> bytes | None:
        word_hash, key_class, encoded = lead
        entry = self._record(word_hash, scope, key_class, encoded, committed)
        return load_value(self._words, self._data, entry) if entry else None

    def get_versioned(self, scope: int, key: Key) -> tuple[int, bytes] | None:
        """Return (version, value), or None."""
        word_hash, key_class, encoded = self.hash_key(scope, key)

        def read(committed: int) -> tuple[int, bytes] | None:
            entry = self._record(word_hash, scope, key_class, encoded, committed)
            if not entry:
                return None
            return self._words[entry + SEQ_FIELD], load_value(self._words, self._data, entry)

        return self._snapshot(read)

    def version(self, scope: int, key: Key) -> int | None:
        """Return the sequence number of the batch that wrote the record, or None."""
        word_hash, key_class, encoded = self.hash_key(scope, key)

        def read(committed: int) -> int | None:
            entry = self._record(word_hash, scope, key_class, encoded, committed)
            return self._words[entry + SEQ_FIELD] if entry else None

        return self._snapshot(read)

    def contains(self, scope: int, key: Key) -> bool:
        """Tell whether the record is there."""
        return self.version(scope, key) is not None

    def get_many(self, scope: int, keys: Iterable[Key]) -> list[bytes | None]:
        """Return the values of many keys, None where there is none, all of one snapshot."""
        wanted = [self.hash_key(scope, key) for key in keys]

        def read(committed: int) -> list[bytes | None]:
            entries = [self._record(h, scope, kind, key, committed) for h, kind, key in wanted]
            return [load_value(self._words, self._data, e) if e else None for e in entries]

        return self._snapshot(read)

    def count(self, table: str, namespace: str, index: bytes = b"") -> int:
        """Return the number of records of a list; costs one lookup."""
        name = list_name(table, namespace, index)
        return self._snapshot(lambda committed: self._head(name, committed)[0])

    def chunk(
        self,
        table: str,
        namespace: str,
        index: bytes,
        position: list[int] | None,
        limit: int | None,
        newest_first: bool,
        with_values: bool = True,
    ) -> list[Item]:
        """Return up to ``limit`` records strictly beyond a position [created or 0, insertion].

        Without values each has None in the place of its value. Costs a descent of the list and a
        lookup per record.
        """
        name = list_name(table, namespace, index)
        scope = self.scope(table, namespace)

        def read(committed: int) -> list[Item]:
            _, root = self._head(name, committed)
            if root is None:
                return []
            beyond = None if position is None else _position(root, position)
            entries = self._listed(scope, root, beyond, limit, newest_first, committed)
            return [self.load_item(entry, with_values) for entry in entries]

        return self._snapshot(read)

    def page(
        self, table: str, namespace: str, limit: int, after: Key | None, before: Key | None
    ) -> list[Any]:
        """Return [values, has more]: a page of a table whose records carry ``created``, newest
        first, after or just before a record, which may have been deleted meanwhile.

        Errors: ``UnknownCursor``. Costs a lookup per record, whatever the table's size.
        """
        name = list_name(table, namespace)
        scope = self.scope(table, namespace)
        cursor = after if before is None else before
        newest_first = before is None

        def read(committed: int) -> list[Any] | None:
            beyond = None if cursor is None else self._cursor(scope, cursor, committed)
            if cursor is not None and beyond is None:
                return None
            _, root = self._head(name, committed)
            if root is None:
                return [[], False]
            entries = self._listed(scope, root, beyond, limit + 1, newest_first, committed)
            values = [load_value(self._words, self._data, entry) for entry in entries[:limit]]
            return [values if newest_first else values[::-1], len(entries) > limit]

        page = self._snapshot(read)
        if page is None:
            raise UnknownCursor(
                f"cursor {cursor!r} names no record of {table!r} in namespace {namespace!r}, or "
                "one deleted too long ago; start again from the first page",
                cursor=cursor,
                table=table,
                namespace=namespace,
            )
        return page

    def info(self) -> dict[str, Any]:
        """Return the numbers of the header."""
        words = self._words
        return {
            "segment": self.segment_id.hex(),
            "capacity": self.capacity,
            "committed": words[COMMITTED_WORD],
            "free_clock": words[FREE_CLOCK_WORD],
            "horizon": words[HORIZON_WORD],
            "index_depth": words[ROOT_WORD] >> 56,
            "insertions": words[NEXT_INSERTION_WORD],
            "extended": words[EXTENT_END_WORD],
        }

    def _snapshot(self, read: Callable[[int], T]) -> T:
        words = self._words
        started = None
        for _ in range(READ_TRIES_MAX):
            clock, committed = read_begin(words)
            try:
                result = read(committed)
            except Overtaken:
                pass
            except _DAMAGED as error:
                if read_accept(words, clock):
                    raise CorruptSegment(f"the segment is damaged: {error}") from error
            else:
                if read_accept(words, clock):
                    return result
            self.retries += 1
            started = started or monotonic()
            if monotonic() - started > READ_SECONDS_MAX:
                break
        raise ReadStalled


def _position(root: Node, position: list[int]) -> Position:
    created, insertion = position
    return (sort_word(created) if root.width == 3 else 0), insertion
