"""Reading the segment from any process, without a lock and without a store.

Each public method is one snapshot: it notes the clock and the committed sequence, reads, and is
accepted only if the horizon has not passed its clock meanwhile; else it starts over.
"""

from __future__ import annotations

import mmap
import sys
from array import array
from collections.abc import Callable, Iterable
from itertools import islice
from struct import error as StructError
from time import monotonic
from typing import Any, TypeVar

from ..errors import CorruptSegment, FormatMismatch, ReadStalled, ShmstoreError, UnknownCursor
from ..layout import (
    CAPACITY_WORD,
    CLASS_HEAD,
    CLASS_MASK,
    COMMITTED_WORD,
    ENTRY_HEADER_BYTES,
    EXTENT_END_WORD,
    FORMAT_VERSION,
    FREE_CLOCK_WORD,
    HORIZON_WORD,
    INSERTION_MASK,
    KEY_SIZE_SHIFT,
    KIND_GHOST,
    KIND_SHIFT,
    MAGIC,
    MAGIC_WORD,
    NEXT_INSERTION_WORD,
    READ_SECONDS_MAX,
    READ_TRIES_MAX,
    ROOT_WORD,
    SCOPE_FIELD,
    SECRET_WORD,
    SECRET_WORDS,
    SEGMENT_ID_WORD,
    SEQ_FIELD,
    SHAPE_FIELD,
    VERSION_WORD,
    WORD_BYTES,
)
from .clock import read_accept, read_begin
from .hashing import wyhash
from .index import candidates
from .order import Node, Position, walk
from .records import (
    Damaged,
    Overtaken,
    created_of,
    key_object,
    key_parts,
    list_name,
    load_key,
    load_shape,
    load_sort,
    load_value,
    sort_word,
    visible,
)

T = TypeVar("T")
Key = str | bytes
Item = list[Any]
"""[key, value if wanted, created or None, insertion number], as it also crosses the pipe."""


def is_formatted(memory: mmap.mmap) -> bool:
    """Tell whether a writer has laid out this segment."""
    return int.from_bytes(memory[MAGIC_WORD : MAGIC_WORD + WORD_BYTES], sys.byteorder) == MAGIC


