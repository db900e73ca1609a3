"""Every error shmstore raises on purpose.

Each kind is also the built-in a caller would catch. An error crosses the pipe as its code, its
message and its details, and is rebuilt on the other side; it survives pickling the same way.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ShmstoreError(Exception):
    """The root of all shmstore errors.

    ``details`` holds the values the message speaks of, under stable names.
    """

    code: ClassVar[int] = 1

    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        # KeyError would show the repr of its argument.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, (self.code, self.message, self.details)


class RecordNotFound(ShmstoreError, KeyError):
    """No record has this key in this table and namespace."""

    code = 2


class StoreNotFound(ShmstoreError, FileNotFoundError):
    """No server of this name or address is running, or another one has taken its place."""

    code = 3


class StoreFull(ShmstoreError, MemoryError):
    """The mutation does not fit; the store is unchanged and goes on serving."""

    code = 4


class InvalidRecord(ShmstoreError, ValueError):
    """The record, or a part of it, cannot be stored, or does not allow this operation."""

    code = 5


class InvalidKey(ShmstoreError, TypeError):
    """A key, table name, namespace or field is of a wrong type or size."""

    code = 6


class RecordTooLarge(ShmstoreError, ValueError):
    """A record or a batch is larger than the format or the protocol allows."""

    code = 7


class UnknownCursor(ShmstoreError, LookupError):
    """A paging cursor names a record that never was in this namespace, or was forgotten."""

    code = 8


class WriterUnavailable(ShmstoreError, ConnectionError):
    """Nobody takes mutations any more: the server has ended."""

    code = 9


class RequestTimeout(ShmstoreError, TimeoutError):
    """The writer did not answer in time; the mutation is applied once or not at all."""

    code = 10


class CorruptSegment(ShmstoreError):
    """The shared memory does not hold what the format demands."""

    code = 11


class FormatMismatch(ShmstoreError):
    """The segment or the peer speaks another version of the format or the protocol."""

    code = 12


class NameInUse(ShmstoreError, FileExistsError):
    """A server of this name is already running."""

    code = 13


class ProtocolError(ShmstoreError, ValueError):
    """A peer sent what the protocol does not allow; its connection is closed."""

    code = 14


class InvalidArgument(ShmstoreError, ValueError):
    """An argument has a value the call cannot take."""

    code = 15


class LimitReached(ShmstoreError, MemoryError):
    """A process holds, or waits for, as much as one may at a time."""

    code = 16


class ProcessUnseen(ShmstoreError, ProcessLookupError):
    """The writer cannot see this process, and so could not tell when it has ended."""

    code = 17


class ReadStalled(Exception):
    """A reader was overtaken by the writer on every try: the writer is to be asked instead."""


_KINDS: dict[int, type[ShmstoreError]] = {
    kind.code: kind
    for kind in (
        ShmstoreError,
        RecordNotFound,
        StoreNotFound,
        StoreFull,
        InvalidRecord,
        InvalidKey,
        RecordTooLarge,
        UnknownCursor,
        WriterUnavailable,
        RequestTimeout,
        CorruptSegment,
        FormatMismatch,
        NameInUse,
        ProtocolError,
        InvalidArgument,
        LimitReached,
        ProcessUnseen,
    )
}


def rebuild(code: int, message: str, details: dict[str, Any]) -> ShmstoreError:
    """Return the error that crossed the pipe as ``code``, ``message`` and ``details``."""
    return _KINDS.get(code, ShmstoreError)(message, **details)
