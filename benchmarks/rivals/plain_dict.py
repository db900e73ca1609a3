"""A dict in the process itself, of msgpack bytes: what no shared store can beat.

Each process has its own, filled by itself; nothing that one of them writes is seen by another. A
decoded read is ``msgpack.unpackb(records[key])``. Newest records, counts and finds are what one
would write by hand: a walk from the end, len(), and a set of keys for each status.
"""

from __future__ import annotations

import itertools
import platform
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgpack

from ..records import Dataset
from .base import Pairs, Rival, Session


class PlainDict(Rival):
    """Each process's own dict."""

    name = "dict"
    shared = False

    @classmethod
    def version(cls) -> str:
        return f"dict of {platform.python_implementation()} {platform.python_version()}"

    def start(self, folder: Path, dataset: Dataset) -> None:
        """Nothing: there is no server side."""

    @staticmethod
    def connect(address: Any) -> Session:
        records: dict[str, bytes] = {}
        keys_by_status: defaultdict[str, set[str]] = defaultdict(set)
        numbers: defaultdict[str, int] = defaultdict(int)
        pack, unpack, lookup = msgpack.packb, msgpack.unpackb, records.get

        def get(key: str) -> Any:
            data = lookup(key)
            return None if data is None else unpack(data)

        def put(key: str, record: Any) -> None:
            records[key] = pack(record)

        def put_all(pairs: Iterable[tuple[str, Any]]) -> None:
            records.update((key, pack(record)) for key, record in pairs)

        def load_indexed(pairs: Iterable[tuple[str, Any]]) -> None:
            for key, record in pairs:
                records[key] = pack(record)
                keys_by_status[record["status"]].add(key)

        def put_batch(pairs: Pairs) -> None:
            put_all(pairs)

        def get_many(keys: list[str]) -> list[Any]:
            return [unpack(records[key]) for key in keys]

        def increment(key: str) -> None:
            numbers[key] += 1

        def list_newest() -> list[Any]:
            return [unpack(data) for data in itertools.islice(reversed(records.values()), 10)]

        def find(status: str) -> list[Any]:
            return [unpack(records[key]) for key in keys_by_status[status]]

        return Session(
            get_raw=lookup,
            get=get,
            get_field=lambda key: unpack(records[key])["status"],
            get_many=get_many,
            put=put,
            put_batch=put_batch,
            increment=increment,
            counter=numbers.__getitem__,
            list_newest=list_newest,
            count=records.__len__,
            find=find,
            load=put_all,
            load_indexed=load_indexed,
        )
