"""What goes wrong with values: they cannot be shared, or are not there any more."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...errors import ShmstoreError


class _Local(ShmstoreError):
    """An error that never crosses the pipe: it is pickled as what it is."""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.details), (self.message,)


class NotShareable(_Local, TypeError):
    """A value, or a part of it, cannot be given to other processes.

    ``details`` has the ``path`` of that part and its ``type``.
    """


class ValueGone(_Local, RuntimeError):
    """A value was removed from the store while somebody still used it."""
