"""Segments in private memory for tests of the engine, and a writer that can die at any store."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

CAPACITY = 2 << 20


def nothing(offset: int, length: int) -> None:
    """Private memory is real from the start, and keeps what it has."""


class Segment:
    """A segment with its owner, in memory that a test may damage, copy and take over."""

    def __init__(self, engine: ModuleType, capacity: int = CAPACITY) -> None:
        self.engine = engine
        self.memory = mmap.mmap(-1, capacity)
        self.owner = engine.Owner.create(self.memory, nothing, nothing)

    @property
    def reader(self) -> Any:
        return self.owner.reader

    def put(self, key: str | bytes, value: bytes, table: str = "t") -> int:
        """Commit one record of a plain table."""
        version, _ = self.owner.put(table, "", key, value)
        self.owner.commit()
        return int(version)

    def get(self, key: str | bytes, table: str = "t") -> bytes | None:
        value: bytes | None = self.reader.get(self.reader.scope(table, ""), key)
        return value

    def take_over(self) -> None:
        """Let a new owner continue, as after the death of the present one."""
        self.owner.close()
        self.owner = self.engine.Owner.take_over(self.memory, nothing, nothing)

    def close(self) -> None:
        self.owner.close()
        self.memory.close()


@contextmanager
def copy_of(memory: mmap.mmap) -> Iterator[mmap.mmap]:
    """A copy of the memory, to be taken over or damaged."""
    with mmap.mmap(-1, len(memory)) as twin:
        twin[:] = memory[:]
        yield twin


class StoreCounter:
    """Stands in the place of a memoryview and calls back before each store.

    It sees what another process would: every store to the segment is one step of the writer's
    life, and the writer may be killed before any of them.
    """

    def __init__(self, view: memoryview, before_store: Callable[[], None]) -> None:
        self._view = view
        self._before_store = before_store

    def __getitem__(self, at: Any) -> Any:
        return self._view[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        self._before_store()
        self._view[at] = value

    def __len__(self) -> int:
        return len(self._view)

    def release(self) -> None:
        self._view.release()


def watch_stores(owner: Any, before_store: Callable[[], None]) -> None:
    """Call back before each store that ``owner`` makes to its segment."""
    staging = owner._staging
    owner._data = staging._data = StoreCounter(owner._data, before_store)
    words = StoreCounter(owner._words, before_store)
    for holder in (owner, owner._clock, owner._lists, staging, staging.heap, staging.index):
        holder._words = words
