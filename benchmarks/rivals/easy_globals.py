"""EasyGlobals: variables in shared memory, one writer for each, lock-free reads.

As its documentation advises: a namespace with a capacity and as many slots as there are records,
processes that are no forks of a process with an open handle, the dict-style interface. Bytes are
stored as they are, other objects pickled. Only the process that wrote a record may change it, so
there are no increments by many; there are no batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from EasyGlobals import Globals

from ..records import Dataset
from .base import Rival, Session


class Easy(Rival):
    """A namespace of its own; it lives while a process has it open."""

    name = "EasyGlobals"
    packs = False
    _globals: Any = None

    @classmethod
    def version(cls) -> str:
        return f"EasyGlobals {version('easyglobals')}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        room = 4 * dataset.stored_bytes() + dataset.records * 512
        slots = 2 * dataset.records + 8192
        self.address = f"bench_{os.getpid()}_{folder.name}", max(256 << 20, room), slots
        self._globals = open_namespace(self.address)

    def stop(self) -> None:
        opened, self._globals = self._globals, None
        if opened is not None:
            opened.close()

    @staticmethod
    def connect(address: Any) -> Session:
        variables = open_namespace(address)
        lookup, store = variables.get, variables.__setitem__

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            for key, record in pairs:
                store(key, record)

        return Session(
            get_raw=lookup,
            get=lookup,
            get_field=lambda key: lookup(key)["status"],
            put=store,
            load=load,
            close=variables.close,
        )


def open_namespace(address: tuple[str, int, int]) -> Any:
    """Open the namespace in this process."""
    name, capacity, slots = address
    return Globals(name, capacity=capacity, slot_count=slots)
