"""shared-memory-dict: one pickle of the whole dict in shared memory.

As its documentation shows it. Every read unpickles everything and every write pickles everything
again, so it is for a few small values. Its lock works between forks only, and there is no
increment; a batch is one ``update``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shared_memory_dict import SharedMemoryDict

from ..records import Dataset
from .base import Pairs, Rival, Session


class SharedDict(Rival):
    """A block of shared memory that the harness creates."""

    name = "shared-memory-dict"
    packs = False
    _dict: Any = None

    @classmethod
    def version(cls) -> str:
        return f"shared-memory-dict {version('shared-memory-dict')}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self.address = f"bench-{os.getpid()}-{folder.name}", 2 * dataset.stored_bytes() + (1 << 20)
        name, size = self.address
        self._dict = SharedMemoryDict(name=name, size=size)

    def stop(self) -> None:
        shared, self._dict = self._dict, None
        if shared is not None:
            shared.shm.close()
            shared.shm.unlink()

    @staticmethod
    def connect(address: Any) -> Session:
        name, size = address
        shared: Any = SharedMemoryDict(name=name, size=size)
        lookup = shared.get

        def put_batch(pairs: Pairs) -> None:
            shared.update(pairs)

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            shared.update(dict(pairs))

        return Session(
            get_raw=lookup,
            get=lookup,
            get_field=lambda key: lookup(key)["status"],
            put=shared.__setitem__,
            put_batch=put_batch,
            load=load,
            close=shared.cleanup,
        )
