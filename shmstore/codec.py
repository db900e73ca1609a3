"""Records to msgpack bytes and back; the only module that imports msgpack.

Packing first tries the plain packer. Only when that refuses, or when its bytes show something that
could read back unequal (a NaN, a timestamp), is the record walked: the walk finds the culprit and
names its path. Bytes of other processes are never decoded before their structure was skipped over,
so that what they declare is what they hold and no list is allocated for elements that do not exist.

All functions are pure and may be called by any process and thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import msgpack

from . import layout
from .errors import InvalidArgument, InvalidRecord, ProtocolError, RecordTooLarge
from .scrutiny import scrutinize

CANONICAL_BYTES_MAX = 1024
MESSAGE_MAP_MAX = 1024
"""Maps in messages are small; a bound keeps crafted keys from colliding at length."""
REUSED_BYTES_MAX = 1 << 16
"""A packer that packed more is not kept: its buffer never shrinks."""

# What may mean a NaN (or an infinity), or a timestamp: as a key, or beyond the years of datetime.
_SUSPECT = re.compile(rb"\xcb[\x7f\xff]|[\xd6\xd7]\xff|\xc7\x0c\xff").search
# Types of msgpack itself that msgpack alone can judge.
_OPAQUE = frozenset({msgpack.ExtType})

# msgpack never starts an object with this byte: what follows is one of our canonical forms.
_DIGEST = b"\xc1d"
_MAP = b"\xc1m"
_EXT = b"\xc1x"

_MAP_STARTS = frozenset(bytes((byte,)) for byte in (*range(0x80, 0x90), 0xDE, 0xDF))

_DECODE_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    msgpack.exceptions.UnpackException,
)

_plain_packer = partial(msgpack.Packer, strict_types=True, datetime=True, buf_size=4096)
decode = partial(msgpack.unpackb, strict_map_key=False, timestamp=3)
"""``unpack`` without its errors, for the engine."""
_scalar = partial(msgpack.packb, datetime=True)


# Types whose objects are packed already; the engines add theirs.
_packed_types: set[type] = set()


def accept_packed(*kinds: type) -> None:
    """Have ``pack`` take objects of these types, which have methods packed() and copy().

    packed() returns their msgpack bytes, copy() the plain objects that these stand for.
    """
    _packed_types.update(kinds)


def _as_plain(value: Any) -> Any:
    if type(value) is tuple:
        return list(value)
    if type(value) in _packed_types:
        return value.copy()
    raise TypeError(f"cannot pack a {type(value).__name__}")


_wide_packer = partial(_plain_packer, default=_as_plain)


def _reusing(make_packer: Callable[[], Any]) -> Callable[[Any], bytes]:
    """Return a function that packs with an idle packer: one is made only if all are in use.

    So threads, and whatever packing may call, never meet in one packer.
    """
    idle: list[Any] = []

    def packed(value: Any) -> bytes:
        try:
            packer = idle.pop()
        except IndexError:
            packer = make_packer()
        data: bytes = packer.pack(value)
        if len(data) <= REUSED_BYTES_MAX:
            idle.append(packer)
        return data

    return packed


class Packed:
    """Stands in a message for what it holds, packed."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def _opened(value: Any) -> Any:
    if type(value) is Packed:
        return decode(value.data)
    raise TypeError(f"cannot pack a {type(value).__name__}")


_packed = _reusing(_plain_packer)
_message_packed = _reusing(partial(msgpack.Packer, buf_size=4096, default=_opened))


Extension = msgpack.ExtType
"""A code and bytes: what stands in a dialect for an object that msgpack has no type for."""


def dialect(
    extended: Callable[[Any], Any],
    opened: Callable[[int, bytes], Any],
    listed: Callable[[list[Any]], Any],
) -> tuple[Callable[[Any], bytes], Callable[[Any], Any]]:
    """Return functions that pack and unpack msgpack with further types, for who keeps it to itself.

    ``extended`` makes an Extension, or a list, of what msgpack has no exact type for; ``opened``
    makes an object of an Extension's code and bytes, ``listed`` of a list. Text need not be
    Unicode. Both raise what msgpack does.
    """
    packer = partial(msgpack.Packer, strict_types=True, default=extended, buf_size=4096)
    narrow, wide = _reusing(packer), _reusing(partial(packer, unicode_errors="surrogatepass"))

    def packed(value: Any) -> bytes:
        try:
            return narrow(value)
        except UnicodeEncodeError:
            return wide(value)

    unpacked = partial(
        msgpack.unpackb,
        ext_hook=opened,
        list_hook=listed,
        strict_map_key=False,
        unicode_errors="surrogatepass",
    )
    return packed, unpacked


