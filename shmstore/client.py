"""A client: one server as a process sees it, with its tables, pipelines and transactions."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import runtime
from .pipe import Answer, Pipe, check_timeout
from .table import Pipeline, Table, Transaction
from .table.handles import converted

if TYPE_CHECKING:
    from typing_extensions import Self

    from .engine import Reader

TIMEOUT_SECONDS = 30.0


def connect(address_or_name: str, timeout: float | None = TIMEOUT_SECONDS) -> Client:
    """Connect to a running server, by its name or by its address; any process of the user may.

    ``timeout`` bounds this call and is what the client starts with, in seconds; None waits
    for ever. StoreNotFound, at once, if there is no such server: it names those there are.
    InvalidArgument for what can be no name. While the writer is being restarted this waits;
    RequestTimeout if that takes too long. Maps the segment: cheap, whatever its size.
    """
    client = Client(address_or_name, timeout)
    try:
        client.attach()
    except BaseException:
        client.close()
        raise
    return client


class Client:
    """A server as this process sees it: reads go to its memory, mutations to its writer.

    Made by connect(), or with a name or an address; then it connects at its first use. Threads
    may share it, signal handlers may not use it. After a fork parent and child may both go on with
    it: the child opens a connection of its own when it needs one. It can be pickled, also into a
    process that is started later: it attaches at its first use there, and finds StoreNotFound if
    another server has taken the place.

    Once attached, reads need no writer. What goes through the writer raises RequestTimeout after
    ``timeout`` seconds (it is then applied once or not at all) and WriterUnavailable when the
    server has ended. A writer that is restarted is waited for and asked again where that is needed;
    no mutation is applied twice.
    """

    def __init__(
        self,
        address: str,
        timeout: float | None = TIMEOUT_SECONDS,
        segment_id: bytes | None = None,
    ) -> None:
        self._pipe = Pipe(runtime.address_of(address), timeout, segment_id)

    @property
    def address(self) -> str:
        """The path of the server's socket."""
        return self._pipe.address

    @property
    def timeout(self) -> float | None:
        """Seconds after which a request raises RequestTimeout; None waits for ever. Settable."""
        return None if self._pipe.timeout == math.inf else self._pipe.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._pipe.timeout = check_timeout(seconds)

    @property
    def closed(self) -> bool:
        """Whether close() was called in this process."""
        return self._pipe.closed

    @property
    def reader(self) -> Reader:
        """The engine's reader of the segment; the first use attaches."""
        return self._pipe.reader

    def attach(self) -> None:
        """Connect and map the segment now instead of at the first use. Raises as connect()."""
        _ = self._pipe.reader

    def table(self, name: str) -> Table:
        """Return the table of this name; it comes to be with its first record.

        InvalidKey unless ``name`` is text of 1 to 255 bytes. Costs nothing, reaches nobody.
        """
        return Table(self, name)

    def pipeline(self) -> Pipeline:
        """Return a block that sends mutations without waiting for each; see Pipeline."""
        return Pipeline(self)

    def transaction(self) -> Transaction:
        """Return a block whose mutations are applied together or not at all; see Transaction."""
        return Transaction(self)

    def stats(self) -> dict[str, Any]:
        """Return figures of the segment and of the writer, by name. One request."""
        figures: dict[str, Any] = self._pipe.call("stats", [])
        return figures

    def check(self) -> list[str]:
        """Have the writer walk the whole segment; return what is wrong, empty if nothing is.

        Mutations wait meanwhile: the time is in proportion to what is stored.
        """
        complaints: list[str] = self._pipe.call("check", [])
        return complaints

    def ping(self) -> None:
        """Return when the writer has answered."""
        self._pipe.call("ping", [])

    def read(self, method: str, *arguments: Any) -> Any:
        """Call a method of the reader; if it is overtaken on every try the writer answers."""
        return self._pipe.read(method, *arguments)

    def call(
        self,
        operation: str,
        arguments: list[Any],
        convert: Callable[[Any], Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Have the writer apply one operation; return its result, converted.

        For tables and stores; ``timeout`` replaces the client's. Raises the operation's error,
        RequestTimeout and WriterUnavailable.
        """
        result = self._pipe.call(operation, arguments, timeout)
        return result if convert is None else converted(result, convert)

    def submit(self, operation: str, arguments: list[Any]) -> Answer:
        """Send one operation and do not wait for its answer; for pipelines."""
        return self._pipe.submit(operation, arguments)

    def wait_changed(self, arguments: list[Any], timeout: float | None) -> int:
        """Wait until a record has another version, and return that; for Table.wait_changed()."""
        return converted(self._pipe.wait_changed(arguments, timeout), int)

    def view(self, table: str, namespace: str, key: Any, version: int) -> memoryview | None:
        """Return a view of a record's value where it lies; for Table.view()."""
        from .pipe import windows  # which few programs need

        return windows.view(self._pipe, (table, namespace, key), version)

    def holder(self) -> bytes:
        """Return what stands for this process in the store, whose end the writer watches for.

        One request at first. Raises ProcessUnseen.
        """
        return self._pipe.holder()

    def close(self) -> None:
        """Hang up and let go of the memory; harmless when repeated.

        Requests that wait in other threads raise WriterUnavailable, and so does what comes later.
        """
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._pipe.segment_id is None:
            self.attach()  # so that the copy cannot end up with another server's memory
        return type(self), (self.address, self.timeout, self._pipe.segment_id)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<{state}shmstore.Client of {self.address}>"
