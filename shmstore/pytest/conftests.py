"""Classes and functions of a conftest.py, as pickles of them name these in every process of a run.

Most conftest.py are one module of Python by name, "conftest", of which pytest keeps the one that it
imported last: what stands in the others no import finds. Here they are told by their files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from operator import attrgetter
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakValueDictionary

_known: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()


def know_conftests(plugins: Iterable[object]) -> None:
    """Know those of ``plugins`` that are a conftest.py, for as long as somebody has them loaded.

    A run inside a run that loads the same file anew does not take the place of what is there.
    """
    for plugin in plugins:
        file = getattr(plugin, "__file__", None)
        if isinstance(plugin, ModuleType) and file and file.endswith("conftest.py"):
            _known.setdefault(file, plugin)


def reduced(value: object) -> Any:
    """Return how to pickle a class or function of a conftest.py that no import finds.

    NotImplemented, as ``reducer_override`` of a pickler has it, for all else.
    """
    if not isinstance(value, (type, FunctionType)):
        return NotImplemented
    name = value.__qualname__
    if not _has(sys.modules.get(value.__module__), name, value):
        for file, module in _known.items():
            if _has(module, name, value):
                return _found, (file, name)
    return NotImplemented


def _has(module: ModuleType | None, name: str, value: object) -> bool:
    try:
        return attrgetter(name)(module) is value
    except AttributeError:
        return False


def _found(file: str, name: str) -> Any:
    if file not in _known:
        raise LookupError(f"{file} is not loaded here")
    return attrgetter(name)(_known[file])
