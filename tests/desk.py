"""Operations on a segment in this process, without a pipe: what the writer does, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from shmstore.codec import index_name, message_pack, message_unpack, pack, unpack
from shmstore.errors import ShmstoreError
from shmstore.writer.operations import Operations
from tests.segments import Segment

TABLE = "t"
NAMESPACE = "test"
NOW = 1_700_000_000
INT_MAX = 2**64 - 1


class Desk:
    """Applies operations as the writer does, each a batch of its own."""

    def __init__(self, engine: ModuleType, capacity: int = 4 << 20) -> None:
        self.segment = Segment(engine, capacity)
        self.operations = Operations(self.segment.owner)

    @property
    def owner(self) -> Any:
        return self.segment.owner

    def stage(self, operation: Any, *arguments: Any) -> Any:
        return self.operations.apply(operation, message_unpack(message_pack(list(arguments))))

    def do(self, operation: Any, *arguments: Any) -> Any:
        try:
            result = self.stage(operation, *arguments)
            self.owner.commit()
        except ShmstoreError as error:
            self.owner.abort()
            message_pack([error.code, error.message, error.details])
            raise
        return message_unpack(message_pack(result))

    def plain(self, operation: str, *arguments: Any) -> Any:
        return self.do(operation, TABLE, "", *arguments)

    def store(self, operation: str, *arguments: Any, namespace: str = NAMESPACE) -> Any:
        return self.do(operation, TABLE, namespace, *arguments)

    def upsert(
        self, key: str, created: int = NOW, namespace: str = NAMESPACE, **fields: Any
    ) -> Any:
        record = {"id": key, "created": created, **fields}
        return self.store("upsert", key, pack(record), namespace=namespace)

    def get(self, key: Any, namespace: str = "", table: str = TABLE) -> Any:
        data = self.owner.reader.get(self.owner.reader.scope(table, namespace), key)
        return None if data is None else unpack(data)

    def version(self, key: Any, namespace: str = "") -> int:
        return int(self.owner.reader.version(self.owner.reader.scope(TABLE, namespace), key) or 0)

    def keys(self, namespace: str = "", index: bytes = b"", table: str = TABLE) -> list[Any]:
        items = self.owner.reader.chunk(table, namespace, index, None, None, False)
        assert self.owner.reader.count(table, namespace, index) == len(items)
        return [item[0] for item in items]

    def find(self, namespace: str = NAMESPACE, **field: Any) -> list[Any]:
        [(name, value)] = field.items()
        return self.keys(namespace, index_name(name, value))

    def tables(self) -> dict[Any, Any]:
        return {key: self.get(key, table="") for key in self.keys("", table="")}

    def namespaces(self, table: str = TABLE) -> list[Any]:
        return self.keys("n:" + table, table="")

    def take_over(self) -> None:
        self.segment.take_over()
        self.operations = Operations(self.segment.owner)


@contextmanager
def open_desk(engine: ModuleType, capacity: int = 4 << 20) -> Iterator[Desk]:
    """A desk whose segment must be sound in the end."""
    desk = Desk(engine, capacity)
    yield desk
    assert not desk.owner.staged
    assert desk.owner.check() == []
    desk.segment.close()
