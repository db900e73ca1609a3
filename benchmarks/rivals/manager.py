"""multiprocessing's Manager().dict(): a dict in a server process, reached through a proxy.

As the standard library's documentation shows it: proxies are handed to the processes, and
each has a connection of its own. It pickles; bytes travel as bytes. Increments take a lock of the
same manager, as a proxy's ``d[k] += 1`` is two calls. A batch is one ``update``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from multiprocessing import Manager
from pathlib import Path
from typing import Any

from ..records import Dataset
from .base import Pairs, Rival, Session, chunks

CHUNK = 10_000


class ManagerDict(Rival):
    """A manager's process with one dict and one lock."""

    name = "Manager().dict()"
    packs = False
    _manager: Any = None

    @classmethod
    def version(cls) -> str:
        return f"multiprocessing of Python {platform.python_version()}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self._manager = Manager()
        self.address = self._manager.dict(), self._manager.Lock()

    def pids(self) -> list[int]:
        return [self._manager._process.pid]

    def stop(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            self.address = None
            manager.shutdown()

    @staticmethod
    def connect(address: Any) -> Session:
        records, lock = address
        lookup = records.get

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            for chunk in chunks(pairs, CHUNK):
                records.update(chunk)

        def put_batch(pairs: Pairs) -> None:
            records.update(pairs)

        def increment(key: str) -> None:
            with lock:
                records[key] = records.get(key, 0) + 1

        return Session(
            get_raw=lookup,
            get=lookup,
            get_field=lambda key: lookup(key)["status"],
            put=records.__setitem__,
            put_batch=put_batch,
            increment=increment,
            counter=records.__getitem__,
            load=load,
        )
