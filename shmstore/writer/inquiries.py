"""What changes no record: answers from what is committed, at once or later. Writer process only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..engine import NAME, Owner
from ..errors import InvalidArgument, ProtocolError, ShmstoreError
from ..protocol import READ_METHODS, Request
from .border import checked_pins, checked_wait
from .holders import Holders
from .peer import Peer
from .waits import Waits

LATER: Any = object()
"""Stands for the answer of what has none now."""


class Inquiries:
    """Answers to all operations of protocol.INQUIRIES. The open batch must be empty."""

    def __init__(
        self,
        owner: Owner,
        holders: Holders,
        waits: Waits[Peer],
        figures: Callable[[], dict[str, Any]],
    ) -> None:
        """``figures`` of the process become part of the statistics."""
        self._owner = owner
        self._holders = holders
        self._waits = waits
        self._figures = figures

    def answer(self, peer: Peer, request: Request) -> Any:
        """Return the result, or LATER.

        Errors: what the reader raises, ``InvalidArgument``, and other kinds of ShmstoreError.
        """
        operation, arguments = request.operation, request.arguments
        if operation == "read":
            return self._read(arguments)
        if operation == "wait":
            version = self._waits.begin(peer, request.id, *checked_wait(arguments))
            return LATER if version is None else version
        if operation == "unwait":
            self._waits.end(peer, request.id)
            return None
        if operation == "hold":
            if len(arguments) != 1:
                raise ProtocolError("a hold names the start time of the process")
            return self._holders.hold(peer.pid, arguments[0])
        if operation == "share":
            return self._holders.share(*checked_pins(arguments))
        if operation == "unpin":
            return self._holders.unpin(*checked_pins(arguments))
        if operation == "stats":
            facts = {"pid": os.getpid(), "engine": NAME}
            return {**self._owner.statistics(), **facts, **self._figures()}
        if operation == "check":
            from . import soundness  # loads most of the pure engine, which few writers need

            return soundness.check(self._owner)
        return os.getpid()

    def _read(self, arguments: list[Any]) -> Any:
        method, values = arguments if len(arguments) == 2 else (None, None)
        if type(method) is not str or method not in READ_METHODS or type(values) is not list:
            names = ", ".join(sorted(READ_METHODS))
            raise InvalidArgument(f"a read names one of {names}, and the list of its arguments")
        try:
            return getattr(self._owner.reader, method)(*values)
        except ShmstoreError:
            raise
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidArgument(f"read {method}: {error}") from error
