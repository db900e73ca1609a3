"""What goes wrong with shared fixtures; values have errors of their own."""

from __future__ import annotations

from typing import Any

from ..errors import ShmstoreError


class FixtureError(ShmstoreError, RuntimeError):
    """A shared fixture has no value."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message,)


class FixtureTimeout(FixtureError, TimeoutError):
    """The process that computes a shared fixture took longer than others may wait."""


class WorkersDied(FixtureError):
    """Every process that computed a shared fixture died of it."""


class FixtureCycle(FixtureError):
    """Shared fixtures that are being computed wait for each other."""


class FixtureFailed(FixtureError):
    """A shared fixture raised, in another process, what cannot be raised here as it is."""


class NotSharedWarning(UserWarning):
    """A shared fixture is computed in each process that needs it, for the reason given."""


class OriginalTraceback(Exception):
    """The traceback of an exception, as text, from the process in which it was raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text.rstrip()}"
