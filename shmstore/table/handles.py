"""What tables and stores need of the thing they are bound to.

A client does what it is asked at once; a pipeline or a transaction returns a Reply instead. Both
are handles. Only a client can also read and submit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast

from ..engine import Reader
from ..errors import InvalidArgument, ProtocolError, ShmstoreError
from ..keys import Key, shown

Result = TypeVar("Result")


class Answer(Protocol):
    """The future of one submitted request."""

    def done(self) -> bool:
        """Tell whether result() would return or raise without waiting."""
        ...

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer; return it or raise the error it carries.

        RequestTimeout after ``timeout`` seconds, those of the client if None.
        """
        ...


class Handle(Protocol):
    """Where mutations go and where reads come from."""

    @property
    def reader(self) -> Reader:
        """The reader of the mapped segment."""
        ...

    def read(self, method: str, *arguments: Any) -> Any:
        """Call a method of the reader, or ask the writer where the reader was overtaken."""
        ...

    def call(
        self, operation: str, arguments: list[Any], convert: Callable[[Any], Result]
    ) -> Result:
        """Have the writer apply one operation; return its converted result, or a Reply."""
        ...

    def wait_changed(self, arguments: list[Any], timeout: float | None) -> int:
        """Wait until a record has another version than the one given, and return that."""
        ...

    def view(self, table: str, namespace: str, key: Key, version: int) -> memoryview | None:
        """Return a view of a record's value where it lies; None if there is no record.

        While there is a view of this ``version`` already it costs no request.
        """
        ...

    def holder(self) -> bytes:
        """Return what stands for this process in the store."""
        ...

    def pipeline(self) -> AbstractContextManager[Handle]:
        """Start a pipeline over this client."""
        ...


class Link(Handle, Protocol):
    """A handle with a pipe of its own: a client."""

    def submit(self, operation: str, arguments: list[Any]) -> Answer:
        """Send one operation without waiting; block only while too many are in flight."""
        ...


def check_handle(handle: object) -> None:
    """Raise InvalidArgument unless ``handle`` is something that tables can be bound to."""
    if not callable(getattr(handle, "call", None)):
        raise InvalidArgument(
            f"tables and stores are bound to a client, as connect() and server.connect() return "
            f"it, or to a pipeline or transaction; not to {shown(handle)}"
        )


def converted(result: Any, convert: Callable[[Any], Result]) -> Result:
    """Return what a call makes of the writer's answer.

    Raises what ``convert`` does; ProtocolError if the answer is none that the operation can have.
    """
    try:
        return convert(result)
    except ShmstoreError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise ProtocolError(f"the writer's answer makes no sense: {shown(result)}") from error


def client_of(handle: Handle) -> Link:
    """Return the client that ``handle`` is, or that it stands in front of."""
    return cast(Link, getattr(handle, "client", handle))
