"""Looking things up in the memory of a segment: hashes, words, entries, list heads, items.

What these methods return may be garbage if the writer overtook them; they raise ``Damaged``,
``Overtaken``, ``IndexError`` or ``struct.error`` rather than follow a number out of the segment.
``Reader`` tells whether it mattered; the writer, whom nobody overtakes, uses them as they are.
"""

from __future__ import annotations

import mmap
from array import array
from itertools import islice
from typing import Any

from ..layout import (
    CLASS_HEAD,
    CLASS_MASK,
    ENTRY_HEADER_BYTES,
    INSERTION_MASK,
    KEY_SIZE_SHIFT,
    KIND_GHOST,
    KIND_SHIFT,
    SCOPE_FIELD,
    SECRET_WORD,
    SECRET_WORDS,
    SHAPE_FIELD,
    WORD_BYTES,
)
from .hashing import wyhash
from .index import candidates
from .order import Node, Position, walk
from .records import (
    Damaged,
    created_of,
    key_object,
    key_parts,
    list_name,
    load_key,
    load_shape,
    load_sort,
    load_value,
    visible,
)

Key = str | bytes
Item = list[Any]
"""[key, value if wanted, created or None, insertion number], as it also crosses the pipe."""


class Lookup:
    """The memory of one segment, and the ways through it."""

    def __init__(self, memory: mmap.mmap | memoryview) -> None:
        self._data = memoryview(memory)
        self._words = self._data.cast("Q")
        self._seed, *secret = self._words[SECRET_WORD : SECRET_WORD + SECRET_WORDS].tolist()
        self._secret = (secret[0], secret[1], secret[2], secret[3])

    def close(self) -> None:
        """Let go of the memory; nothing may be read afterwards."""
        self._words.release()
        self._data.release()

    # Hashes

    def scope(self, table: str, namespace: str) -> int:
        """Return the number by which the records of a table in a namespace are found."""
        return self.list_hash(list_name(table, namespace))

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

    # Entries. The words they return are indexes into the memory as 64-bit words; 0 is none.

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
