"""Which way the writer's Python took: arcs between lines, as guidance for what is tried next."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

FOLLOWED = ("/shmstore/",)
"""Code of files whose path holds one of these is followed."""


class Arcs:
    """The arcs that were ever seen. Following costs several times what the code does."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, int]] = set()
        self._last = 0
        self._bases: dict[CodeType, int] = {}
        """Of code that is followed a number of its own; 0 of all other."""

    def __len__(self) -> int:
        return len(self.seen)

    def start(self) -> None:
        """Follow this thread."""
        self._last = 0
        sys.settrace(self._called)

    def stop(self) -> None:
        """Follow it no more."""
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        base = self._bases.get(code)
        if base is None:
            followed = any(part in code.co_filename for part in FOLLOWED)
            base = self._bases[code] = (len(self._bases) + 1) << 16 if followed else 0
        return self._stepped if base else None

    def _stepped(self, frame: FrameType, event: str, argument: Any) -> Any:
        here = self._bases[frame.f_code] + frame.f_lineno
        self.seen.add((self._last, here))
        self._last = here
        return self._stepped
