"""SQLite by the standard library: a B-tree in a file, readers beside one writer in WAL mode.

As SQLite's documentation advises for one machine: write-ahead log, ``synchronous=OFF`` as the file
lies in memory anyway, memory-mapped reads, a table WITHOUT ROWID by its key, statements that are
prepared once (the module keeps them), a busy timeout, one connection per process, batches in one
transaction. Listed, counted and found records have indexes on ``created`` and ``status``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack

from ..records import Dataset
from .base import Pairs, Rival, Session, chunks

CHUNK = 10_000
BUSY_SECONDS = 60.0
MAP_BYTES = 1 << 31
TABLES = """
    CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
    CREATE TABLE numbers (key TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
"""
INDEXED = """
    CREATE TABLE things (
        id TEXT PRIMARY KEY, created INTEGER, status TEXT, value BLOB
    ) WITHOUT ROWID;
    CREATE INDEX by_age ON things (created DESC, id DESC);
    CREATE INDEX by_status ON things (status);
"""
GET = "SELECT value FROM records WHERE key = ?"
PUT = "INSERT OR REPLACE INTO records VALUES (?, ?)"
INCREMENT = "INSERT INTO numbers VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET n = n + 1"
NEWEST = "SELECT value FROM things ORDER BY created DESC, id DESC LIMIT 10"
FIND = "SELECT value FROM things WHERE status = ?"


class Sqlite(Rival):
    """A database file in memory."""

    name = "sqlite"

    @classmethod
    def version(cls) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        self.address = str(folder / "records.sqlite")
        database = open_database(self.address)
        database.executescript(TABLES + INDEXED)
        database.close()

    @staticmethod
    def connect(address: Any) -> Session:
        database = open_database(address)
        execute, unpack = database.execute, msgpack.unpackb

        def get_raw(key: str) -> Any:
            row = execute(GET, (key,)).fetchone()
            return row and row[0]

        def get(key: str) -> Any:
            row = execute(GET, (key,)).fetchone()
            return row and unpack(row[0])

        def get_many(keys: list[str]) -> list[Any]:
            marks = ",".join("?" * len(keys))
            rows = execute(f"SELECT value FROM records WHERE key IN ({marks})", keys)
            return [unpack(row[0]) for row in rows]

        session = writing(database)
        session.get_raw, session.get, session.get_many = get_raw, get, get_many
        session.get_field = lambda key: get(key)["status"]
        session.list_newest = lambda: [unpack(row[0]) for row in execute(NEWEST)]
        session.count = lambda: int(execute("SELECT count(*) FROM things").fetchone()[0])
        session.find = lambda status: [unpack(row[0]) for row in execute(FIND, (status,))]
        session.close = database.close
        return session


def open_database(path: str) -> sqlite3.Connection:
    """Open the database in this process; each statement is a transaction unless one is begun."""
    database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=OFF", f"mmap_size={MAP_BYTES}"):
        database.execute(f"PRAGMA {pragma}")
    return database


def writing(database: sqlite3.Connection) -> Session:
    """Return what changes the database."""
    execute, pack = database.execute, msgpack.packb

    def put(key: str, record: Any) -> None:
        execute(PUT, (key, pack(record)))

    def put_batch(pairs: Pairs) -> None:
        execute("BEGIN IMMEDIATE")
        database.executemany(PUT, [(key, pack(record)) for key, record in pairs])
        execute("COMMIT")

    def load(pairs: Iterable[tuple[str, Any]]) -> None:
        for chunk in chunks(pairs, CHUNK):
            put_batch(chunk)

    def load_indexed(pairs: Iterable[tuple[str, Any]]) -> None:
        execute("BEGIN IMMEDIATE")
        database.executemany(
            "INSERT INTO things VALUES (?, ?, ?, ?)",
            ((key, one["created"], one["status"], pack(one)) for key, one in pairs),
        )
        execute("COMMIT")

    def counter(key: str) -> int:
        return int(execute("SELECT n FROM numbers WHERE key = ?", (key,)).fetchone()[0])

    return Session(
        put=put,
        put_batch=put_batch,
        increment=lambda key: execute(INCREMENT, (key,)),
        counter=counter,
        load=load,
        load_indexed=load_indexed,
    )
