"""Looking things up in the memory of a segment: hashes, words, entries, list heads, items.

What these methods return may be garbage if the writer overtook them; they raise ``Damaged``,
``Overtaken``, ``IndexError`` or ``struct.error`` rather than follow a number out of the segment.
``Reader`` tells whether it mattered; the writer, whom nobody overtakes, uses them as they are.
"""

from __future__ import annotations

import mmap
from array import array
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from ..layout import (
    CLASS_HEAD,
    CLASS_MASK,
    CLASS_PIN,
    DEAD,
    EMPTY,
    ENTRY_HEADER_BYTES,
    GRANULE_BITS,
    GRANULE_BYTES,
    GRANULE_MASK,
    INSERTION_MASK,
    KEY_SIZE_SHIFT,
    KIND_GHOST,
    KIND_SHIFT,
    PIN_SCOPE,
    PREV_FIELD,
    SCOPE_FIELD,
    SECRET_WORD,
    SECRET_WORDS,
    SEGMENT_SLOT_BITS,
    SEGMENT_SLOTS,
    SEQ_FIELD,
    SHAPE_FIELD,
    TAG_MASK,
    VACATED,
    WORD_BYTES,
)
from .hashing import Secret, wyhash
from .index import candidates, segment_at
from .order import Node, Position, walk
from .records import (
    Damaged,
    created_of,
    key_object,
    key_parts,
    list_name,
    load_key,
    load_pin,
    load_shape,
    load_sort,
    load_value,
    visible,
)

_WORDS = GRANULE_BYTES // WORD_BYTES
_SLOT_MASK = SEGMENT_SLOTS - 1
_KEY_SIZE_OVER_KIND = KEY_SIZE_SHIFT - KIND_SHIFT
_REMEMBERED_KEYS = 2048
_REMEMBERED_KEY_MAX = 64

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
        self._hash_key = partial(_hash_key, self._secret)
        self._remembered = lru_cache(_REMEMBERED_KEYS)(self._hash_key)

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
        """Return (hash, class, bytes) of a record's key, at best from memory: hashing costs as
        much as all else of a lookup. Errors: ``InvalidKey``."""
        try:
            if len(key) <= _REMEMBERED_KEY_MAX:
                return self._remembered(scope, key)
        except TypeError:
            pass  # no key at all
        return self._hash_key(scope, key)

    def pin_hash(self, key: bytes) -> int:
        """Return the hash that leads to the word of a pin."""
        return wyhash(key, PIN_SCOPE ^ CLASS_PIN, self._secret)

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
        # What ``candidates``, ``matches`` and ``visible`` most often do: calling them would cost
        # as much again.
        words, slot = self._words, word_hash & _SLOT_MASK
        tag = word_hash >> SEGMENT_SLOT_BITS & TAG_MASK
        base = segment_at(words, word_hash)
        for _ in range(SEGMENT_SLOTS):
            word = words[base + slot]
            if word == EMPTY:
                return 0
            if word >> GRANULE_BITS == tag and word != VACATED:
                entry = (word & GRANULE_MASK) * _WORDS
                if words[entry + SCOPE_FIELD] == scope:
                    shape = words[entry + SHAPE_FIELD] >> KIND_SHIFT
                    start, size = entry * WORD_BYTES + ENTRY_HEADER_BYTES, len(key)
                    if (
                        shape >> _KEY_SIZE_OVER_KIND == size
                        and shape & CLASS_MASK == key_class
                        and self._data[start : start + size] == key
                    ):
                        dead = words[entry + PREV_FIELD] & DEAD
                        if words[entry + SEQ_FIELD] <= committed and not dead:
                            return entry
                        return visible(words, entry, committed)
            slot = slot + 1 & _SLOT_MASK
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

    def load_pin(self, entry: int) -> tuple[bytes, int]:
        """Return (holder, granule) of the pin at word ``entry``."""
        return load_pin(self._words, self._data, entry)

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


def _hash_key(secret: Secret, scope: int, key: Key) -> tuple[int, int, bytes]:
    key_class, encoded = key_parts(key)
    return wyhash(encoded, scope ^ key_class, secret), key_class, encoded