def pack(record: Any) -> bytes:
    """Return the record as msgpack.

    A record is None, a bool, an int of 64 bits, a float, str, bytes, an aware datetime, or lists,
    tuples (packed as arrays) and dicts of these; keys may be all of these that are no container
    and no datetime. Raises InvalidRecord, which names the path of what cannot be stored, and
    RecordTooLarge. What it returns reads back equal; a datetime keeps its instant, not its zone.
    """
    try:
        data = _packed(record)
    except Exception as error:
        return _pack_with_care(record, error)
    # Four single bytes are found much faster than the pattern.
    if (0xCB in data or 0xD7 in data or 0xD6 in data or 0xC7 in data) and _SUSPECT(data):
        scrutinize(record, _OPAQUE)
    return data if len(data) <= layout.VALUE_BYTES_MAX else _sized(data)


def _pack_with_care(record: Any, error: Exception) -> bytes:
    if type(record) in _packed_types:
        return _sized(record.packed())
    scrutinize(record, _OPAQUE, _packed_types)
    if not isinstance(error, TypeError):
        _refuse(error)
    try:
        data: bytes = _wide_packer().pack(record)
    except Exception as second_error:
        _refuse(second_error)
    return _sized(data)


def _refuse(error: Exception) -> NoReturn:
    if isinstance(error, MemoryError):
        raise error
    raise InvalidRecord(
        f"the record cannot be packed ({error or type(error).__name__}); "
        "make it smaller or less deeply nested",
        path="record",
    ) from error


def _sized(data: bytes) -> bytes:
    if len(data) > layout.VALUE_BYTES_MAX:
        raise RecordTooLarge(
            f"the record takes {len(data)} bytes as msgpack, "
            f"more than the {layout.VALUE_BYTES_MAX} a record may have; split it",
            size=len(data),
            limit=layout.VALUE_BYTES_MAX,
        )
    return data


def bytes_head(size: int) -> bytes:
    """Return what stands before so many bytes in msgpack."""
    if size <= 0xFF:
        return b"\xc4" + size.to_bytes(1, "big")
    if size <= 0xFFFF:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def unpack(data: bytes) -> Any:
    """Return the record that ``data`` holds, as fresh objects.

    ``data`` is a stored value, so it has been validated. Raises InvalidRecord where a foreign
    client stored what Python cannot represent (unhashable keys, text that is not UTF-8).
    """
    try:
        return decode(data)
    except _DECODE_ERRORS as error:
        raise _unreadable(error) from error


def validate(data: bytes) -> None:
    """Check bytes of another process: one whole msgpack object and nothing after it.

    Builds nothing and costs time in proportion to the bytes. Raises InvalidRecord or
    RecordTooLarge.
    """
    if type(data) is not bytes:
        raise InvalidRecord(
            f"a value travels as packed bytes, not as {type(data).__name__}", path="record"
        )
    _sized(data)
    if data[:1] == b"\xc6" and int.from_bytes(data[1:5], "big") == len(data) - 5:
        return
    unpacker = _unpacker(data)
    try:
        unpacker.skip()
    except _DECODE_ERRORS as error:
        raise _unreadable(error) from error
    if unpacker.tell() != len(data):
        raise InvalidRecord(
            f"{len(data) - unpacker.tell()} bytes follow the msgpack object; send one object",
            path="record",
        )


def split_map(data: bytes) -> dict[bytes, bytes] | None:
    """Return a packed mapping as packed values by packed key, or None if it is no mapping.

    Nothing is decoded, so no crafted key is ever hashed as an object. One text has one key, as
    ``pack`` makes it; of a key that stands twice the last counts. Raises InvalidRecord.
    """
    if not _is_map(data):
        return None
    unpacker = _unpacker(data)
    fields = {}
    try:
        for _ in range(unpacker.read_map_header()):
            start = unpacker.tell()
            unpacker.skip()
            middle = unpacker.tell()
            unpacker.skip()
            key = data[start:middle]
            if 0xD9 <= key[0] <= 0xDB:
                key = msgpack.packb(msgpack.unpackb(key))
            fields[key] = data[middle : unpacker.tell()]
    except _DECODE_ERRORS as error:
        raise _unreadable(error) from error
    return fields


