"""LMDB by py-lmdb: a B+tree in a file that every process maps; one writer at a time.

As py-lmdb's documentation advises: readers keep one transaction open, or begin one for each read
where they must see every commit; large values are decoded from views (``buffers=True``), without a
copy. The file lies in memory; ``sync`` and ``metasync`` are off and ``writemap`` is on, the fastest
there is. Batches are one transaction, filled by a cursor's ``putmulti``. Each process opens the
environment itself: one may not be carried over a fork. Keys are bytes, encoded before the clock
runs. A transaction that stays open keeps every page it can see, so who reads in one does not write.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb
import msgpack

from ..records import Dataset
from .base import Pairs, Rival, Session, chunks

CHUNK = 10_000
VIEWS_FROM_BYTES = 1 << 16


class LmdbEach(Rival):
    """Reads in a transaction each, which sees the last commit; writes in a transaction each."""

    name = "lmdb, txn per get"

    @staticmethod
    def key(text: str) -> bytes:
        return text.encode()

    @classmethod
    def version(cls) -> str:
        return f"py-lmdb {lmdb.__version__}, LMDB {'.'.join(map(str, lmdb.version()))}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        room = 4 * dataset.stored_bytes() + dataset.records * 512
        views = dataset.value_bytes() >= VIEWS_FROM_BYTES
        self.address = str(folder / "lmdb"), max(256 << 20, room), views

    @staticmethod
    def connect(address: Any) -> Session:
        environment = open_environment(*address[:2])
        begin, unpack, views = environment.begin, msgpack.unpackb, address[2]

        def get_raw(key: bytes) -> bytes | None:
            with begin() as transaction:
                data: bytes | None = transaction.get(key)
                return data

        def get(key: bytes) -> Any:
            with begin(buffers=views) as transaction:
                data = transaction.get(key)
                return None if data is None else unpack(data)

        def get_many(keys: list[bytes]) -> Any:
            with begin() as transaction:
                return [unpack(data) for _, data in transaction.cursor().getmulti(keys)]

        session = writing(environment)
        session.get_raw, session.get, session.get_many = get_raw, get, get_many
        session.get_field = lambda key: get(key)["status"]
        session.close = environment.close
        return session


class Lmdb(LmdbEach):
    """Reads in one long transaction."""

    name = "lmdb"

    @staticmethod
    def connect(address: Any) -> Session:
        environment = open_environment(*address[:2])
        writer, session = writing(environment), Session(close=environment.close)
        reading = begin_reading(environment, session, views=address[2])

        def load(pairs: Iterable[tuple[bytes, Any]]) -> None:
            nonlocal reading
            assert writer.load is not None
            for transaction in reading:
                transaction.abort()  # it would keep every page that loading replaces
            writer.load(pairs)
            reading = begin_reading(environment, session, views=address[2])

        session.load = load
        return session


def begin_reading(environment: Any, session: Session, views: bool) -> list[Any]:
    """Have a session read in transactions that begin now and stay open; return them."""
    reading, viewing = environment.begin(), environment.begin(buffers=views)
    view, unpack = viewing.get, msgpack.unpackb

    def get(key: bytes) -> Any:
        data = view(key)
        return None if data is None else unpack(data)

    session.get_raw, session.get = reading.get, get
    session.get_field = lambda key: unpack(view(key))["status"]
    session.get_many = lambda keys: [unpack(data) for _, data in reading.cursor().getmulti(keys)]
    return [reading, viewing]


def open_environment(path: str, size: int) -> Any:
    """Open the environment in this process."""
    return lmdb.open(path, map_size=size, sync=False, metasync=False, writemap=True, max_readers=64)


def writing(environment: Any) -> Session:
    """Return what changes an environment."""
    pack, unpack, begin = msgpack.packb, msgpack.unpackb, environment.begin

    def put(key: bytes, record: Any) -> None:
        with begin(write=True) as transaction:
            transaction.put(key, pack(record))

    def put_batch(pairs: Pairs) -> None:
        with begin(write=True) as transaction:
            transaction.cursor().putmulti([(key, pack(record)) for key, record in pairs])

    def put_one_by_one(pairs: Pairs) -> None:
        with begin(write=True) as transaction:
            for key, record in pairs:
                transaction.put(key, pack(record))

    def load(pairs: Iterable[tuple[bytes, Any]]) -> None:
        for chunk in chunks(pairs, CHUNK):
            put_batch(chunk)

    def increment(key: bytes) -> None:
        with begin(write=True) as transaction:
            data = transaction.get(key)
            transaction.put(key, pack(unpack(data) + 1 if data else 1))

    def counter(key: bytes) -> int:
        with begin() as transaction:
            return int(unpack(transaction.get(key)))

    return Session(
        put=put,
        put_batch=put_batch,
        put_one_by_one=put_one_by_one,
        increment=increment,
        counter=counter,
        load=load,
    )
