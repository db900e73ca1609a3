"""Files of records: JSON lines and CSV, line by line, with what is wrong with each line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from shmstore.commands.notation import from_json
from shmstore.commands.outcome import Misuse

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Entry(NamedTuple):
    """What one line, or one CSV row of several lines, holds: a record, or what is wrong."""

    line: int
    record: Any
    problem: str | None = None


class Lines:
    """The lines of a stream; counts them, and their bytes, as they are taken."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            self.count += 1
            self.bytes += len(line)
            yield line.removeprefix(_BYTE_ORDER_MARK) if self.count == 1 else line


def json_lines(lines: Lines, first: int) -> Iterator[Entry]:
    """Yield a JSON value for each line from number ``first`` on that is not blank."""
    for line in lines:
        if lines.count >= first and not line.isspace():
            try:
                yield Entry(lines.count, from_json(line.decode().rstrip()))
            except UnicodeDecodeError as error:
                yield Entry(lines.count, None, f"not UTF-8 at byte {error.start + 1}")
            except ValueError as error:
                yield Entry(lines.count, None, str(error))


def csv_rows(lines: Lines, first: int) -> Iterator[Entry]:
    """Yield a dict of texts for each row that starts at line ``first`` or later.

    The first row of the file names the columns. Misuse if it cannot.
    """
    # A byte that is no UTF-8 becomes a surrogate, which no record takes: its line is reported.
    reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in lines)
    header = next(reader, [])
    if len(set(header)) != len(header):
        raise Misuse("line 1: two columns have the same name")
    while True:
        line = lines.count + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield Entry(line, None, f"not CSV: {error}")
            continue
        if row is None:
            return
        if row and line >= first:
            yield _row_entry(line, header, row)


def _row_entry(line: int, header: list[str], row: list[str]) -> Entry:
    if len(row) != len(header):
        return Entry(line, None, f"{len(row)} fields, where the header has {len(header)}")
    return Entry(line, dict(zip(header, row, strict=True)))


FORMATS: dict[str, Callable[[Lines, int], Iterator[Entry]]] = {"jsonl": json_lines, "csv": csv_rows}


def format_of(name: str) -> str:
    """Return the format of a file by its suffix; JSON lines unless that says CSV."""
    return "csv" if name.lower().endswith(".csv") else "jsonl"
