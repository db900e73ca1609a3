"""``shared_fixture``: what stands above a fixture that is computed once in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, cast, overload

import pytest

SCOPES = ("session", "package", "module", "class")
_ATTRIBUTE = "__shmstore_fixture__"
_declared: list[Declaration] = []

Function: TypeAlias = Callable[..., Any]
Release = TypeVar("Release", bound=Callable[[Any], object])


@dataclass
class Declaration:
    """What was said of a shared fixture where it is defined."""

    function: Function
    timeout: float | None = None
    as_table: bool | None = None
    release: Callable[[Any], object] | None = None


class SharedFixture(Protocol):
    """A shared fixture; tests get its value by its name, as of any other."""

    def teardown(self, function: Release, /) -> Release:
        """Have ``function(value)`` called once in the run, by the last process that used it.

        For what must be released even if the process that computed the value died: what follows
        a ``yield`` can run in that one alone. It runs after that, in any worker.
        """


@overload
def shared_fixture(function: Function, /) -> SharedFixture: ...


@overload
def shared_fixture(
    *,
    scope: str = ...,
    params: Iterable[object] | None = ...,
    autouse: bool = ...,
    ids: Any = ...,
    name: str | None = ...,
    timeout: float | None = ...,
    as_table: bool | None = ...,
) -> Callable[[Function], SharedFixture]: ...


def shared_fixture(
    function: Function | None = None,
    /,
    *,
    scope: str = "session",
    params: Iterable[object] | None = None,
    autouse: bool = False,
    ids: Any = None,
    name: str | None = None,
    timeout: float | None = None,
    as_table: bool | None = None,
) -> SharedFixture | Callable[[Function], SharedFixture]:
    """Make a fixture that is computed once in a test run, whatever the number of workers.

    Used as ``pytest.fixture``; ``scope`` is "session" unless given, and cannot be "function": it
    says how many values there are (one in the run, or one for each package, module or class).
    Every test gets a value of its own, equal to what the function returned or yielded. What
    follows ``yield`` runs once, in the process that computed, after the last use in any worker.

    ``timeout`` bounds, in seconds, how long other workers wait for the value; by default the
    option shmstore_timeout does. ``as_table`` stores a mapping or sequence row by row (True) or
    as a whole (False); by default its size decides.
    """

    def decorate(function: Function) -> SharedFixture:
        declare(function, Declaration(function, timeout, as_table))
        made: Any = pytest.fixture(
            scope=cast(Any, scope), params=params, autouse=autouse, ids=ids, name=name
        )(function)
        return cast(SharedFixture, made)

    if scope not in SCOPES:
        raise ValueError(
            f"a shared fixture cannot have scope {scope!r}: use one of {', '.join(SCOPES)}, or "
            f"pytest.fixture for a value of each test"
        )
    return decorate if function is None else decorate(function)


def declare(function: Function, declaration: Declaration) -> None:
    """Note a declaration at its function; what wraps the function has it, too."""

    def teardown(release: Release, /) -> Release:
        if declaration.release is not None:
            raise ValueError(
                f"{function.__qualname__}.teardown was used before, for {declaration.release!r}"
            )
        declaration.release = release
        return release

    _declared.append(declaration)
    attributes: Any = function
    setattr(attributes, _ATTRIBUTE, declaration)
    attributes.teardown = teardown


def declaration_of(function: Function) -> Declaration | None:
    """Return what was declared of a fixture function, bound or wrapped; None if it is not ours."""
    return getattr(function, _ATTRIBUTE, None)


def is_any_declared() -> bool:
    """Tell whether this process came across any shared fixture."""
    return bool(_declared)
