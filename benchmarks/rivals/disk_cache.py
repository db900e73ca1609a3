"""diskcache: a cache in SQLite and files, for many processes.

As its documentation advises: one ``Cache`` object per process on one directory (here in memory),
``transact()`` around batches, ``incr`` for counters, no eviction. It stores bytes as they are and
pickles other objects, so a decoded read is its own unpickling.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diskcache

from ..records import Dataset
from .base import Pairs, Rival, Session, chunks

CHUNK = 1_000
BUSY_SECONDS = 60.0


class DiskCache(Rival):
    """A directory in memory."""

    name = "diskcache"
    packs = False

    @classmethod
    def version(cls) -> str:
        return f"diskcache {diskcache.__version__}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self.address = str(folder / "cache"), 8 * dataset.stored_bytes() + (1 << 30)

    @staticmethod
    def connect(address: Any) -> Session:
        directory, size = address
        cache = diskcache.Cache(
            directory, timeout=BUSY_SECONDS, size_limit=size, eviction_policy="none", cull_limit=0
        )
        lookup = cache.get

        def put_batch(pairs: Pairs) -> None:
            with cache.transact():
                for key, record in pairs:
                    cache.set(key, record)

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            for chunk in chunks(pairs, CHUNK):
                put_batch(chunk)

        return Session(
            get_raw=lookup,
            get=lookup,
            get_field=lambda key: lookup(key)["status"],
            put=cache.set,
            put_batch=put_batch,
            increment=cache.incr,
            counter=lookup,
            load=load,
            close=cache.close,
        )
