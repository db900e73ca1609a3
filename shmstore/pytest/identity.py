"""Which value of which fixture is meant: a key that is the same in all processes of a run.

It tells apart what pytest tells apart: fixtures of one name in several places, also if they come
of one function; the modules, packages or classes of a narrower scope; parameters, by value, those
of the fixtures it asks for among them; and what overrides these.
"""

from __future__ import annotations

import inspect
import os
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AnySet
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .conftests import reduced
from .declaring import Declaration, Function, check_scope
from .errors import NotSharedWarning

if TYPE_CHECKING:
    import pytest

NAME_CHARACTERS_MAX = 60
SHOWN_CHARACTERS_MAX = 30
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})


class Instance(NamedTuple):
    """One value of a shared fixture: what identifies it, and how it is spoken of."""

    key: str
    name: str
    label: str
    """The fixture's name with its parameter, for people."""
    location: str
    """The file and the line where it is defined."""
    declaration: Declaration


def instance_of(
    fixture: pytest.FixtureDef[Any], request: Any, declaration: Declaration
) -> Instance:
    """Return the instance of ``fixture`` that a pytest ``request`` asks for.

    Warns with NotSharedWarning where a parameter has no value that other processes could know.
    """
    check_scope(fixture.scope)
    name = fixture.argname
    file, line, qualified_name = _definition(declaration.function, request.config.rootpath)
    node = "" if fixture.scope == "session" else request.node.nodeid
    visible = _Visible(request)
    names = visible.closure(fixture, declaration.function)
    overridden = [[other, visible.base(other)] for other in names if other != name]
    parts = [file, line, qualified_name, name, fixture.baseid, node, overridden]
    digest = blake2b(_fingerprint(parts), digest_size=12)
    for other in names:
        if other in visible.parameters:
            digest.update(_fingerprint(other))
            digest.update(_parameter_fingerprint(visible.parameters[other], name, other))
    shown = _shown(visible.parameters[name]) if name in visible.parameters else ""
    return Instance(
        f"{name[:NAME_CHARACTERS_MAX]}-{digest.hexdigest()}",
        name,
        name + shown,
        _location(file, line),
        declaration,
    )


def location_of(function: Function, root: Path) -> str:
    """Return the file, as seen from the directory of the run, and the line of a fixture."""
    file, line, _ = _definition(function, root)
    return _location(file, line)


def _location(file: str, line: int) -> str:
    return f"{file}:{line}"


class _Visible:
    """The fixtures that a test can see, and the parameters it was made with."""

    def __init__(self, request: Any) -> None:
        self._item = request._pyfuncitem
        self._manager = request._fixturemanager
        callspec = getattr(self._item, "callspec", None)
        self.parameters: Mapping[str, Any] = {} if callspec is None else callspec.params

    def closure(self, fixture: pytest.FixtureDef[Any], function: Function) -> list[str]:
        """Return the names a fixture asks for, directly or not, and its own; sorted.

        All fixtures of a name count, also those that are overridden: rather two values than one
        value for two. What is asked for by getfixturevalue counts where the name is written out.
        """
        names = {fixture.argname}
        asked = [*fixture.argnames, *_written_out(function)]
        while asked:
            name = asked.pop()
            if name not in names and (named := self._named(name)):
                names.add(name)
                for found in named:
                    asked += [*found.argnames, *_written_out(found.func)]
        return sorted(names)

    def base(self, name: str) -> str:
        """Return where the fixture is defined that a name means, "" if there is but one."""
        named = self._named(name)
        return named[-1].baseid if len(named) > 1 else ""

    def _named(self, name: str) -> Sequence[pytest.FixtureDef[Any]]:
        # The first is what pytest found as it collected, direct parametrization included.
        known = self._item._fixtureinfo.name2fixturedefs.get(name)
        return known or definitions(self._manager, name, self._item)


def _written_out(function: Function) -> list[str]:
    """Return what the function may give to getfixturevalue: all texts in it, if it uses that."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or "getfixturevalue" not in code.co_names:
        return []
    return [text for text in code.co_consts if type(text) is str]


def definitions(manager: Any, name: str, item: Any) -> Sequence[pytest.FixtureDef[Any]]:
    """Return the fixtures of a name that a test can see, the one that it gets last."""
    found: Sequence[pytest.FixtureDef[Any]] | None
    try:
        found = manager.getfixturedefs(name, item)
    except (AttributeError, TypeError):  # before pytest 8.1 it took the name of the node
        found = manager.getfixturedefs(name, item.nodeid)
    return found or ()


def _definition(function: Function, root: Path) -> tuple[str, int, str]:
    inner: Any = inspect.unwrap(function)
    code = getattr(inner, "__code__", None)
    if code is None:
        return type(inner).__module__, 0, getattr(inner, "__qualname__", repr(inner))
    path = Path(code.co_filename)
    file = path.relative_to(root) if path.is_relative_to(root) else path
    return str(file), code.co_firstlineno, inner.__qualname__


def _shown(parameter: Any) -> str:
    text = str(parameter) if type(parameter) in _ATOMS else type(parameter).__name__
    text = text.encode("utf-8", "backslashreplace").decode()  # surrogates cannot be stored
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = text[: SHOWN_CHARACTERS_MAX - 3] + "..."
    return f"[{text}]"


def _parameter_fingerprint(parameter: Any, fixture: str, name: str) -> bytes:
    try:
        return _fingerprint(parameter)
    except Exception as error:  # objects raise what they like
        warnings.warn(
            NotSharedWarning(
                f"shared fixture {fixture!r} is computed in each process: its parameter {name} is "
                f"a {type(parameter).__qualname__} that cannot be pickled ({error}), so that no "
                f"other process can tell whether it means the same; use a name for it instead"
            ),
            stacklevel=2,
        )
        return f"{os.getpid()} {id(parameter)}".encode()


def _fingerprint(value: Any) -> bytes:
    """Return bytes that are equal for equal values of equal types, in whatever process.

    Raises whatever objects raise that cannot be pickled.
    """
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind in _ATOMS:
        parts = [repr(value).encode()]
    elif isinstance(value, Mapping):
        parts = sorted(_fingerprint([key, inner]) for key, inner in value.items())
    elif isinstance(value, AnySet):  # which no two processes walk in the same order
        parts = sorted(map(_fingerprint, value))
    elif kind in (list, tuple):
        parts = list(map(_fingerprint, value))
    else:
        parts = [_pickled(value)]
    return _joined([name.encode(), *parts])


def _pickled(value: object) -> bytes:
    file = BytesIO()
    _Pickler(file, protocol=4).dump(value)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Lets the sets in an object not stand in the order of this process."""

    def persistent_id(self, value: object) -> bytes | None:
        return _fingerprint(value) if type(value) in (set, frozenset) else None

    def reducer_override(self, value: object) -> Any:
        return reduced(value)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)
