"""Which part of a value cannot be shared: looked for when it is clear that there is one."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from .errors import NotShareable
from .survey import CONTAINERS

STEPS_MAX = 100
"""How many containers and objects inside each other are looked into: each dumps what is left."""
STEPS_SHOWN_MAX = 8
_ADVICE = "return plain data from the fixture, and make of it what is needed where it is used"
_ADVICE_ON_NAMES = "define it at the top of a module or of a conftest.py, where all workers find it"
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 60


class Refused(Exception):
    """A value cannot be dumped, for a reason that reads on from its path."""

    def __init__(self, reason: str, whole: bool = False) -> None:
        super().__init__(reason)
        self.whole = whole
        """Whether it is of no use to look for the part that is at fault."""


class _Suspect:
    """A part that is refused, while it is looked into."""

    def __init__(self, step: str, part: Any, refused: Refused, objects: bool) -> None:
        self.step = step
        self.part = part
        self.refused = refused
        self.parts = iter(()) if refused.whole else _parts(part, objects)
        self.to_blame = True
        """Whether no part of it was refused so far."""


def not_shareable(
    value: Any, name: str, refused: Refused, dump: Callable[[Any], object], objects: bool
) -> NotShareable:
    """Return the error that names the innermost part of ``value`` that ``dump`` refuses.

    ``objects`` are looked into, too, not only containers. Takes time in proportion to size and
    depth.
    """
    path = _innermost(_Suspect(name, value, refused, objects), dump, objects)
    steps = [suspect.step for suspect in path]
    if len(steps) > STEPS_SHOWN_MAX:
        steps[STEPS_SHOWN_MAX - 1 : -1] = ["..."]
    part = path[-1].part
    kind = _type_name(type(part))
    is_named = objects and isinstance(part, (type, FunctionType))
    return NotShareable(
        f"{''.join(steps)} cannot be shared: {kind} {path[-1].refused}; "
        f"{_ADVICE_ON_NAMES if is_named else _ADVICE}",
        path="".join(steps),
        type=kind,
    )


def _innermost(whole: _Suspect, dump: Callable[[Any], object], objects: bool) -> list[_Suspect]:
    """Return the way to a part that is refused though none of its parts is."""
    path = [whole]
    seen = {id(whole.part)}
    while path and len(path) <= STEPS_MAX:
        inner = _refused_part(path[-1], seen, dump, objects)
        if inner is not None:
            seen.add(id(inner.part))
            path.append(inner)
        elif path[-1].to_blame:
            return path
        else:
            path.pop()  # refused for the sake of what contains it
    return path or [whole]


def _refused_part(
    suspect: _Suspect, seen: set[int], dump: Callable[[Any], object], objects: bool
) -> _Suspect | None:
    for step, part in suspect.parts:
        if type(part) in _SCALARS:
            continue
        if id(part) in seen:
            suspect.to_blame = False
            continue
        try:
            dump(part)
        except Refused as refused:
            suspect.to_blame = False
            return _Suspect(step, part, refused, objects)
    return None


def _type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _parts(value: Any, objects: bool) -> Iterator[tuple[str, Any]]:
    """Yield what is inside ``value``, each with the step that leads there."""
    kind = type(value)
    if kind is dict:
        yield from ((f" key {shown(key)}", key) for key in value)
        yield from ((f"[{shown(key)}]", part) for key, part in value.items())
    elif kind is list or kind is tuple:
        yield from ((f"[{position}]", part) for position, part in enumerate(value))
    elif kind in CONTAINERS:
        yield from ((f" member {shown(part)}", part) for part in value)
    elif objects:
        yield from _state(value)


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a pickle of ``value`` holds."""
    try:
        reduced: Any = value.__reduce_ex__(5)
    except Exception:  # whatever objects raise that cannot be pickled: it is their own fault
        return
    if type(reduced) is not tuple:
        return
    arguments, state, items, pairs = (*reduced[1:5], None, None, None)[:4]
    yield from ((f" argument {position}", part) for position, part in enumerate(arguments))
    for attributes in state if isinstance(state, tuple) else (state,):
        if isinstance(attributes, dict):
            yield from ((f".{name}", part) for name, part in attributes.items())
    yield from ((f"[{position}]", part) for position, part in enumerate(items or ()))
    yield from ((f"[{shown(key)}]", part) for key, part in pairs or ())


def shown(value: Any) -> str:
    """Return the repr of ``value``, short, whatever its own repr does."""
    try:
        return _brief.repr(value)
    except Exception:  # of an object that is no use even for its own repr
        return f"<{type(value).__qualname__}>"
