"""A process's view of a segment: which one it is, and the reader of its mapped memory."""

from __future__ import annotations

import os
from contextlib import suppress
from mmap import mmap
from typing import Any

from .. import runtime, segment
from ..engine import Reader, open_window
from ..errors import LimitReached, ProtocolError, ShmstoreError, StoreNotFound, WriterUnavailable
from .connection import Greeting


class Attachment:
    """The segment of the server at ``address``; once mapped, it stays, whatever the server does.

    ``segment_id`` demands one segment and no other; without it the first one found is demanded
    from then on.
    """

    def __init__(self, address: str, segment_id: bytes | None) -> None:
        self.address = address
        self.segment_id = segment_id
        self.reader: Reader | None = None
        self.memory_fd: int | None = None
        """A descriptor of the memory, as long as there is a reader."""

    def accept(self, greeting: Greeting) -> None:
        """Map the memory that came with the greeting, unless that was done before.

        StoreNotFound if it is another segment than before; FormatMismatch if it cannot be read,
        ProtocolError if it cannot be mapped.
        """
        memory_fd: int | None = greeting.memory_fd
        try:
            segment_id = greeting.facts.get("segment")
            if type(segment_id) is not bytes:
                raise ProtocolError(f"the server at {self.address} does not name its segment")
            if self.segment_id not in (None, segment_id):
                raise StoreNotFound(
                    f"the server at {self.address} is another one than before, with other memory: "
                    f"connect to it anew",
                    address=self.address,
                )
            if self.reader is None:
                self.reader = Reader(self._mapped(greeting.memory_fd))
                self.memory_fd, memory_fd = memory_fd, None
            self.segment_id = segment_id
        finally:
            if memory_fd is not None:
                os.close(memory_fd)

    def _mapped(self, memory_fd: int) -> mmap:
        try:
            return segment.map_readonly(memory_fd)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in runtime.OWN_TROUBLE:
                raise
            raise ProtocolError(
                f"what the server at {self.address} hands out as its memory cannot be mapped: "
                f"{error}"
            ) from error

    def __del__(self) -> None:
        self._close_descriptor()

    def open_window(self, offset: int, size: int) -> tuple[Any, int]:
        """Map some bytes; return what exports them, and where they begin in it.

        ProtocolError if there are no such bytes, LimitReached if this process cannot map more.
        """
        assert self.reader is not None
        assert self.memory_fd is not None
        if not (offset > 0 and size > 0 and offset + size <= self.reader.capacity):
            raise ProtocolError(f"{size} bytes at {offset} are not in the memory of {self.address}")
        try:
            return open_window(self.memory_fd, offset, size)
        except OSError as error:
            raise LimitReached(
                f"this process cannot have another view: {error.strerror}", limit=None
            ) from error

    def close(self) -> None:
        """Let go of the memory: what reads there afterwards meets a ValueError."""
        reader, self.reader = self.reader, None
        self._close_descriptor()
        if reader is not None:
            with suppress(BufferError):  # a read is under way in another thread, and ends its own
                reader.close()

    def _close_descriptor(self) -> None:
        memory_fd, self.memory_fd = self.memory_fd, None
        if memory_fd is not None:
            os.close(memory_fd)

    def gone(self, reason: str) -> ShmstoreError:
        """Return the error of a request when nobody listens at the address."""
        if self.reader is None:
            return runtime.not_found(self.address, reason)
        return WriterUnavailable(
            f"the server at {self.address} cannot be reached any more ({reason}): what it stored "
            f"can still be read here, but not be changed",
            address=self.address,
        )
