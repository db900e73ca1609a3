"""shmstore itself, as its documents advise: one writer process, each process its own client.

Tables for lookups, a Store with an index on ``status`` for pages, counts and finds. ``get_raw`` is
``Table.get_bytes``; batches are ``put_many``, one atomic mutation each; pipelined puts are a
``table.pipeline()``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import shmstore
from shmstore.engine import NAME

from ..records import Dataset
from .base import Pairs, Rival, Session, chunks

CHUNK = 1_000
TABLE = "records"


class Things(shmstore.Store):
    """The records, as a resource with an index."""

    table, resource, prefix = "things", "webhook_endpoint", "we"
    indexes = ("status",)


class Shmstore(Rival):
    """A server started by the harness."""

    name = "shmstore"
    _server: shmstore.Server | None = None

    @classmethod
    def version(cls) -> str:
        try:
            number = version("shmstore")
        except PackageNotFoundError:
            number = "from the source tree"
        return f"shmstore {number}, {NAME} engine"

    def start(self, folder: Path, dataset: Dataset) -> None:
        room = 2 * dataset.stored_bytes() + dataset.records * 512
        self._server = shmstore.start(capacity=max(256 << 20, room))
        self.address = self._server.address

    def pids(self) -> list[int]:
        pid = self._server.writer_pid if self._server else None
        return [] if pid is None else [pid]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    @staticmethod
    def connect(address: Any) -> Session:
        client = shmstore.connect(address)
        table, things = client.table(TABLE), Things(client)

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            for chunk in chunks(pairs, CHUNK):
                table.put_many(chunk)

        def load_indexed(pairs: Iterable[tuple[str, Any]]) -> None:
            for chunk in chunks(pairs, CHUNK):
                things.insert_many(record for _, record in chunk)

        def put_pipelined(pairs: Pairs) -> None:
            with table.pipeline() as pipeline:
                for key, record in pairs:
                    pipeline.put(key, record)

        def find(status: str) -> list[Any]:
            return things.find(status=status)

        return Session(
            get_raw=table.get_bytes,
            get=table.get,
            get_field=lambda key: table.get_field(key, "status"),
            get_many=table.get_many,
            put=table.put,
            put_pipelined=put_pipelined,
            put_batch=table.put_many,
            increment=table.increment,
            counter=table.__getitem__,
            list_newest=partial(things.list, limit=10),
            count=things.count,
            find=find,
            load=load,
            load_indexed=load_indexed,
            statistics=lambda: {"retries": client.reader.retries},
            close=client.close,
        )
