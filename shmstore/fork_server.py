"""What the children of a fork server, of multiprocessing or multiprocess, are told of namespaces.

They are forked by a server that keeps the environment of the time it was started in. But each of
them is sent the object of its process, and in that a dict which all processes hand on. What is put
there says, when it is pickled to be sent, what the environment holds at that moment.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_KEY = "shmstore_namespace"


class _Variable:
    """Is pickled as the value that a variable of the environment has by then, "" for none."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (os.environ.get(self._name, ""),)


def hand_on(variable: str) -> None:
    """Have children that are started from here be told what ``variable`` holds."""
    for process in _processes():
        process._config[_KEY] = _Variable(variable)


def told() -> str | None:
    """Return what this process was told; None if it is no child of a fork server.

    Raises TooEarly while such a child is still being sent what it is to do.
    """
    for process in _processes():
        if getattr(process, "_inheriting", False):
            raise TooEarly
        if getattr(process, "_start_method", None) == "forkserver":
            value = process._config.get(_KEY)
            return value if type(value) is str else None
    return None


class TooEarly(Exception):
    """A process does not know yet what it was told."""


def _processes() -> list[Any]:
    """Return the objects of this process, one of each library that is in use here."""
    modules = [sys.modules.get(f"{name}.process") for name in ("multiprocessing", "multiprocess")]
    return [module.current_process() for module in modules if module is not None]
