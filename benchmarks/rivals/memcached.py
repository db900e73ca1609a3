"""memcached: a server program, reached over a Unix socket; pymemcache.

As pymemcache's documentation advises: one ``Client`` per process with ``no_delay`` left alone on a
Unix socket, ``get_many`` and ``set_many`` where there are many, ``incr`` for counters. A put waits
for the server's answer. The server has room for everything and for values of 1 MiB (``-I``).
Values are msgpack. It has no batches, lists or finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgpack
from pymemcache.client.base import Client

from ..records import Dataset
from .base import Pairs, Rival, Session, chunks
from .servers import Program, find_program, version_of

CHUNK = 1_000
OVERHEAD_BYTES = 128


class Memcached(Rival):
    """A memcached on a Unix socket."""

    name = "memcached"
    _program: Program | None = None

    @classmethod
    def version(cls) -> str:
        server = version_of([find_program("memcached", "memcached"), "--version"])
        return f"{server}, pymemcache {version('pymemcache')}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self.address = str(folder / "memcached.sock")
        room = 4 * dataset.stored_bytes() + dataset.records * OVERHEAD_BYTES
        command = [find_program("memcached", "memcached"), "-s", self.address, "-I", "4m"]
        command += ["-m", str(max(256, room >> 20)), "-M", "-u", "root"]
        self._program = Program(command, self.address)

    def pids(self) -> list[int]:
        return [self._program.pid] if self._program else []

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()

    @staticmethod
    def connect(address: Any) -> Session:
        client = Client(address)
        lookup, pack, unpack = client.get, msgpack.packb, msgpack.unpackb

        def get(key: str) -> Any:
            data = lookup(key)
            return None if data is None else unpack(data)

        def put_pipelined(pairs: Pairs) -> None:
            if client.set_many({key: pack(record) for key, record in pairs}, noreply=False):
                raise MemoryError("memcached has refused a record")

        def load(pairs: Iterable[tuple[str, Any]]) -> None:
            for chunk in chunks(pairs, CHUNK):
                put_pipelined(chunk)

        def increment(key: str) -> None:
            if client.incr(key, 1) is None and not client.add(key, b"1", noreply=False):
                client.incr(key, 1)

        return Session(
            get_raw=lookup,
            get=get,
            get_field=lambda key: unpack(lookup(key))["status"],
            get_many=lambda keys: [unpack(data) for data in client.get_many(keys).values()],
            put=lambda key, record: client.set(key, pack(record), noreply=False),
            put_pipelined=put_pipelined,
            increment=increment,
            counter=lambda key: int(lookup(key)),
            load=load,
            close=client.close,
        )
