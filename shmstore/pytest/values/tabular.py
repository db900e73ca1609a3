"""Which values are stored row by row: large dicts, lists and tuples of records."""

from __future__ import annotations

from typing import Any

from . import pickled
from .dumping import Dumped, dump_each
from .errors import NotShareable
from .options import Options

KINDS = frozenset({dict, list, tuple})
"""The types whose values have rows; exactly these."""
ROWS_MIN = 16
ROW_BYTES_MIN = 32
"""Rows that are smaller on average are no records: their entries would be larger than they are."""
TOGETHER_MAX = 512
_CHECKED_AT = (8, 64, TOGETHER_MAX)
REPEATED_MAX = 8
ROW_BYTES_SPARED = 512
"""What a row may take for itself without a question, in bytes."""


class Entangled(Exception):
    """The rows of a value are no records: what they hold is mostly held by others, too."""


def is_tabular(value: Any, options: Options) -> bool:
    """Tell whether to store ``value`` row by row. Dumps as many rows as make up the limit."""
    if type(value) not in KINDS or options.as_table is False:
        return False
    if options.as_table:
        return True
    if len(value) < ROWS_MIN:
        return False
    size = 0
    rows = value.values() if type(value) is dict else value
    try:
        for count, dumped in enumerate(dump_each(rows, options), 1):
            size += len(dumped.body)
            if size >= options.table_bytes:
                return size >= count * ROW_BYTES_MIN
    except NotShareable:
        pass  # the dump of the whole explains it
    return False


class Together:
    """Watches rows for what they have in common: each row is stored for itself, with all it holds.

    A few defaults or categories that many rows refer to are no trouble. But where rows refer to
    each other, or all to something large, the rows could be many times as large as the value.
    """

    def __init__(self) -> None:
        self._rows: list[Any] = []
        self._apart = 0

    def add(self, row: Any, dumped: Dumped) -> None:
        """Take note of a row. Raises Entangled."""
        self._rows.append(row)
        self._apart += len(dumped.body) + sum(buffer.nbytes for buffer in dumped.buffers)
        if len(self._rows) in _CHECKED_AT:
            self._check()
        if len(self._rows) == TOGETHER_MAX:
            self._rows = []
            self._apart = 0

    def _check(self) -> None:
        """Compare with the size of one pickle, in which each object stands once."""
        spared = ROW_BYTES_SPARED * len(self._rows)
        if self._apart <= spared:
            return
        data, buffers = pickled.dump(self._rows)
        size = len(data) + sum(buffer.nbytes for buffer in buffers)
        if self._apart > REPEATED_MAX * size + spared:
            raise Entangled
