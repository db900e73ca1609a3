"""``load``: records from a file into a table, in batches; says where to go on if it breaks off."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import shmstore
from shmstore.commands import options
from shmstore.commands.outcome import Exit, Misuse, complain
from shmstore.commands.progress import Progress
from shmstore.commands.sources import FORMATS, Entry, Lines, format_of
from shmstore.errors import InvalidKey, InvalidRecord, RecordTooLarge, ShmstoreError
from shmstore.store.schema import declare
from shmstore.table import Table

BATCH_RECORDS = 500
BATCH_BYTES = 4 << 20
"""Text in one batch; the records it makes are of about this size."""
ERRORS_MAX = 100
BAD_INPUT = (InvalidKey, InvalidRecord, RecordTooLarge)
MORE = """\
Each line is one record (CSV: one row, its values stay text), and --key names the field that is
its key; a whole number there becomes its digits. Without --key, the lines are those that
`shmstore dump` writes, and TABLE may be - for the table that each line names.

Records are stored in batches, each all or none, in the order of the lines. A line that cannot be
stored is reported as FILE:LINE: what is wrong; the others are stored and the exit status is 1.
When loading breaks off, it says from which line to go on.

examples:
  shmstore load mystore packages packages.jsonl --key package
  shmstore load mystore users users.csv --key email
  generate | shmstore load mystore events - --key id
  shmstore load mystore packages packages.jsonl --key package --from-line 1501
