"""Views of values where they lie: mapped for this process, and pinned there until the last is gone.

A window is a mapping of one value. All views of the value, and all that is made of them, keep it
alive; its end is noted wherever Python finds it out, and a thread that lives only for
that tells the writer. A forked child has the windows of its parent: it pins them for itself before
it does anything else, and until then the parent takes none of its own pins away.
"""

from __future__ import annotations

import os
import select
import sys
from _thread import start_new_thread
from collections import deque
from contextlib import suppress
from threading import TIMEOUT_MAX, Lock, get_ident
from time import sleep
from typing import Any, TypeAlias, cast
from weakref import ref

from ..errors import (
    LimitReached,
    ProtocolError,
    RequestTimeout,
    ShmstoreError,
    StoreNotFound,
    WriterUnavailable,
)
from ..keys import shown
from ..protocol import VIEW_BYTES_SHARE, VIEWS_MAX
from .pipe import Pipe

PAUSE_SECONDS = 0.005
"""How long the end of a window waits for that of others, to be told together."""
FORK_SECONDS = 10.0
"""How long a forked child tries to pin what it inherits."""
_BYTES_HEADS = {0xC4: 2, 0xC5: 3, 0xC6: 5}
"""What msgpack puts before bytes, by its first byte."""
_SERVER_GONE = (WriterUnavailable, StoreNotFound)
"""Then nobody uses the memory again, and nothing needs to be pinned."""

Record: TypeAlias = tuple[str, str, Any]
"""Table, namespace and key."""


class _Window(ref[Any]):
    """A mapping that lives as long as its views, and what is known of it besides."""

    __slots__ = ("book", "granule", "inside", "record", "size", "version")

    book: Book
    granule: int
    inside: int
    size: int
    version: int
    record: Record


class Book:
    """The windows of this process into one segment."""

    def __init__(self, address: str, segment_id: bytes) -> None:
        self._address = address
        self._segment_id = segment_id
        self._windows: dict[int, _Window] = {}
        """By granule; those that have ended only until that is looked at."""
        self._latest: dict[Record, _Window] = {}
        self._bytes = 0
        self._holder = b""
        self._start_over()

    def _start_over(self) -> None:
        self._lock = Lock()
        """Guards all but what follows it; held while the writer is asked."""
        self._ended: deque[_Window] = deque()
        """Noted by whoever finds a window ended, which may happen inside anything."""
        self._telling = False
        """Whether a thread is about to tell the writer."""
        self._unpinned: set[int] = set()
        """What is to be told."""
        self._leaving: set[int] = set()
        """What is being told."""

    @property
    def in_use(self) -> bool:
        """Whether there are windows."""
        return bool(self._windows)

    def find(self, record: Record, version: int) -> memoryview | None:
        """Return a view of this version of a record, if there is a window to it."""
        window = self._latest.get(record)
        mapping = window() if window is not None and window.version == version else None
        return None if window is None or mapping is None else _view(mapping, window)

    def open(self, pipe: Pipe, record: Record) -> memoryview | None:
        """Have a record's value pinned, and return a view of it; None if there is no record.

        LimitReached if there are too many; RequestTimeout, and what Pipe.call() raises.
        """
        holder = pipe.holder()
        if not self._lock.acquire(timeout=min(pipe.timeout, TIMEOUT_MAX)):
            raise RequestTimeout(
                f"the writer was not asked for a view: within {pipe.timeout:g} s it has not "
                f"answered what was asked before",
                operation="pin",
                seconds=pipe.timeout,
                sent=False,
            )
        try:
            self._holder = holder
            self._take_note()
            answer = pipe.call("pin", [*record, holder])
            return None if answer is None else self._look(pipe, record, answer)
        finally:
            self._lock.release()

    def _look(self, pipe: Pipe, record: Record, answer: Any) -> memoryview:
        if type(answer) is not list or [type(each) for each in answer] != [int] * 4:
            raise ProtocolError(f"the writer's answer makes no sense: {shown(answer)}")
        granule, offset, size, version = answer
        for told in (self._unpinned, self._leaving):
            told.discard(granule)
        window = self._windows.get(granule)
        mapping = None if window is None else window()
        try:
            if window is None or mapping is None:
                self._check_limits(pipe, size)
                mapping, inside = pipe.open_window(offset, size)
                window = _Window(mapping, _note_end)
                window.book, window.record = self, record
                window.granule, window.size, window.version = granule, size, version
                window.inside = inside
                self._windows[granule] = self._latest[record] = window
                self._bytes += size
            return _view(mapping, window)
        except BaseException:
            if granule not in self._windows:
                self._unpinned.add(granule)
                self.tell()
            raise

    def _check_limits(self, pipe: Pipe, size: int) -> None:
        if len(self._windows) >= VIEWS_MAX:
            raise LimitReached(
                f"this process has views of {VIEWS_MAX} values already: let go of some",
                limit=VIEWS_MAX,
            )
        most = int(pipe.reader.capacity * VIEW_BYTES_SHARE)
        if self._bytes + size > most:
            raise LimitReached(
                f"this process has views of {self._bytes} bytes, and {size} more would be beyond "
                f"{most}, a part of the capacity: let go of some, or start with a larger one",
                size=size,
                used=self._bytes,
                limit=most,
            )

    # The end of windows

    def note(self, window: _Window) -> None:
        """Note that a window has ended; safe wherever Python may find that out."""
        self._ended.append(window)
        self.tell()

    def tell(self) -> None:
        """Have the writer told soon."""
        if self._telling or sys.is_finalizing():
            return
        self._telling = True
        try:
            start_new_thread(self._tell_all, ())
        except RuntimeError:  # no thread can be had: the next end tries again
            self._telling = False

    def _take_note(self) -> None:
        """Forget windows that have ended. The caller holds the lock."""
        while self._ended:
            window = self._ended.popleft()
            if self._windows.get(window.granule) is window:
                del self._windows[window.granule]
                self._bytes -= window.size
                self._unpinned.add(window.granule)
            if self._latest.get(window.record) is window:
                del self._latest[window.record]

    def _tell_all(self) -> None:
        """Tell the writer of all that has ended, until there is nothing more to tell."""
        told = True
        while told:
            sleep(PAUSE_SECONDS)
            try:
                told = self._tell_some()
            except Exception:  # no memory, no descriptors: the next end tries again
                break
        self._telling = False
        if not told and (self._ended or self._unpinned):
            self.tell()

    def _tell_some(self) -> bool:
        with self._lock:
            self._take_note()
            self._leaving |= self._unpinned
            self._unpinned.clear()
        if not self._leaving:
            return False
        _wait_for_children()  # those that were forked before had windows that have ended since
        with self._lock:
            pipe = Pipe(self._address, None, self._segment_id)
            try:
                # Without a time limit: what is given up might still be done, after the next pin.
                pipe.call("unpin", [self._holder, sorted(self._leaving)])
            except _SERVER_GONE:
                pass
            finally:
                pipe.close()
            self._leaving.clear()
        return True

    # Forks

    def start_over_in_child(self) -> None:
        """After a fork: leave to the parent what it has to tell; keep the windows there are."""
        self._start_over()
        inherited = [window for window in self._windows.values() if window() is not None]
        self._windows = {window.granule: window for window in inherited}
        self._latest = {window.record: window for window in inherited}
        self._bytes = sum(window.size for window in inherited)

    def share(self) -> None:
        """Pin for this process what it inherited.

        Raises ShmstoreError if that fails: then what the views show may change.
        """
        pipe = Pipe(self._address, FORK_SECONDS, self._segment_id)
        try:
            self._holder = pipe.holder()
            if pipe.call("share", [self._holder, sorted(self._windows)]):
                raise ShmstoreError(
                    "what this forked process has views of was not kept for it: its parent died "
                    "before it could say so"
                )
        except _SERVER_GONE:
            pass
        finally:
            pipe.close()


