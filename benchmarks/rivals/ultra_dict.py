"""UltraDict (ultradict2): each process has a whole copy, kept up by a stream of changes.

As its documentation advises: ``shared_lock=True``, since the processes are no forks of the creator;
a buffer large enough that single changes are streamed instead of dumping everything; increments
under the dict's lock. It pickles on writing; reads are of the process's own dict, so a record
read twice is the same object: what is changed there is changed for the whole process.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from UltraDict2 import UltraDict

from ..records import Dataset
from .base import Pairs, Rival, Session

BUFFER_BYTES = 64 << 20


class Ultra(Rival):
    """Shared memory that the harness creates."""

    name = "UltraDict"
    packs = False
    _dict: Any = None

    @classmethod
    def version(cls) -> str:
        return f"ultradict2 {version('ultradict2')}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self._dict = UltraDict(create=True, buffer_size=BUFFER_BYTES, shared_lock=True)
        self.address = self._dict.name

    def stop(self) -> None:
        shared, self._dict = self._dict, None
        if shared is not None:
            shared.close(unlink=True)

    @staticmethod
    def connect(address: Any) -> Session:
        shared: Any = UltraDict(
            name=address, create=False, buffer_size=BUFFER_BYTES, shared_lock=True
        )
        lookup = shared.get

        def put_batch(pairs: Pairs) -> None:
            shared.update(pairs)

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            shared.update(pairs)

        def increment(key: str) -> None:
            with shared.lock:
                shared[key] = shared.get(key, 0) + 1

        return Session(
            get_raw=lookup,
            get=lookup,
            get_field=lambda key: shared[key]["status"],
            put=shared.__setitem__,
            put_batch=put_batch,
            increment=increment,
            counter=shared.__getitem__,
            load=load,
            close=shared.close,
        )
