"""What the children of a fork server, of multiprocessing or multiprocess, are told of namespaces.

They are forked by a server that keeps the environment of the time it was started in. What each of
them is sent is the object of its process; in that goes a dict which it copied from the process
that made it, and into which the name is put here.
"""

from __future__ import annotations

import sys
from typing import Any

_KEY = "shmstore_namespace"


def tell(name: str) -> None:
    """Hand ``name`` on to what will be started from here; "" is none."""
    for process in _processes():
        process._config[_KEY] = name


def told() -> str | None:
    """Return the name this process was handed on; None if it is no child of a fork server.

    Raises TooEarly while such a child is still being sent what it is to do.
    """
    for process in _processes():
        if getattr(process, "_inheriting", False):
            raise TooEarly
        if getattr(process, "_start_method", None) == "forkserver":
            name: str | None = process._config.get(_KEY)
            return name
    return None


class TooEarly(Exception):
    """A process does not know yet what it was handed on."""


def _processes() -> list[Any]:
    """Return the objects of this process, one of each library that is in use here."""
    modules = [sys.modules.get(f"{name}.process") for name in ("multiprocessing", "multiprocess")]
    return [module.current_process() for module in modules if module is not None]
