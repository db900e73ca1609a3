"""What the demo shows: events as lines, a line that lives on a terminal, and the final table."""

from __future__ import annotations

import sys
import time
from typing import TextIO

LIVE_SECONDS = 0.2
LOG_SECONDS = 1.0
_ERASE = "\r\x1b[K"


class Screen:
    """Prints to ``stream`` (standard output unless given); draws if that is a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._started = self._shown = time.monotonic()

    def say(self, line: str) -> None:
        """Print an event, with the seconds since the demo began."""
        self.erase()
        passed = time.monotonic() - self._started
        print(f"{passed:5.1f} s  {line}", file=self._stream, flush=True)

    def show(self, line: str) -> None:
        """Show how things are: often on a terminal, as a line a second elsewhere."""
        now = time.monotonic()
        if now - self._shown < (LIVE_SECONDS if self._live else LOG_SECONDS):
            return
        self._shown = now
        if self._live:
            print(
                f"{_ERASE}{now - self._started:5.1f} s  {line}",
                end="",
                file=self._stream,
                flush=True,
            )
        else:
            self.say(line)

    def erase(self) -> None:
        """Take the live line away."""
        if self._live:
            print(_ERASE, end="", file=self._stream, flush=True)

    def table(self, rows: list[tuple[str, str]]) -> None:
        """Print the final figures."""
        width = max(len(name) for name, _ in rows)
        print(file=self._stream)
        for name, figure in rows:
            print(f"{name:<{width}}  {figure}", file=self._stream)
