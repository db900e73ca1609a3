"""A line on the terminal that says how far a long command is; nothing where there is none."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 30
REDRAW_SECONDS = 0.1
_ERASE = "\r\x1b[K"


class Progress:
    """Draws on ``stream`` (standard error unless given) if that is a terminal."""

    def __init__(self, total: int | None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._total = total
        self._started = time.monotonic()
        self._drawn = 0.0
        self.live = self._stream.isatty()

    def show(self, position: int, count: int) -> None:
        """Draw anew if it is time: ``position`` of the total, ``count`` of records."""
        now = time.monotonic()
        if self.live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            rate = count / max(now - self._started, 1e-3)
            self._stream.write(f"{_ERASE}{self._bar(position)}{count:,} records, {rate:,.0f}/s")
            self._stream.flush()

    def clear(self) -> None:
        """Erase the line, to print something in its place."""
        if self.live:
            self._stream.write(_ERASE)
            self._stream.flush()

    def _bar(self, position: int) -> str:
        if not self._total:
            return ""
        share = min(position / self._total, 1.0)
        return f"[{'#' * round(share * WIDTH):.<{WIDTH}}] {share:4.0%}  "
