"""Which engine runs, decided once, at import; nobody else asks.

``SHMSTORE_ENGINE`` unset takes the native engine if there is one that fits, else the pure one;
``pure`` or ``native`` demands one, and a demand that cannot be met raises ImportError.
"""

import os
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from . import layout, pure

__all__ = ["WHY_PURE", "load_native"]
__all__ += pure.__all__

_TWINS = [name for name in pure.__all__ if name != "INVARIANTS"]
_REMEDY = "install a C compiler and Python's headers, then shmstore again, without pip's cache"
_X86_ONLY = "the pure engine needs the memory order of x86: here concurrent reads may be wrong"


def load_native() -> ModuleType:
    """Return the native engine; raise ImportError, which says why, if none is here that fits."""
    native = import_module("shmstore._native")
    if getattr(native, "LAYOUT_DIGEST", None) != layout.digest():  # of FORMAT_VERSION as well
        raise ImportError(f"{native.__file__} was built for another format")
    if lacking := [name for name in _TWINS if not hasattr(native, name)]:
        raise ImportError(f"{native.__file__} lacks {', '.join(lacking)}")
    return native


_engine, _demanded = pure, os.environ.get("SHMSTORE_ENGINE", "")
WHY_PURE: str | None = None
"""Why the native engine does not run and how to get it; None if it does, or nobody wants it."""
if _demanded not in ("", "pure", "native"):
    raise ImportError(f"SHMSTORE_ENGINE must be 'pure', 'native' or unset, not {_demanded!r}")
if _demanded != "pure":
    try:
        _engine = load_native()
    except ImportError as error:
        WHY_PURE = f"the native engine cannot be used: {error}; to get it, {_REMEDY}"
        if _demanded:
            raise ImportError(WHY_PURE) from error
if TYPE_CHECKING:
    from .pure import *  # noqa: F403 - all that the engines have, in the words of the pure one
else:
    globals().update((name, getattr(_engine, name)) for name in _TWINS)

    def __getattr__(name):
        """Give the words that both engines share; they come with most of the pure one."""
        if name != "INVARIANTS":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return pure.INVARIANTS


if _engine is pure:
    import platform

    if platform.machine() not in ("x86_64", "AMD64", "i686"):
        warnings.warn(_X86_ONLY, RuntimeWarning, stacklevel=2)
