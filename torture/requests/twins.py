"""Two writers, one with each engine, to whom the same is said: they answer alike."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import ModuleType
from typing import Any
from unittest import mock

from shmstore import pure
from shmstore.engine import load_native
from shmstore.errors import InvalidArgument

from .bench import Bench
from .talker import Broken

SECRET_BYTES_MAX = 1024


class Twins:
    """Stands in the place of a Bench."""

    def __init__(self) -> None:
        self._cleanup = ExitStack()
        engines: list[ModuleType] = [pure, load_native()]
        secret = os.urandom(SECRET_BYTES_MAX)
        with mock.patch.object(os, "urandom", lambda size: secret[:size]):  # so the same places
            self._benches = [self._cleanup.enter_context(Bench(each.Owner)) for each in engines]

    @property
    def answers(self) -> int:
        return sum(bench.answers for bench in self._benches)

    @property
    def longest(self) -> float:
        return max(bench.longest for bench in self._benches)

    @property
    def full(self) -> bool:
        return any(bench.full for bench in self._benches)

    def do(self, event: list[Any]) -> None:
        """Let the same happen to both; raise Broken if they tell it from each other."""
        for bench in self._benches:
            bench.do(event)
        for one, other in zip(*(bench.heard for bench in self._benches), strict=True):
            for says, also in zip(one, other, strict=True):
                if says != also and not (_is_odd(says) or _is_odd(also)):
                    raise Broken(f"the engines differ: {says!r:.300} and {also!r:.300}")

    def end(self) -> None:
        """Raise Broken unless everything is sound in the end."""
        for bench in self._benches:
            bench.end()

    def close(self) -> None:
        """Close both."""
        self._cleanup.close()


def _is_odd(answer: Any) -> bool:
    """Tell whether a read was refused for its arguments: one engine may take what leads nowhere."""
    return isinstance(answer, list) and answer[1] == InvalidArgument.code