def view(pipe: Pipe, record: Record, version: int) -> memoryview | None:
    """Return a read-only view of a record's value, which stays as it is; None if there is none.

    Of bytes it shows what they hold, of anything else the msgpack. While there is a view of this
    ``version`` already it costs no request. Raises as Book.open().
    """
    reader = pipe.reader
    book = _books.get(reader.segment_id)
    if book is None:
        book = _books.setdefault(reader.segment_id, Book(pipe.address, reader.segment_id))
    found = book.find(record, version)
    return book.open(pipe, record) if found is None else found


def _view(mapping: Any, window: _Window) -> memoryview:
    value = memoryview(mapping)[window.inside : window.inside + window.size]
    return value[_BYTES_HEADS.get(value[0], 0) :]


def _note_end(window: ref[Any]) -> None:
    cast(_Window, window).book.note(cast(_Window, window))


_books: dict[bytes, Book] = {}
"""By segment: whatever becomes of clients, windows and their pins are the process's."""


class _Child:
    """A forked child, until it has pinned what it has: then it closes its end of a pipe."""

    def __init__(self, receiver: int) -> None:
        self._receiver = receiver

    def __del__(self) -> None:
        os.close(self._receiver)  # not before: another thread may be waiting for it

    def has_pinned(self, milliseconds: int | None = None) -> bool:
        """Wait so long, None is no limit; tell whether it has, or is dead."""
        poll = select.poll()
        poll.register(self._receiver, select.POLLIN)
        return bool(poll.poll(milliseconds))


_children: list[_Child] = []
_forking: dict[int, int] = {}
"""The children's ends of the pipes, by the thread that forks."""


def _wait_for_children(milliseconds: int | None = None) -> None:
    for child in list(_children):
        if child.has_pinned(milliseconds):
            with suppress(ValueError):  # another thread was faster
                _children.remove(child)


def _before_fork() -> None:
    _wait_for_children(0)
    if any(book.in_use for book in list(_books.values())):
        receiver, sender = os.pipe()
        _children.append(_Child(receiver))
        _forking[get_ident()] = sender


def _after_fork_in_parent() -> None:
    sender = _forking.pop(get_ident(), None)
    if sender is not None:
        os.close(sender)


def _after_fork_in_child() -> None:
    senders = list(_forking.values())
    _children.clear()
    _forking.clear()
    try:
        for book in _books.values():
            book.start_over_in_child()
        for book in _books.values():
            if book.in_use:
                book.share()
    finally:
        for sender in senders:
            os.close(sender)


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
