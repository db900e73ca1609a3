"""Entries: how a record, ghost, list head or pin lies in its block; which version is seen.

Every function takes word indexes (``entry``: offset / 8), never pointers, and raises ``Damaged``
or ``IndexError`` rather than follow a number out of the segment: inside a reader's window any
word may be garbage, and only ``read_accept`` tells whether it mattered.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple
from zlib import crc32

from ..errors import InvalidKey
from ..keys import shown
from ..layout import (
    ALIGNED_VALUE_BYTES_MIN,
    CACHE_LINE_BYTES,
    CLASS_BYTES,
    CLASS_HEAD,
    CLASS_PIN,
    CLASS_STR,
    DEAD,
    ENTRY_HEADER_BYTES,
    GRANULE_BYTES,
    GRANULE_MASK,
    HOLDER_BYTES_MAX,
    INSERTION_MASK,
    KEY_BYTES_MAX,
    KEY_SIZE_SHIFT,
    KIND_GHOST,
    KIND_MASK,
    KIND_SHIFT,
    KIND_SORTED,
    NAME_BYTES_MAX,
    PIN_GRANULE_BYTES,
    PIN_SCOPE,
    PREV_FIELD,
    SCOPE_FIELD,
    SEQ_FIELD,
    SHAPE_FIELD,
    SORT_BIAS,
    SORT_WORD_BYTES,
    VACATED,
    VERSION_HOPS_MAX,
    WORD_BYTES,
)

_HEADER = Struct("<5Q")
_CHECKED = Struct("<IQQQ")


class Damaged(Exception):
    """A word holds what the format does not allow."""


class Overtaken(Exception):
    """The versions seen by this read are being replaced faster than it follows them."""


class Shape(NamedTuple):
    """The sizes of an entry and what follows from them."""

    key_size: int
    kind: int
    value_size: int

    @property
    def key_class(self) -> int:
        return self.kind & 3

    @property
    def is_known(self) -> bool:
        """Whether there are entries of this kind: heads and pins are neither ghosts nor sorted."""
        return self.kind in (CLASS_HEAD, CLASS_PIN) or self.key_class in (CLASS_STR, CLASS_BYTES)

    @property
    def is_record(self) -> bool:
        """Whether the entry has a value that can be pinned."""
        return self.key_class in (CLASS_STR, CLASS_BYTES) and not self.kind & KIND_GHOST

    @property
    def header_bytes(self) -> int:
        """Everything before the value, without the padding of an aligned value."""
        sort = SORT_WORD_BYTES if self.kind & KIND_SORTED else 0
        return ENTRY_HEADER_BYTES + self.key_size + sort

    @property
    def granules(self) -> int:
        """The size of the block; it does not depend on where the block lies."""
        size = self.header_bytes + self.value_size
        if self.value_size >= ALIGNED_VALUE_BYTES_MIN:
            size += CACHE_LINE_BYTES - 1
        return -(-size // GRANULE_BYTES)

    def value_start(self, offset: int) -> int:
        """The offset of the value of an entry at ``offset``."""
        start = offset + self.header_bytes
        if self.value_size >= ALIGNED_VALUE_BYTES_MIN:
            start = -(-start // CACHE_LINE_BYTES) * CACHE_LINE_BYTES
        return start


class Entry(NamedTuple):
    """What an entry says, apart from its key and value."""

    granule: int
    seq: int
    prev: int
    insertion: int
    scope: int
    shape: Shape
    checksum: int


def load_entry(words: memoryview, granule: int) -> Entry:
    """Return the entry in the block ``granule``. Errors: ``Damaged``."""
    fields = words[granule * 2 : granule * 2 + 5].tolist()
    if len(fields) < 5:
        raise Damaged(f"the entry at granule {granule} is outside the segment")
    sizes, seq, prev, shape, scope = fields
    return Entry(
        granule,
        seq,
        prev,
        shape & INSERTION_MASK,
        scope,
        Shape(shape >> KEY_SIZE_SHIFT, shape >> KIND_SHIFT & KIND_MASK, sizes & 0xFFFFFFFF),
        sizes >> 32,
    )


def load_shape(words: memoryview, entry: int) -> Shape:
    """Return the sizes of the entry at word ``entry``."""
    shape = words[entry + SHAPE_FIELD]
    return Shape(
        shape >> KEY_SIZE_SHIFT, shape >> KIND_SHIFT & KIND_MASK, words[entry] & 0xFFFFFFFF
    )


def load_key(data: memoryview, entry: int, shape: Shape) -> bytes:
    """Return the bytes of the key."""
    start = entry * WORD_BYTES + ENTRY_HEADER_BYTES
    return bytes(data[start : start + shape.key_size])


def load_sort(data: memoryview, entry: int, shape: Shape) -> int | None:
    """Return the sort word, or None if this kind has none."""
    if not shape.kind & KIND_SORTED:
        return None
    start = entry * WORD_BYTES + ENTRY_HEADER_BYTES + shape.key_size
    sort = bytes(data[start : start + SORT_WORD_BYTES])
    if len(sort) != SORT_WORD_BYTES:
        raise Damaged(f"the sort word of the entry at {entry * WORD_BYTES} is outside the segment")
    return int.from_bytes(sort, "little")


def load_value(words: memoryview, data: memoryview, entry: int) -> bytes:
    """Return a copy of the value of the entry at word ``entry``."""
    # Shape.value_start() once more, as every read of a record comes here.
    shape, size = words[entry + SHAPE_FIELD], words[entry] & 0xFFFFFFFF
    start = entry * WORD_BYTES + ENTRY_HEADER_BYTES + (shape >> KEY_SIZE_SHIFT)
    if shape >> KIND_SHIFT & KIND_SORTED:
        start += SORT_WORD_BYTES
    if size >= ALIGNED_VALUE_BYTES_MIN:
        start = -(-start // CACHE_LINE_BYTES) * CACHE_LINE_BYTES
    value = bytes(data[start : start + size])
    if len(value) != size:
        raise Damaged(f"the value of the entry at {entry * WORD_BYTES} is outside the segment")
    return value


def visible(words: memoryview, entry: int, committed: int) -> int:
    """Return the word of the version that batch ``committed`` sees, 0 if it sees none.

    Costs a step per batch that replaced the record since; beyond a few, ``Overtaken``.
    """
    for _ in range(VERSION_HOPS_MAX):
        prev = words[entry + PREV_FIELD]
        if words[entry + SEQ_FIELD] <= committed:
            return 0 if prev & DEAD and prev ^ DEAD <= committed else entry
        if prev & DEAD:
            # Written and deleted since this read began; the horizon will turn it away.
            raise Overtaken
        if prev <= VACATED:
            return 0
        entry = prev * 2
    raise Overtaken


def store_entry(data: memoryview, entry: Entry, key: bytes, sort: int | None, value: bytes) -> None:
    """Step 2: write an entry, whatever checksum it names, into a block no reader can reach."""
    shape, offset = entry.shape, entry.granule * GRANULE_BYTES
    shape_word = shape.key_size << KEY_SIZE_SHIFT | shape.kind << KIND_SHIFT | entry.insertion
    tail = key if sort is None else key + sort.to_bytes(SORT_WORD_BYTES, "little")
    crc = crc32(_CHECKED.pack(shape.value_size, entry.seq, shape_word, entry.scope))
    crc = crc32(value, crc32(tail, crc))
    sizes = shape.value_size | crc << 32
    head = _HEADER.pack(sizes, entry.seq, entry.prev, shape_word, entry.scope) + tail
    data[offset : offset + len(head)] = head
    start = shape.value_start(offset)
    data[start : start + shape.value_size] = value


def load_pin(words: memoryview, data: memoryview, entry: int) -> tuple[bytes, int]:
    """Return (holder, granule) of the pin at word ``entry``. Errors: ``Damaged``."""
    shape = load_shape(words, entry)
    key = load_key(data, entry, shape)
    size = len(key) - PIN_GRANULE_BYTES
    granule = int.from_bytes(key[max(size, 0) :], "little")
    # Not to be taken for a pin: a head, whose nodes would be free memory then.
    sound = 0 <= size <= HOLDER_BYTES_MAX and granule <= GRANULE_MASK
    if not sound or words[entry + SCOPE_FIELD] != PIN_SCOPE:
        raise Damaged(f"the entry at granule {entry * WORD_BYTES // GRANULE_BYTES} is no pin")
    return key[:size], granule


def entry_checksum(words: memoryview, data: memoryview, entry: Entry) -> int:
    """Return the CRC-32 the entry should carry: of its fixed fields, key, sort word and value."""
    shape, offset = entry.shape, entry.granule * GRANULE_BYTES
    shape_word = words[entry.granule * 2 + SHAPE_FIELD]
    crc = crc32(_CHECKED.pack(shape.value_size, entry.seq, shape_word, entry.scope))
    crc = crc32(data[offset + ENTRY_HEADER_BYTES : offset + shape.header_bytes], crc)
    start = shape.value_start(offset)
    return crc32(data[start : start + shape.value_size], crc)


def key_parts(key: object) -> tuple[int, bytes]:
    """Return (class, bytes) of a caller's key. Errors: ``InvalidKey``."""
    if type(key) is str:
        try:
            encoded = key.encode()
        except UnicodeEncodeError as error:
            raise InvalidKey(
                f"key {shown(key)} holds surrogate characters, which UTF-8 cannot carry; "
                "use a bytes key for arbitrary bytes",
                key=shown(key),
            ) from error
        key_class = CLASS_STR
    elif type(key) is bytes:
        encoded, key_class = key, CLASS_BYTES
    elif isinstance(key, str):
        return key_parts(str.__str__(key))
    elif isinstance(key, bytes):
        return key_parts(bytes(key))
    else:
        raise InvalidKey(
            f"a key is str or bytes, not {type(key).__name__} ({shown(key)}); convert it first",
            key=shown(key),
        )
    if len(encoded) > KEY_BYTES_MAX:
        raise InvalidKey(
            f"a key of {len(encoded):,} bytes is too long: at most {KEY_BYTES_MAX:,}; "
            "store a digest of it",
            size=len(encoded),
            limit=KEY_BYTES_MAX,
        )
    return key_class, encoded


