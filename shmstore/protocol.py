"""What travels over the pipe: frames, requests, answers and their limits. No input or output here.

FRAME      as ``multiprocess.connection`` writes it: the length as four bytes, big-endian and
           signed, then the message; beyond 2 GiB the four bytes are -1 and eight more follow
REQUEST    [id, oldest id that has no answer yet, operation, [arguments]]
ANSWER     [id, 0, result]   or   [id, error code, error message, {details}]

The first request of a connection is ``[0, 0, "hello", [PROTOCOL_VERSION, client id]]``. Its answer,
``{"pid", "segment", "capacity", "format"}``, carries the read-only descriptor of the segment.
Ids of one client grow from 1, over all its connections; those of waits, which are answered at some
time or never, grow from WAIT_ID_MIN, and hold up no others. An answer with id 0 after the hello
means that the peer sent what the protocol does not allow; the connection is closed behind it.

A client that lost its connection because the writer died resends, in order of id and with the same
client id, what has no answer. A new writer remembers the clients of the old one for
``SESSION_SECONDS``: a request first sent longer ago than that, seen when the hello is answered,
must not be resent. Who hangs up itself is forgotten at once, and needs a new client id.
"""

from __future__ import annotations

import reprlib
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

from . import layout
from .codec import bytes_head, message_pack, message_unpack
from .engine import quick_answers, quick_frame, quick_messages
from .errors import ProtocolError, RecordTooLarge, ShmstoreError, rebuild

PROTOCOL_VERSION = 1
FRAME_BYTES_MAX = layout.VALUE_BYTES_MAX + (1 << 20)
LARGE_BYTES = 1 << 18
"""To copy more than this takes longer than to avoid it; wire.h leaves it to us."""
INDEXES_MAX = 64
"""Indexes of one table, over all declarations."""
IN_FLIGHT_MAX = 256
"""Requests of one client that may wait for an answer at the same time."""
ID_MAX = (1 << 63) - 1
WAIT_ID_MIN = 1 << 62
WAITS_MAX = 1024
"""Records one connection may wait for at the same time."""
VIEWS_MAX = 4096
"""Values one process may look at without a copy, at the same time."""
VIEW_BYTES_SHARE = 0.75
"""The part of the capacity that these may have together."""
CLIENT_ID_BYTES = 16
SESSION_SECONDS = 60.0

MUTATIONS = frozenset(
    {
        "put", "insert", "setdefault", "pop", "popitem", "delete", "delete_many", "put_many",
        "increment", "patch", "cas", "clear", "upsert", "store_patch", "clear_all",
        "delete_where", "declare", "transaction", "pin",
    }
)  # fmt: skip
INQUIRIES = frozenset(
    {"read", "ping", "stats", "check", "hold", "share", "unpin", "wait", "unwait"}
)
"""What changes no record: never recorded, and done again when it is sent again."""
OPERATIONS = MUTATIONS | INQUIRIES | {"hello", "bye"}
READ_METHODS = frozenset(
    {"get", "get_versioned", "version", "contains", "get_many", "count", "chunk", "page", "info"}
)
"""The methods of a Reader that "read" may name."""

_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!Q")
_SHORT_MAX = 0x7FFFFFFF
_LONG_FOLLOWS = -1


class Request(NamedTuple):
    """What a client asks for."""

    id: int
    oldest: int
    operation: str
    arguments: list[Any]


class Answer(NamedTuple):
    """What became of the request ``id``: ``error`` if it failed, else ``result``."""

    id: int
    result: Any
    error: ShmstoreError | None


def frame(message: bytes) -> bytes:
    """Return ``message`` as it travels on the socket. RecordTooLarge beyond FRAME_BYTES_MAX."""
    return _frame_head(len(message)) + message


def _frame_head(size: int) -> bytes:
    if size > FRAME_BYTES_MAX:
        raise _too_large(size)
    if size > _SHORT_MAX:
        return _SHORT.pack(_LONG_FOLLOWS) + _LONG.pack(size)
    return _SHORT.pack(size)


