"""A client without a server: operations applied to an owner in this very process."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from shmstore.codec import message_pack, message_unpack
from shmstore.engine import Owner, Reader
from shmstore.errors import ShmstoreError, rebuild
from shmstore.layout import HORIZON_WORD, WORD_BYTES
from shmstore.table import Table
from shmstore.table.deferred import Pipeline, Transaction
from shmstore.writer.operations import Operations

Result = TypeVar("Result")


class Done:
    """An answer that is there already."""

    def __init__(self, result: Any, error: ShmstoreError | None) -> None:
        self._result = result
        self._error = error

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class Local:
    """Stands in for a client; what would cross the pipe is packed and unpacked all the same."""

    def __init__(self, capacity: int = 8 << 20) -> None:
        self._memory = mmap.mmap(-1, capacity)
        self._owner = Owner.create(self._memory, _keep, _keep)
        self._operations = Operations(self._owner)
        self.requests: list[str] = []
        """The operations that were asked for, in order."""
        self.stalled = False
        """Whether reads are to fail as if the writer had overtaken them."""

    @property
    def reader(self) -> Reader:
        return self._owner.reader

    def table(self, name: str) -> Table:
        return Table(self, name)

    def pipeline(self) -> Pipeline:
        return Pipeline(self)

    def transaction(self) -> Transaction:
        return Transaction(self)

    def read(self, method: str, *arguments: Any) -> Any:
        if self.stalled:
            return self.call("read", [method, list(arguments)], lambda result: result)
        return getattr(self.reader, method)(*arguments)

    def call(
        self, operation: str, arguments: list[Any], convert: Callable[[Any], Result]
    ) -> Result:
        return convert(self.submit(operation, arguments).result())

    def view(self, table: str, namespace: str, key: Any, version: int) -> memoryview | None:
        """Return a copy of what a view would show: nothing pins it."""
        value = Table(self, table, namespace).get(key)
        return memoryview(value) if type(value) is bytes else None

    def wait_changed(self, arguments: list[Any], timeout: float | None) -> int:
        """Refuse: nobody else could change anything."""
        raise NotImplementedError

    def holder(self) -> bytes:
        """Refuse: nobody watches for the end of this process."""
        raise NotImplementedError

    def submit(self, operation: str, arguments: list[Any]) -> Done:
        self.requests.append(operation)
        arguments = message_unpack(message_pack(arguments))
        if operation == "read":
            method, rest = arguments
            return Done(message_unpack(message_pack(getattr(self.reader, method)(*rest))), None)
        try:
            result = self._operations.apply(operation, arguments)
            self._owner.commit()
        except ShmstoreError as error:
            self._owner.abort()
            return Done(None, rebuild(error.code, error.message, error.details))
        return Done(message_unpack(message_pack(result)), None)

    def take_over(self) -> None:
        """Let another owner continue, as after the death of the writer."""
        self._owner.close()
        self._owner = Owner.take_over(self._memory, _keep, _keep)
        self._operations = Operations(self._owner)

    def check(self) -> list[str]:
        """Say what is wrong with the segment."""
        return self._owner.check()

    def turn_readers_away(self) -> None:
        """Let every read find itself overtaken: the horizon is ahead of the clock."""
        struct.pack_into("<Q", self._memory, HORIZON_WORD * WORD_BYTES, 1 << 40)

    def close(self) -> None:
        self._owner.close()


def _keep(offset: int, length: int) -> None:
    """Anonymous memory needs neither allocating nor giving back."""