def key_object(key_class: int, key: bytes) -> str | bytes:
    """Return the key as its caller gave it."""
    if key_class != CLASS_STR:
        return key
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"the key {key!r} is marked as text but is no UTF-8") from error


def list_name(table: str, namespace: str, index: bytes = b"") -> bytes:
    """Return the name of a list: a table in a namespace, or one value of an index of it.

    Errors: ``InvalidKey`` for names that are not text of at most 255 bytes of UTF-8.
    """
    return _name(table, "table name") + _name(namespace, "namespace") + index


def split_list_name(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Return (table, namespace, index) of a list's name, as bytes. Errors: ``Damaged``."""
    end = 1 + name[0] if name else 1
    last = end + 1 + name[end] if end < len(name) else end + 1
    if last > len(name):
        raise Damaged(f"a list has an unreadable name of {len(name)} bytes")
    return name[1:end], name[end + 1 : last], name[last:]


def holder_name(holder: object) -> bytes:
    """Return the name of a process that pins. Errors: ``InvalidKey``."""
    if type(holder) is bytes and len(holder) <= HOLDER_BYTES_MAX:
        return holder
    raise InvalidKey(
        f"a holder is named by bytes, at most {HOLDER_BYTES_MAX}, not by {shown(holder)}; name "
        "a process by its pid and start time",
        key=shown(holder),
    )


def pin_key(holder: bytes, granule: int) -> bytes:
    """Return the key of the pin by which a holder keeps a block."""
    return holder + granule.to_bytes(PIN_GRANULE_BYTES, "little")


def _name(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidKey(f"a {what} is a str, not {type(text).__name__} ({shown(text)})")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidKey(
            f"{what} {shown(text)} holds surrogate characters; use plain text"
        ) from error
    if len(encoded) > NAME_BYTES_MAX:
        raise InvalidKey(f"{what} {shown(text)} has {len(encoded)} bytes; at most {NAME_BYTES_MAX}")
    return bytes((len(encoded),)) + encoded


def sort_word(created: int) -> int:
    """Return the word that orders as ``created`` (64 bits, signed) does."""
    return created + SORT_BIAS


def created_of(sort: int) -> int:
    """The inverse of ``sort_word``."""
    return sort - SORT_BIAS