class Reader:
    """Reads one segment; any process, any thread. Errors of all methods: ``CorruptSegment``,
    and ``ReadStalled`` when the writer overtook every try."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Errors: ``FormatMismatch`` if the memory holds no segment of this format."""
        if not is_formatted(memory):
            raise FormatMismatch("this memory holds no shmstore segment")
        self._data = memoryview(memory)
        self._words = self._data.cast("Q")
        try:
            self._check_header()
        except ShmstoreError:
            self.close()
            raise
        self.capacity = len(self._data)
        start = SEGMENT_ID_WORD * WORD_BYTES
        self.segment_id = bytes(self._data[start : start + 16])
        self._seed, *secret = self._words[SECRET_WORD : SECRET_WORD + SECRET_WORDS].tolist()
        self._secret = (secret[0], secret[1], secret[2], secret[3])
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

    def close(self) -> None:
        """Let go of the memory; nothing may be read afterwards."""
        self._words.release()
        self._data.release()

    # Public reads

    def scope(self, table: str, namespace: str) -> int:
        """Return the number by which the records of a table in a namespace are found."""
        return self.list_hash(list_name(table, namespace))

    def get(self, scope: int, key: Key) -> bytes | None:
        """Return a copy of the stored value, or None. Costs a hash, a probe and the copy."""
        word_hash, key_class, encoded = self.hash_key(scope, key)

        def read(committed: int) -> bytes | None:
            entry = self._record(word_hash, scope, key_class, encoded, committed)
            return load_value(self._words, self._data, entry) if entry else None

        return self._snapshot(read)

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

    # Hashes

    def list_hash(self, name: bytes) -> int:
        """Return the hash of a list's name: its scope, and the hash of its head's word."""
        return wyhash(name, self._seed, self._secret)

    def hash_key(self, scope: int, key: Key) -> tuple[int, int, bytes]:
        """Return (hash, class, bytes) of a record's key. Errors: ``InvalidKey``."""
        key_class, encoded = key_parts(key)
        return wyhash(encoded, scope ^ key_class, self._secret), key_class, encoded

    def entry_hash(self, entry: int) -> int:
        """Return the hash that leads to the word of the entry at word ``entry``."""
        shape = load_shape(self._words, entry)
        scope: int = self._words[entry + SCOPE_FIELD]
        if shape.key_class == CLASS_HEAD:
            return scope
        return wyhash(load_key(self._data, entry, shape), scope ^ shape.key_class, self._secret)

    # Inside the window

    def _snapshot(self, read: Callable[[int], T]) -> T:
        words = self._words
        started = None
        for _ in range(READ_TRIES_MAX):
            clock, committed = read_begin(words)
            try:
                result = read(committed)
            except Overtaken:
                pass
            except (Damaged, IndexError, StructError) as error:
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

    def _record(
        self, word_hash: int, scope: int, key_class: int, key: bytes, committed: int
    ) -> int:
        """Return the word of the version of a record that is seen, or 0."""
        entry = self._entry(word_hash, scope, key_class, key, committed)
        if entry and self._words[entry + SHAPE_FIELD] >> KIND_SHIFT & KIND_GHOST:
            return 0
        return entry

    def _entry(self, word_hash: int, scope: int, key_class: int, key: bytes, committed: int) -> int:
        for entry in candidates(self._words, word_hash):
            if self.matches(entry, scope, key_class, key):
                return visible(self._words, entry, committed)
        return 0

    def matches(self, entry: int, scope: int, key_class: int, key: bytes) -> bool:
        """Tell whether the entry at word ``entry`` belongs to this key."""
        words = self._words
        if words[entry + SCOPE_FIELD] != scope:
            return False
        shape = words[entry + SHAPE_FIELD]
        size = len(key)
        if shape >> KEY_SIZE_SHIFT != size or shape >> KIND_SHIFT & CLASS_MASK != key_class:
            return False
        start = entry * WORD_BYTES + ENTRY_HEADER_BYTES
        return bytes(self._data[start : start + size]) == key

    def _head(self, name: bytes, committed: int) -> tuple[int, Node | None]:
        """Return (count, root) of a list, (0, None) if it is empty."""
        scope = self.list_hash(name)
        entry = self._entry(scope, scope, CLASS_HEAD, name, committed)
        return self.load_head(entry) if entry else (0, None)

    def load_head(self, entry: int) -> tuple[int, Node]:
        """Return (count, root) from the list head at word ``entry``."""
        value = load_value(self._words, self._data, entry)
        if len(value) < 2 * WORD_BYTES or len(value) % WORD_BYTES:
            raise Damaged(f"a list head holds {len(value)} bytes")
        numbers = array("Q", value).tolist()
        return numbers[0], Node.parse(numbers[1:])

    def _listed(
        self,
        scope: int,
        root: Node,
        beyond: Position | None,
        limit: int | None,
        newest_first: bool,
        committed: int,
    ) -> list[int]:
        """Return the words of the records of a list beyond a position."""
        elements = walk(root, self._load_node, beyond, newest_first)
        return [
            self._inserted(word_hash, scope, position[1], committed)
            for position, word_hash in islice(elements, limit)
        ]

    def _load_node(self, granule: int, parent: Node) -> Node:
        return Node.load(self._words, granule, parent)

    def _inserted(self, word_hash: int, scope: int, insertion: int, committed: int) -> int:
        """Return the word of the record a list element stands for."""
        for entry in candidates(self._words, word_hash):
            if self._words[entry + SCOPE_FIELD] == scope:
                seen = visible(self._words, entry, committed)
                if seen and self._words[seen + SHAPE_FIELD] & INSERTION_MASK == insertion:
                    return seen
        raise Damaged(f"a list names record {insertion}, which is not in the index")

    def load_item(self, entry: int, with_value: bool = True) -> Item:
        """Return the record at word ``entry`` as an item."""
        shape = load_shape(self._words, entry)
        sort = load_sort(self._data, entry, shape)
        return [
            key_object(shape.key_class, load_key(self._data, entry, shape)),
            load_value(self._words, self._data, entry) if with_value else None,
            None if sort is None else created_of(sort),
            self._words[entry + SHAPE_FIELD] & INSERTION_MASK,
        ]

    def _cursor(self, scope: int, key: Key, committed: int) -> Position | None:
        word_hash, key_class, encoded = self.hash_key(scope, key)
        entry = self._entry(word_hash, scope, key_class, encoded, committed)
        if not entry:
            return None
        sort = load_sort(self._data, entry, load_shape(self._words, entry))
        return sort or 0, self._words[entry + SHAPE_FIELD] & INSERTION_MASK


def _position(root: Node, position: list[int]) -> Position:
    created, insertion = position
    return (sort_word(created) if root.width == 3 else 0), insertion