class FrameDecoder:
    """Cuts a stream of bytes into messages, however it was torn on its way.

    It holds what has arrived and not more, whatever length a header claims.
    """

    __slots__ = ("_buffer", "_bytes_max", "missing")

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self.missing = _SHORT.size
        """The bytes without which nothing more can be decoded."""

    @property
    def inside(self) -> bool:
        """Whether the stream, if it ended here, would end in the middle of a frame."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes | bytearray]:
        """Return the messages that ``data`` completes, oldest first.

        ProtocolError for a length that is negative or beyond the limit; the stream cannot be
        decoded any further then.
        """
        position, total = 0, len(data)
        if not self._buffer and total >= _SHORT.size:
            size = _SHORT.unpack_from(data)[0]
            if size == total - _SHORT.size and size <= self._bytes_max:
                return [data[_SHORT.size :]]  # one message and nothing else, as most often
            if (whole := quick_messages(data, self._bytes_max)) is not None:
                return whole
        messages: list[bytes | bytearray] = []
        while position < total:
            if not self._buffer and total - position >= _SHORT.size:
                start = position + _SHORT.size
                size = _SHORT.unpack_from(data, position)[0]
                if 0 <= size <= self._bytes_max and start + size <= total:
                    position = start + size
                    messages.append(data[start:position])
                    continue
            step = min(total, position + self.missing)
            self._buffer += data[position:step]
            self.missing -= step - position
            position = step
            if not self.missing:
                self._advance(messages)
        return messages

    def _advance(self, messages: list[bytes | bytearray]) -> None:
        """Take in the part of a frame that is complete now: some of its header, or all of it."""
        header, size = self._header()
        self.missing = header + (size or 0) - len(self._buffer)
        if size is not None and not self.missing:
            message, self._buffer = self._buffer, bytearray()
            del message[:header]
            messages.append(message)
            self.missing = _SHORT.size

    def _header(self) -> tuple[int, int | None]:
        """Return the length of the header, and the size it names if it is complete."""
        size: int = _SHORT.unpack_from(self._buffer)[0]
        header = _SHORT.size
        if size == _LONG_FOLLOWS:
            header += _LONG.size
            if len(self._buffer) < header:
                return header, None
            size = _LONG.unpack_from(self._buffer, _SHORT.size)[0]
        if size < 0:
            raise ProtocolError(f"a frame of negative length: {size}", size=size)
        if size > self._bytes_max:
            raise ProtocolError(
                f"a frame of {size} bytes; the limit is {self._bytes_max}",
                size=size,
                limit=self._bytes_max,
            )
        return header, size


def frame_request(request_id: int, oldest: int, operation: str, arguments: list[Any]) -> bytes:
    """Return a request as it travels. RecordTooLarge beyond FRAME_BYTES_MAX."""
    quick = quick_frame(request_id, oldest, operation, arguments)
    if quick is not None:
        return quick
    last = arguments[-1] if arguments else None
    if type(last) is bytes and len(last) >= LARGE_BYTES:
        return _frame_large(request_id, oldest, operation, arguments[:-1], last)
    return frame(build_request(request_id, oldest, operation, arguments))


def _frame_large(
    request_id: int, oldest: int, operation: str, arguments: list[Any], last: bytes
) -> bytes:
    """Return a request that ends with ``last``, which is copied once."""
    message = build_request(request_id, oldest, operation, [*arguments, b""])
    before = message.removesuffix(bytes_head(0)) + bytes_head(len(last))
    return b"".join((_frame_head(len(before) + len(last)), before, last))


def build_request(request_id: int, oldest: int, operation: str, arguments: list[Any]) -> bytes:
    """Return the message of a request. RecordTooLarge beyond FRAME_BYTES_MAX."""
    return _bounded(message_pack([request_id, oldest, operation, arguments]))


def parse_request(message: bytes | bytearray) -> Request:
    """Return the request that ``message`` holds; ProtocolError says what is wrong with it."""
    fields = _fields(message, "request")
    if len(fields) != 4:
        raise ProtocolError(f"a request has 4 fields, this one {len(fields)}")
    request_id, oldest, operation, arguments = fields
    if type(request_id) is not int or not 0 <= request_id <= ID_MAX:
        raise _bad_id(request_id, "request")
    if type(oldest) is not int or not 0 <= oldest <= request_id:
        raise ProtocolError(
            f"request {request_id}: the oldest id without an answer is {_brief(oldest)}"
        )
    if request_id - oldest >= IN_FLIGHT_MAX:
        raise ProtocolError(
            f"request {request_id}: {request_id - oldest + 1} wait for an answer; "
            f"the limit is {IN_FLIGHT_MAX}"
        )
    if type(operation) is not str or operation not in OPERATIONS:
        raise ProtocolError(f"request {request_id}: unknown operation {_brief(operation)}")
    if type(arguments) is not list:
        raise ProtocolError(f"request {request_id}: the arguments are not a list")
    return Request(request_id, oldest, operation, arguments)


def parse_hello(request: Request) -> tuple[int, bytes]:
    """Return the protocol version and the client id of a connection's first request."""
    if request.operation != "hello" or request.id != 0:
        raise ProtocolError(f"the first request is {request.operation!r} and not a hello")
    if len(request.arguments) != 2:
        raise ProtocolError(f"a hello has 2 arguments, this one {len(request.arguments)}")
    version, client_id = request.arguments
    if type(version) is not int:
        raise ProtocolError(f"the protocol version of a hello is {_brief(version)}")
    if type(client_id) is not bytes or len(client_id) != CLIENT_ID_BYTES:
        raise ProtocolError(f"a client id has {CLIENT_ID_BYTES} bytes, this is {_brief(client_id)}")
    return version, client_id


