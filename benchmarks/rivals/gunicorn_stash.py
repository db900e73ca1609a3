"""gunicorn's stash: tables in the arbiter of its dirty workers, reached over a Unix socket.

Driven without a web server: this module run as a program is a ``DirtyArbiter`` without workers, and
the processes are its ``StashClient``s, as gunicorn's own workers are. It stores what its protocol
can carry, bytes as well as dicts. It has no batches and no increments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gunicorn.config import Config
from gunicorn.dirty.arbiter import DirtyArbiter
from gunicorn.dirty.stash import StashClient
from gunicorn.glogging import Logger

from ..records import Dataset
from .base import Rival, Session
from .servers import Program

TABLE = "records"


class Stash(Rival):
    """An arbiter in a process of its own."""

    name = "gunicorn stash"
    packs = False
    _program: Program | None = None

    @classmethod
    def version(cls) -> str:
        return f"gunicorn {version('gunicorn')}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self.address = str(folder / "arbiter.sock")
        self._program = Program([sys.executable, "-m", __name__, self.address], self.address)

    def pids(self) -> list[int]:
        return [self._program.pid] if self._program else []

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()

    @staticmethod
    def connect(address: Any) -> Session:
        client = StashClient(address)
        client.ensure(TABLE)
        lookup, put = partial(client.get, TABLE), partial(client.put, TABLE)

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            for key, record in pairs:
                put(key, record)

        return Session(
            get_raw=lookup,
            get=lookup,
            get_field=lambda key: lookup(key)["status"],
            put=put,
            load=load,
            close=client.close,
        )


def main() -> None:
    """Serve a stash on the socket that the command line names, until the parent ends."""
    config = Config()
    config.set("loglevel", "critical")
    arbiter = DirtyArbiter(config, Logger(config), socket_path=sys.argv[1])
    arbiter.ppid = os.getppid()  # whose end it watches for; it was made to be forked
    arbiter.run()


if __name__ == "__main__":
    main()
