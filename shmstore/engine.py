"""Which engine runs, decided once, at import.

``SHMSTORE_ENGINE`` unset takes the best there is; ``pure`` or ``native`` demands one, and a
demand that cannot be met raises. Nobody else asks.
"""

from __future__ import annotations

import os
import platform
import warnings

from .pure import INVARIANTS, Found, Owner, Reader, check_segment, is_formatted

__all__ = ["INVARIANTS", "NAME", "Found", "Owner", "Reader", "check_segment", "is_formatted"]

NAME = "pure"
"""The name of the engine in use."""

_demanded = os.environ.get("SHMSTORE_ENGINE", "")
if _demanded not in ("", "pure"):
    raise ImportError(
        f"SHMSTORE_ENGINE={_demanded!r} cannot be had: this build has the engine 'pure' only; "
        "unset the variable or set it to 'pure'"
    )
if platform.machine() not in ("x86_64", "AMD64", "i686"):
    warnings.warn(
        f"the pure engine relies on the memory order of x86; on {platform.machine()} concurrent "
        "reads may be wrong",
        RuntimeWarning,
        stacklevel=2,
    )