def join_map(fields: dict[bytes, bytes]) -> bytes:
    """Return the packed mapping of what ``split_map`` returned. Raises RecordTooLarge."""
    header = msgpack.Packer().pack_map_header(len(fields))
    return _sized(header + b"".join(part for pair in fields.items() for part in pair))


def canonical(value: Any) -> bytes:
    """Return bytes that are the same for equal values of the same types, and only for these.

    1, 1.0 and True differ; a tuple is a list; maps are sorted; -0.0 is 0.0 and one NaN is every
    NaN; datetimes are instants. At most 1 KiB long: larger values are replaced by a digest, marked
    as such. Raises InvalidRecord.
    """
    return canonical_packed(pack(value))


def canonical_packed(data: bytes) -> bytes:
    """Return ``canonical`` of a validated packed value; no map is built from it.

    Raises InvalidRecord where the bytes cannot be decoded.
    """
    try:
        return _leaf(_decode_canonical(data))
    except _DECODE_ERRORS as error:
        raise _unreadable(error) from error


def index_name(field: str, value: Any) -> bytes:
    """Return the name of the index list of the records whose ``field`` is ``value``.

    Raises InvalidRecord if no record could hold the value.
    """
    return index_name_packed(field, pack(value))


def index_name_packed(field: str, data: bytes) -> bytes:
    """Return ``index_name`` for a value that is packed already. Raises InvalidRecord."""
    name: bytes = msgpack.packb([field, canonical_packed(data)])
    return name


def message_pack(message: Any) -> bytes:
    """Return a message of the pipe as bytes. Raises InvalidArgument if it cannot travel."""
    try:
        return _message_packed(message)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidArgument(f"an argument cannot be sent to the writer: {error}") from error


def message_unpack(data: bytes | bytearray) -> Any:
    """Return the message a peer sent; memory and time stay in proportion to the bytes.

    Raises ProtocolError.
    """
    try:
        if 0xDC in data or 0xDD in data:
            # A list is allocated at its declared length: let it prove that length first.
            _unpacker(data).skip()
        return msgpack.unpackb(data, strict_map_key=False, max_map_len=MESSAGE_MAP_MAX)
    except _DECODE_ERRORS as error:
        raise ProtocolError(f"the message is not msgpack: {error or repr(error)}") from error


class _Canonical:
    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data if len(data) <= CANONICAL_BYTES_MAX else _digest(data)


def _digest(data: bytes) -> bytes:
    from hashlib import blake2b  # which takes long to import, for what is rare

    return _DIGEST + blake2b(data, digest_size=32).digest()


def _leaf(value: Any) -> bytes:
    if type(value) is _Canonical:
        return value.data
    if type(value) is float:
        value = value + 0.0 if value == value else float("nan")
    return _Canonical(_scalar(value)).data


def _canonical_list(items: list[Any]) -> _Canonical:
    return _Canonical(_scalar([_leaf(item) for item in items]))


def _canonical_map(pairs: list[tuple[Any, Any]]) -> _Canonical:
    return _Canonical(_MAP + _scalar(sorted((_leaf(key), _leaf(value)) for key, value in pairs)))


def _canonical_ext(code: int, data: bytes) -> _Canonical:
    return _Canonical(_EXT + bytes((code,)) + data)


# The hooks work from the leaves up, so no depth of nesting meets Python's stack.
_decode_canonical = partial(
    msgpack.unpackb,
    strict_map_key=False,
    timestamp=0,
    list_hook=_canonical_list,
    object_pairs_hook=_canonical_map,
    ext_hook=_canonical_ext,
)


def _unpacker(data: bytes | bytearray) -> Any:
    unpacker = msgpack.Unpacker(
        strict_map_key=False, timestamp=3, max_buffer_size=max(len(data), 1)
    )
    unpacker.feed(data)
    return unpacker


def _is_map(data: bytes) -> bool:
    return data[:1] in _MAP_STARTS


def _unreadable(error: BaseException) -> InvalidRecord:
    reason = str(error) or type(error).__name__
    return InvalidRecord(f"the bytes are no readable msgpack record: {reason}", path="record")
