"""Where the parts of a value lie that are no part of its record: rows, keys and buffers.

Each value has tables of its own for them, named by a token that no other value ever has, so that
who still uses a value that was replaced never meets parts of the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...client import Client
from ...codec import accept_packed, bytes_head
from ...errors import LimitReached, ProcessUnseen, RecordNotFound
from ...keys import Key
from ...table import Table
from .errors import ValueGone

BATCH_BYTES = 1 << 18
BATCH_RECORDS = 1024
_ALIGNMENT = 64
_BINARY_HEADER_BYTES = 5
_PADDING = bytes(_ALIGNMENT - _BINARY_HEADER_BYTES)
"""Stored before a buffer, which then begins where arrays like to: values begin, with the header of
msgpack, at multiples of 64."""
_BODY = "body"


class Parts:
    """The tables of the parts of one value. Usable wherever its client is, also after a fork."""

    def __init__(self, client: Client, table_name: str, token: str, name: str) -> None:
        self._client = client
        self.name = name
        """What errors call the value."""
        self.rows = client.table(f"{table_name}:{token}:rows")
        self.keys = client.table(f"{table_name}:{token}:keys")
        self._buffers = client.table(f"{table_name}:{token}:buffers")

    def view(self, number: int) -> memoryview:
        """Return a buffer as it lies in the store, read-only; it stays as long as it is used.

        Where the store cannot keep it for this process, a copy. ValueGone if it was removed.
        """
        key = _number(number)
        try:
            data = self._buffers.view(key)
        except RecordNotFound:
            raise self.gone() from None
        except (LimitReached, ProcessUnseen):
            data = memoryview(self._found(key))
        return data[len(_PADDING) :]

    def body(self) -> bytes:
        """Return what was put by put_body(). ValueGone if it was removed."""
        return self._found(_BODY)

    def _found(self, key: Key) -> bytes:
        data: bytes | None = self._buffers.get(key)
        if data is None:
            raise self.gone()
        return data

    def gone(self) -> ValueGone:
        """Return the error that says that parts are not there any more."""
        return ValueGone(
            f"{self.name} was removed from the store: it can be used until its fixture is torn down"
        )

    def clear(self) -> None:
        """Remove all parts. What is viewed stays as long as it is."""
        for table in (self.rows, self.keys, self._buffers):
            table.clear()

    @contextmanager
    def writer(self) -> Iterator[PartsWriter]:
        """Return a block in which parts are written; all are there when it has ended."""
        with self._client.pipeline() as line:
            tables = (line.table(table.name) for table in (self.rows, self.keys, self._buffers))
            writer = PartsWriter(*tables)
            yield writer
            writer.flush()


class _Pieces:
    """A record of bytes in pieces, which are copied once: each copy takes memory, and time."""

    def __init__(self, *pieces: bytes | memoryview) -> None:
        self._pieces = pieces

    def packed(self) -> bytes:
        """Return the record as msgpack."""
        return b"".join((bytes_head(sum(map(len, self._pieces))), *self._pieces))

    def copy(self) -> bytes:
        """Return the record."""
        return b"".join(self._pieces)


accept_packed(_Pieces)


class PartsWriter:
    """Writes parts, rows in batches, and goes on while the store takes them."""

    def __init__(self, rows: Table, keys: Table, buffers: Table) -> None:
        self._rows = rows
        self._keys = keys
        self._buffers = buffers
        self._waiting: dict[Key, bytes] = {}
        self._waiting_bytes = 0
        self.size = 0
        """Bytes of all parts so far."""
        self.exact_keys = 0
        """How many rows have a key kept beside them."""
        self.buffers = 0
        """How many buffers there are."""

    def put_row(self, key: Key, body: bytes, exact_key: bytes | None) -> None:
        """Write a row, and its key if there is more to it."""
        self._waiting[key] = body
        self._waiting_bytes += len(body)
        self.size += len(key) + len(body)
        if exact_key is not None:
            self._keys.put(key, exact_key)
            self.size += len(key) + len(exact_key)
            self.exact_keys += 1
        if self._waiting_bytes >= BATCH_BYTES or len(self._waiting) >= BATCH_RECORDS:
            self.flush()

    def put_buffer(self, buffer: memoryview) -> None:
        """Write the next buffer; they are numbered from 0 on."""
        self._buffers.put(_number(self.buffers), _Pieces(_PADDING, buffer))
        self.size += buffer.nbytes
        self.buffers += 1

    def put_body(self, body: bytes) -> None:
        """Write a body that is too large for the record of its value."""
        self._buffers.put(_BODY, _Pieces(body))
        self.size += len(body)

    def flush(self) -> None:
        """Send the rows that wait."""
        if self._waiting:
            self._rows.put_many(self._waiting)
            self._waiting = {}
            self._waiting_bytes = 0


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big")
