"""Values in the store: put there by one process, taken from there by any, as often as it likes.

The record of a value, under its key, tells how it is stored and holds what is small of it. All
else lies in tables of its own, see ``parts``; which these are is noted before they are written, so
that what a killed process left is found and removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ...client import Client
from ...errors import RecordTooLarge
from ...keys import Key
from ...table import Transaction
from . import dumping
from .culprit import shown
from .errors import NotShareable
from .keys import NoTableKey, exact_key, table_key
from .options import Options
from .parts import Parts, PartsWriter
from .rows import SharedMapping, SharedSequence, row_key
from .tabular import KINDS, Entangled, Together, is_tabular

_DEFAULT = Options()
_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple}


class Stored(NamedTuple):
    """How a value was stored."""

    form: str
    """"body" for all in one piece; "dict", "list" or "tuple" for row by row."""
    size: int
    """Bytes of it, without what the store adds."""
    rows: int
    """How many there are, if it is stored row by row; else 0."""


class Loaded(NamedTuple):
    """A value as a process gets it."""

    value: Any
    reusable: bool
    """Whether all who ask may get this one object, as nothing in it can be changed."""
    size: int
    """As in Stored."""


class _Record(NamedTuple):
    """What lies under the key of a value."""

    form: str
    name: str
    size: int
    token: str
    """Names the tables of the parts; "" if there are none."""
    rows: int = 0
    body: bytes | None = None
    """None if it is large, and a part."""
    flag: bool = False
    """Of a body: whether it is frozen. Of rows: whether some have keys beside them."""


def store(
    client: Client, table_name: str, key: Key, value: Any, options: Options = _DEFAULT
) -> Stored:
    """Put ``value`` under ``key``, in place of one that may be there; tell how it is stored.

    It is there for others when this returns, not before and not in part. One process at a time may
    store under a key. Raises NotShareable, StoreFull and what mutations raise: then nothing was
    changed. Costs a round trip for what is small; rows take some microseconds each.
    """
    with stage(client, table_name, key, value, options) as staged:
        with client.transaction() as transaction:
            staged.publish(transaction)
    return staged.stored


@contextmanager
def stage(
    client: Client, table_name: str, key: Key, value: Any, options: Options = _DEFAULT
) -> Iterator[Staged]:
    """Return a block in which all of ``value`` is in the store but its record, which tells of it.

    Somewhere in the block a transaction is to publish() that. An exception leaves nothing. Raises
    what store() raises.
    """
    if isinstance(value, (SharedMapping, SharedSequence)):
        value = value.copy()
    writing = _Writing(client, table_name, key, options.name)
    try:
        record = _in_rows(writing, value, options) or _in_one_piece(writing, value, options)
    except RecordTooLarge as error:
        raise _refused(f"has a part that is too large: {error}", value, options) from error
    try:
        yield Staged(table_name, key, record)
    except BaseException:
        writing.withdraw()
        raise
    writing.clear_earlier()


class Staged:
    """A value that waits for its record."""

    def __init__(self, table_name: str, key: Key, record: _Record) -> None:
        self._table_name = table_name
        self._key = key
        self._record = record

    @property
    def stored(self) -> Stored:
        """How it is stored."""
        return Stored(self._record.form, self._record.size, self._record.rows)

    def publish(self, transaction: Transaction) -> None:
        """Have the value be there for others, together with what else the transaction does."""
        transaction.table(self._table_name).put(self._key, tuple(self._record))


def load(client: Client, table_name: str, key: Key) -> Any:
    """Return the value under ``key``: equal to what was stored and of its types, all of it fresh.

    What is stored row by row comes as a SharedMapping or SharedSequence, arrays and other large
    buffers as read-only views. Any process may call it. RecordNotFound (a KeyError) if there is
    none; NotShareable if a pickled object cannot be made again here.
    """
    return fetch(client, table_name, key).value


def fetch(client: Client, table_name: str, key: Key) -> Loaded:
    """Return the value under ``key`` as load() does, with what there is to know of it."""
    record = _Record(*client.table(table_name)[key])
    parts = Parts(client, table_name, record.token, record.name)
    if record.form == "dict":
        return Loaded(SharedMapping(parts, record.rows, record.flag), True, record.size)
    if record.form != "body":
        kind = _SEQUENCES[record.form]
        return Loaded(SharedSequence(parts, record.rows, kind), True, record.size)
    body = parts.body() if record.body is None else record.body
    return Loaded(dumping.load(body, parts.view, record.name), record.flag, record.size)


def remove(client: Client, table_name: str, key: Key) -> bool:
    """Remove the value under ``key``, and what a killed process left there; tell if there was one.

    Who still uses rows of it gets ValueGone at the next touch; views stay as long as they are used.
    """
    removed = client.table(table_name).delete(key)
    tokens = client.table(f"{table_name}:parts")
    for token in tokens.get(key, ()):
        Parts(client, table_name, token, "").clear()
    tokens.delete(key)
    return removed


class _Writing:
    """A value while it is written: its parts, then its record."""

    def __init__(self, client: Client, table_name: str, key: Key, name: str) -> None:
        self._client = client
        self._table_name = table_name
        self._key = key
        self._name = name
        self._tokens = client.table(f"{table_name}:parts")
        self._earlier: list[str] = self._tokens.get(key, [])
        self.token = ""

    @contextmanager
    def parts(self) -> Iterator[PartsWriter]:
        """Return a block in which parts are written; an exception leaves none of them."""
        self.token = secrets.token_hex(8)
        self._note([*self._earlier, self.token])
        try:
            with self._parts(self.token).writer() as writer:
                yield writer
        except BaseException:
            self.withdraw()
            raise

    def clear_earlier(self) -> None:
        """Remove the parts of the value that was there, when the new one is."""
        if self._earlier:
            for token in self._earlier:
                self._parts(token).clear()
            self._note([self.token] if self.token else [])

    def withdraw(self) -> None:
        """Remove the parts, as the value will not be there."""
        if self.token:
            self._parts(self.token).clear()
            self._note(self._earlier)
            self.token = ""

    def _parts(self, token: str) -> Parts:
        return Parts(self._client, self._table_name, token, self._name)

    def _note(self, tokens: list[str]) -> None:
        if tokens:
            self._tokens.put(self._key, tokens)
        else:
            self._tokens.delete(self._key)


def _in_one_piece(writing: _Writing, value: Any, options: Options) -> _Record:
    body, buffers, frozen = dumping.dump(value, options)
    size = len(body) + sum(buffer.nbytes for buffer in buffers)
    inside = body if len(body) < options.buffer_bytes else None
    if inside is not None and not buffers:
        return _Record("body", options.name, size, "", 0, body, frozen)
    with writing.parts() as writer:
        for buffer in buffers:
            writer.put_buffer(buffer)
        if inside is None:
            writer.put_body(body)
    return _Record("body", options.name, size, writing.token, 0, inside, frozen)


def _in_rows(writing: _Writing, value: Any, options: Options) -> _Record | None:
    """Write the rows of ``value``, or none if it is not to be stored, or has none."""
    if options.as_table and type(value) not in KINDS:
        raise _refused("has no rows: as_table is for dicts, lists and tuples", value, options)
    if not is_tabular(value, options):
        return None
    try:
        with writing.parts() as writer:
            _write_rows(writer, value, options)
    except (NoTableKey, Entangled) as error:
        if options.as_table:
            reason = f"has a key that no row can have: {shown(error.args[0])}"
            raise _refused(reason, value, options) from error
        return None
    form = type(value).__name__
    exact_keys = writer.exact_keys > 0
    return _Record(form, options.name, writer.size, writing.token, len(value), None, exact_keys)


def _write_rows(writer: PartsWriter, value: Any, options: Options) -> None:
    together = Together()
    is_dict = type(value) is dict
    dumps = dumping.dump_each(value.values() if is_dict else value, options)
    for key, row in value.items() if is_dict else enumerate(value):
        stored = table_key(key) if is_dict else row_key(key)
        try:
            dumped = next(dumps)
        except NotShareable:
            dumped = dumping.dump(row, options._replace(name=f"{options.name}[{shown(key)}]"))
        if not options.as_table:
            together.add(row, dumped)
        for buffer in dumped.buffers:
            writer.put_buffer(buffer)
        writer.put_row(stored, dumped.body, exact_key(key, stored) if is_dict else None)


def _refused(reason: str, value: Any, options: Options) -> NotShareable:
    kind = type(value).__qualname__
    return NotShareable(
        f"{options.name} cannot be shared: {kind} {reason}", path=options.name, type=kind
    )
