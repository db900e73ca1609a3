"""Redis: a server program, reached over a Unix socket; redis-py with the hiredis parser.

As its documentation advises: no persistence for a cache (``save ""``, no append-only file), a Unix
socket on the same machine, pipelines where many commands go out, MGET for many keys, INCR for
counters. Records are msgpack. One field of a record is read with the record: HGET of a hash would
cost the same round trip, which is nearly all of it. Listed records are a sorted set by ``created``,
found ones a set for each status.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hiredis
import msgpack
import redis

from ..records import Dataset
from .base import Pairs, Rival, Session, chunks
from .servers import Program, find_program, version_of

CHUNK = 1_000


class Redis(Rival):
    """A redis-server on a Unix socket."""

    name = "redis"
    _program: Program | None = None

    @classmethod
    def version(cls) -> str:
        server = version_of([find_program("redis-server", "redis-server"), "--version"])
        number = server.partition("v=")[2].split()[0]
        return f"redis-server {number}, redis-py {version('redis')}, hiredis {hiredis.__version__}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self.address = str(folder / "redis.sock")
        options = {
            "--port": "0", "--unixsocket": self.address, "--save": "", "--appendonly": "no",
            "--daemonize": "no", "--dir": str(folder),
        }  # fmt: skip
        command = [find_program("redis-server", "redis-server")]
        command += [word for option in options.items() for word in option]
        self._program = Program(command, self.address)

    def pids(self) -> list[int]:
        return [self._program.pid] if self._program else []

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()

    @staticmethod
    def connect(address: Any) -> Session:
        server: Any = redis.Redis(unix_socket_path=address)
        lookup, unpack = server.get, msgpack.unpackb

        def get(key: str) -> Any:
            data = lookup(key)
            return None if data is None else unpack(data)

        def list_newest() -> list[Any]:
            keys = server.zrange("by_age", 0, 9, desc=True)
            return [unpack(data) for data in server.mget(keys)]

        def find(status: str) -> list[Any]:
            keys = server.smembers(f"status:{status}")
            return [unpack(data) for data in server.mget(keys)]

        session = writing(server)
        session.get_raw, session.get = lookup, get
        session.get_many = lambda keys: [unpack(data) for data in server.mget(keys)]
        session.get_field = lambda key: unpack(lookup(key))["status"]
        session.list_newest, session.find = list_newest, find
        session.count = lambda: server.zcard("by_age")
        session.close = server.close
        return session


def writing(server: Any) -> Session:
    """Return what changes the server's records."""
    pack = msgpack.packb

    def send(pairs: Pairs, atomic: bool) -> None:
        with server.pipeline(transaction=atomic) as pipeline:
            for key, record in pairs:
                pipeline.set(key, pack(record))
            pipeline.execute()

    def load(pairs: Iterable[tuple[str, Any]]) -> None:
        for chunk in chunks(pairs, CHUNK):
            server.mset({key: pack(record) for key, record in chunk})

    def load_indexed(pairs: Iterable[tuple[str, Any]]) -> None:
        for chunk in chunks(pairs, CHUNK):
            with server.pipeline(transaction=False) as pipeline:
                for key, record in chunk:
                    pipeline.set(key, pack(record))
                    pipeline.sadd(f"status:{record['status']}", key)
                pipeline.zadd("by_age", {key: record["created"] for key, record in chunk})
                pipeline.execute()

    return Session(
        put=lambda key, record: server.set(key, pack(record)),
        put_pipelined=lambda pairs: send(pairs, atomic=False),
        put_batch=lambda pairs: server.mset({key: pack(record) for key, record in pairs}),
        increment=server.incr,
        counter=lambda key: int(server.get(key)),
        load=load,
        load_indexed=load_indexed,
    )