def build_answer(request_id: int, result: Any) -> bytes:
    """Return the message that answers a request. RecordTooLarge beyond FRAME_BYTES_MAX."""
    return _bounded(message_pack([request_id, 0, result]))


def build_error(request_id: int, error: ShmstoreError) -> bytes:
    """Return the message that tells the client of ``error``; never fails."""
    try:
        return _bounded(message_pack([request_id, error.code, error.message, error.details]))
    except Exception:  # some detail cannot travel; the kind and the text matter more
        details = {str(name): _brief(value) for name, value in error.details.items()}
        text = error.message.encode("utf-8", "backslashreplace").decode()
        return message_pack([request_id, error.code, text, details])


def parse_answer(message: bytes | bytearray) -> Answer:
    """Return the answer that ``message`` holds; ProtocolError says what is wrong with it."""
    fields = _fields(message, "answer")
    if len(fields) < 3:
        raise ProtocolError(f"an answer of {len(fields)} fields")
    request_id, code = fields[0], fields[1]
    if type(request_id) is not int or not 0 <= request_id <= ID_MAX:
        raise _bad_id(request_id, "answer")
    if code == 0 and len(fields) == 3:
        return Answer(request_id, fields[2], None)
    if len(fields) != 4 or type(code) is not int or code < 1:
        raise ProtocolError(f"answer {request_id} has {len(fields)} fields and code {_brief(code)}")
    text, details = fields[2], fields[3]
    if type(text) is not str:
        raise ProtocolError(f"answer {request_id}: the error message is {_brief(text)}")
    if type(details) is not dict or not all(type(name) is str for name in details):
        raise ProtocolError(f"answer {request_id}: the error details are {_brief(details)}")
    return Answer(request_id, None, rebuild(code, text, details))


def parse_answers(decoder: FrameDecoder, data: bytes) -> Iterable[Answer | tuple[int, Any, None]]:
    """Return the answers that ``data`` completes in the stream of ``decoder``, oldest first.

    ProtocolError, at once or where the senseless one would come.
    """
    quick = None if decoder.inside else quick_answers(data)
    return map(parse_answer, decoder.feed(data)) if quick is None else quick


def _bounded(message: bytes) -> bytes:
    if len(message) > FRAME_BYTES_MAX:
        raise _too_large(len(message))
    return message


def _too_large(size: int) -> RecordTooLarge:
    return RecordTooLarge(
        f"a message of {size} bytes; the limit is {FRAME_BYTES_MAX}: send less at a time",
        size=size,
        limit=FRAME_BYTES_MAX,
    )


def _fields(message: bytes | bytearray, kind: str) -> list[Any]:
    try:
        fields = message_unpack(cast(bytes, message))
    except MemoryError:
        raise
    except Exception as error:  # whatever the decoder says of foreign bytes
        raise ProtocolError(f"{kind}: cannot be decoded: {error}") from None
    if type(fields) is not list:
        raise ProtocolError(f"{kind}: {_brief(fields)} and not a list")
    return fields


def _bad_id(value: Any, kind: str) -> ProtocolError:
    return ProtocolError(f"{kind}: the id is {_brief(value)}")


def _brief(value: Any) -> str:
    return reprlib.repr(value)