"""


def add_to(commands: options.Commands) -> None:
    """Add the command."""
    parser = options.add_command(commands, "load", load, "store the records of a file", MORE)
    options.add_server(parser)
    options.add_table(parser)
    parser.add_argument("file", metavar="FILE", help="the file; - is standard input")
    parser.add_argument("--key", metavar="FIELD", help="the field that is the key of its record")
    parser.add_argument(
        "--format", choices=sorted(FORMATS), help="default: csv if FILE ends so, else jsonl"
    )
    parser.add_argument(
        "--from-line", type=_positive, default=1, metavar="N", help="leave out the lines before"
    )
    parser.add_argument(
        "--max-errors",
        type=_positive,
        default=ERRORS_MAX,
        metavar="N",
        help="break off after so many lines that cannot be stored (default: %(default)s)",
    )


def load(arguments: argparse.Namespace) -> int:
    """Store the records of a file."""
    kind = arguments.format or format_of(arguments.file)
    if arguments.key is None and kind == "csv":
        raise Misuse("a CSV file needs --key COLUMN")
    if arguments.table == "-" and arguments.key is not None:
        raise Misuse("with --key the lines name no table: give one instead of -")
    with _opened(arguments.file) as stream, options.connect(arguments) as client:
        lines = Lines(stream)
        loader = Loader(client, arguments, Progress(_size(stream)))
        try:
            for entry in FORMATS[kind](lines, arguments.from_line):
                loader.take(entry, lines.bytes)
            loader.flush()
        except (ShmstoreError, KeyboardInterrupt):
            loader.broken_off()
            raise
        except TooManyErrors:
            loader.broken_off()
            return Exit.PROBLEM
        return loader.finish()


class Target(NamedTuple):
    """Where a record goes."""

    table: str
    namespace: str


class Waiting(NamedTuple):
    """A record of the batch that is being collected."""

    line: int
    key: Any
    value: Any


class TooManyErrors(Exception):
    """The file is probably not what the caller thinks it is."""


class Loader:
    """Collects records into batches, stores them, and keeps count of what went wrong."""

    def __init__(
        self, client: shmstore.Client, arguments: argparse.Namespace, progress: Progress
    ) -> None:
        self._client = client
        self._arguments = arguments
        self._progress = progress
        self._name = "stdin" if arguments.file == "-" else arguments.file
        self._target = Target(arguments.table, arguments.namespace)
        self._batch: deque[Waiting] = deque()
        self._batch_start = 0
        self._next_line = arguments.from_line
        self.stored = 0
        self.failed = 0

    def take(self, entry: Entry, position: int) -> None:
        """Store an entry, now or with those that follow; ``position`` is that in the file."""
        try:
            if entry.problem is not None:
                raise ValueError(entry.problem)
            self._sort_in(entry)
            self._next_line = entry.line + 1
        except ValueError as error:
            self._report(entry.line, error)
        if len(self._batch) >= BATCH_RECORDS or position - self._batch_start >= BATCH_BYTES:
            self.flush()
            self._batch_start = position
        self._progress.show(position, self.stored)

    def flush(self) -> None:
        """Store the batch; if it is refused, store one by one to find out which records are."""
        if not self._batch:
            return
        table = Table(self._client, *self._target)
        try:
            table.put_many((key, value) for _, key, value in self._batch)
            self.stored += len(self._batch)
            self._batch.clear()
        except BAD_INPUT:
            while self._batch:
                line, key, value = self._batch[0]
                try:
                    table.put(key, value)
                    self.stored += 1
                    self._batch.popleft()
                except BAD_INPUT as error:
                    self._batch.popleft()
                    self._report(line, error)

    def broken_off(self) -> None:
        """Say from which line to go on."""
        self._progress.clear()
        line = self._batch[0].line if self._batch else self._next_line
        complain(f"{self.stored} records stored; to go on: --from-line {line}")

    def finish(self) -> int:
        """Say what was done, to a person or if something went wrong; return the exit status."""
        self._progress.clear()
        if self._progress.live or self.failed:
            complain(f"{self.stored} records stored, {self.failed} lines failed")
        return Exit.PROBLEM if self.failed else Exit.DONE

    def _sort_in(self, entry: Entry) -> None:
        record, field = entry.record, self._arguments.key
        if not isinstance(record, dict):
            raise ValueError("not an object")
        if field is not None:
            if field not in record:
                raise ValueError(f"no field {field!r} to be the key")
            self._add(entry.line, self._target, record[field], record)
        elif "indexes" in record and "key" not in record:
            self._declare(self._target_of(record).table, record["indexes"])
        elif "key" in record and "value" in record:
            self._add(entry.line, self._target_of(record), record["key"], record["value"])
        else:
            raise ValueError('not a line of a dump, with "key" and "value"; or give --key FIELD')

    def _declare(self, table: str, indexes: Any) -> None:
        if not isinstance(indexes, list) or not all(isinstance(name, str) for name in indexes):
            raise ValueError('"indexes" is not a list of field names')
        declare(self._client, table, tuple(indexes))

    def _target_of(self, record: dict[str, Any]) -> Target:
        if self._arguments.table != "-":
            return Target(self._arguments.table, self._arguments.namespace)
        table, namespace = record.get("table"), record.get("namespace", "")
        if not table or not isinstance(table, str) or not isinstance(namespace, str):
            raise ValueError('the line names no "table"; give one in place of -')
        return Target(table, namespace)

    def _add(self, line: int, target: Target, key: Any, value: Any) -> None:
        if type(key) is int:
            key = str(key)
        if not isinstance(key, (str, bytes)):
            raise ValueError(f"a key is text or a whole number, not {key!r:.60}")
        if target != self._target:
            self.flush()
            self._target = target
        self._batch.append(Waiting(line, key, value))

    def _report(self, line: int, error: Exception) -> None:
        self.failed += 1
        self._next_line = max(self._next_line, line + 1)
        self._progress.clear()
        print(f"{self._name}:{line}: {error}", file=sys.stderr)
        if self.failed >= self._arguments.max_errors:
            raise TooManyErrors


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb")  # noqa: SIM115 (only opening it may fail in this way)
    except OSError as error:
        raise Misuse(f"{name}: {error.strerror}") from None
    with stream:
        yield stream


def _size(stream: BinaryIO) -> int | None:
    """Return the size of a regular file; that of anything else is not known."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")
    return int(text)
