"""A real segment to kill writers over, and what is known of its states."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import Any, NamedTuple

from shmstore import segment

from .operations import settle


class State(NamedTuple):
    """A committed state: what readers see, how much memory it takes when all is settled, and what
    is pinned."""

    contents: list[Any]
    figures: list[int]
    pinned: list[Any]


def settled_figures(owner: Any) -> list[int]:
    """Settle; return the shape of the index, and the bytes in use."""
    settle(owner)
    statistics = owner.statistics()
    return [statistics[name] for name in ("index_segments", "index_depth", "used")]


class Ground:
    """A real segment with readers attached to it for good."""

    def __init__(self, engines: Sequence[ModuleType], capacity: int) -> None:
        self.engines = engines
        with ExitStack() as stack:
            self.fd = segment.create(capacity)
            stack.callback(os.close, self.fd)
            self.memory = segment.map_writable(self.fd)
            stack.callback(self.memory.close)
            self.extents = segment.Extents(self.fd, self.memory)
            self.mapped = segment.map_readonly(self.fd)
            stack.callback(self.mapped.close)
            self.owner = self.own(engines[0].Owner.create)
            stack.callback(lambda: self.owner.close())
            self.readers = [engine.Reader(self.mapped) for engine in engines]
            for reader in self.readers:
                stack.callback(reader.close)
            self.close = stack.pop_all().close

    def own(self, take: Callable[..., Any]) -> Any:
        """Return the owner that ``Owner.create`` or ``Owner.take_over`` makes of this segment."""
        return take(self.memory, self.extents.extend, self.extents.release)

    @property
    def committed(self) -> int:
        """The sequence of the last batch."""
        return int(self.readers[0].info()["committed"])
