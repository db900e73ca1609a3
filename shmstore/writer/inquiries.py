"""What changes nothing: answers from what is committed. Writer process only."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..engine import NAME, Owner
from ..errors import InvalidArgument, ShmstoreError
from ..protocol import READ_METHODS


class Inquiries:
    """Answers to "read", "ping", "stats" and "check". The open batch must be empty."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def answer(
        self, operation: str, arguments: list[Any], figures: Callable[[], dict[str, Any]]
    ) -> Any:
        """Return the result; ``figures`` of the process become part of the statistics.

        Errors: what the reader raises, ``InvalidArgument``.
        """
        if operation == "read":
            return self._read(arguments)
        if operation == "stats":
            facts = {"pid": os.getpid(), "engine": NAME}
            return {**self._owner.statistics(), **facts, **figures()}
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
