"""What the writer says of its own trouble: one line to its log, never a traceback."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from ..errors import ShmstoreError, StoreFull

LOG_LINES_MAX = 100
"""More is not said: nobody may read the log, and a full pipe would stop the writer."""

_lines_logged = 0


def presentable(error: Exception, doing: str) -> ShmstoreError:
    """Return what a client is told of ``error``. One that is no ShmstoreError is logged."""
    if isinstance(error, ShmstoreError):
        return error
    if isinstance(error, MemoryError):
        log(f"no memory left in {doing}")
        return StoreFull(f"the writer process has no memory left of its own in {doing}")
    text = f"internal error of the writer in {doing}: {type(error).__name__}: {error}"
    log(text)
    return ShmstoreError(text)


def log(text: str) -> None:
    """Write one line to standard error, if there is one."""
    global _lines_logged
    _lines_logged += 1
    if _lines_logged > LOG_LINES_MAX:
        return
    line = f"shmstore: writer {os.getpid()}: {text}".replace("\n", " ")
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
