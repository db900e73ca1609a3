"""What an adapter provides: a server side, and what one process can do with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from ..records import Dataset

Pairs: TypeAlias = list[tuple[Any, Any]]


def nothing() -> None:
    """Do nothing: the close() of what needs none."""


@dataclass
class Session:
    """What one process does with a rival: its calls, bound once. None where it cannot do that.

    Where the rival's own method has the signature, it stands here itself: no wrapper is timed.
    Keys are given as the rival's ``key`` made them.
    """

    get_raw: Callable[[Any], Any] | None = None
    """The stored bytes by key; None if there are none."""
    get: Callable[[Any], Any] | None = None
    """The record, as fresh Python objects; None if there is none."""
    get_field: Callable[[Any], Any] | None = None
    """The field "status" of a record, as cheaply as can be."""
    get_many: Callable[[list[Any]], Any] | None = None
    """The records of many keys in one call, decoded; pipelined, where there is a server."""
    put: Callable[[Any, Any], Any] | None = None
    """Store a record; when it returns every process can see it."""
    put_pipelined: Callable[[Pairs], Any] | None = None
    """Store records one by one, without waiting for each."""
    put_batch: Callable[[Pairs], Any] | None = None
    """Store records as one atomic batch."""
    put_one_by_one: Callable[[Pairs], Any] | None = None
    """The same by a call for each record, where put_batch has a faster way."""
    increment: Callable[[Any], Any] | None = None
    """Add 1 to a number that other processes add to as well; none of them is lost."""
    counter: Callable[[Any], int] | None = None
    """The number that increment() has made."""
    list_newest: Callable[[], Any] | None = None
    """The 10 newest records, decoded."""
    count: Callable[[], int] | None = None
    """The number of records."""
    find: Callable[[str], Any] | None = None
    """The records of this status, decoded."""
    load: Callable[[Iterable[tuple[Any, Any]]], Any] | None = None
    """Store many records, as fast as it goes."""
    load_indexed: Callable[[Iterable[tuple[Any, Any]]], Any] | None = None
    """Store records so that they can be listed, counted and found."""
    prepare: Callable[[list[Any], bool], Any] | None = None
    """Take what the rival's users take once for each key, before they read it, or write it."""
    statistics: Callable[[], dict[str, int]] | None = None
    """What this process's end has counted."""
    close: Callable[[], Any] = nothing


class NotAvailable(Exception):
    """This rival cannot be had here; the text says why."""


class Rival(ABC):
    """The server side of a rival: what one process starts, of its own, and all others use.

    ``start`` sets ``address``, which is handed to the processes that ``connect``.
    """

    name: ClassVar[str]
    packs: ClassVar[bool] = True
    """Whether it is given records and stores bytes; if not it stores Python objects, and where
    bytes are looked up it is given packed ones."""
    shared: ClassVar[bool] = True
    """Whether processes see one set of records; if not each loads its own."""
    address: Any = None

    @staticmethod
    def key(text: str) -> Any:
        """Return a key as the rival takes it; done once for each, before anything is timed."""
        return text

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return what it is and in which version. Raises NotAvailable."""

    @abstractmethod
    def start(self, folder: Path, dataset: Dataset) -> None:
        """Start the server side; ``folder`` is in memory, private and empty."""

    def pids(self) -> list[int]:
        """Return the processes of the server side."""
        return []

    def stop(self) -> None:  # noqa: B027  # most have nothing to stop
        """End the server side; harmless when repeated."""

    @staticmethod
    @abstractmethod
    def connect(address: Any) -> Session:
        """Return a session of the calling process."""


def chunks(items: Iterable[tuple[Any, Any]], size: int) -> Iterable[Pairs]:
    """Yield the items in lists of ``size``."""
    chunk: Pairs = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
