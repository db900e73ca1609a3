"""A process's view of a segment: which one it is, and the reader of its mapped memory."""

from __future__ import annotations

import os
from contextlib import suppress
from mmap import mmap

from .. import runtime, segment
from ..engine import Reader
from ..errors import ProtocolError, ShmstoreError, StoreNotFound, WriterUnavailable
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

    def accept(self, greeting: Greeting) -> None:
        """Map the memory that came with the greeting, unless that was done before.

        StoreNotFound if it is another segment than before; FormatMismatch if it cannot be read,
        ProtocolError if it cannot be mapped.
        """
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
            self.segment_id = segment_id
        finally:
            os.close(greeting.memory_fd)

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

    def close(self) -> None:
        """Let go of the memory: what reads there afterwards meets a ValueError."""
        reader, self.reader = self.reader, None
        if reader is not None:
            with suppress(BufferError):  # a read is under way in another thread, and ends its own
                reader.close()

    def gone(self, reason: str) -> ShmstoreError:
        """Return the error of a request when nobody listens at the address."""
        if self.reader is None:
            return runtime.not_found(self.address, reason)
        return WriterUnavailable(
            f"the server at {self.address} cannot be reached any more ({reason}): what it stored "
            f"can still be read here, but not be changed",
            address=self.address,
        )
