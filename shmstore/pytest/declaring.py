"""``shared_fixture``: what stands above a fixture that is computed once in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, cast, overload

import pytest

SCOPES = ("session", "package", "module", "class")
_ATTRIBUTE = "__shmstore_fixture__"
_is_any_declared = False
Function: TypeAlias = Callable[..., Any]
Release = TypeVar("Release", bound=Callable[[Any], object])


@dataclass
class Declaration:
    """What was said of a shared fixture where it is defined."""

    function: Function
    timeout: float | None = None
    as_table: bool | None = None
    release: Callable[[Any], object] | None = None

    def teardown(self, release: Release, /) -> Release:
        """Have ``release`` called, see SharedFixture."""
        if self.release is not None:
            raise ValueError(
                f"{self.function.__qualname__}.teardown was used before, for {self.release!r}"
            )
        self.release = release
        return release


class SharedFixture(Protocol):
    """A shared fixture; tests get its value by its name, as of any other."""

    def teardown(self, function: Release, /) -> Release:
        """Have ``function(value)`` called once in the run, when no process uses the value any more.

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

    Above ``pytest.fixture``, or the like of a plugin, it shares what that has made.

    ``timeout`` bounds, in seconds, how long other workers wait for the value; by default the
    option shmstore_timeout does. ``as_table`` stores a mapping or sequence row by row (True) or
    as a whole (False); by default its size decides.
    """
    if isinstance(scope, str):
        check_scope(scope)
    if timeout is not None and not timeout > 0:  # as nothing is in comparison with nan
        raise ValueError(f"timeout={timeout!r}: give a number of seconds greater than 0")
    options: dict[str, Any] = {"params": params, "autouse": autouse, "ids": ids, "name": name}

    def decorate(function: Function) -> SharedFixture:
        inner = _function_of(function)
        made: Any = function
        if inner is not None and (scope != "session" or any(options.values())):
            raise TypeError(
                f"{inner.__qualname__} is a fixture already: give scope, params, autouse, ids and "
                f"name to the decorator below shared_fixture"
            )
        declaration = Declaration(inner or function, timeout, as_table)
        _declare(declaration)
        if inner is None:
            made = pytest.fixture(scope=cast(Any, scope), **options)(function)
        made.teardown = declaration.teardown
        return cast(SharedFixture, made)

    return decorate if function is None else decorate(function)


def check_scope(scope: str) -> None:
    """Raise ValueError for a scope of fixtures that cannot be shared."""
    if scope not in SCOPES:
        raise ValueError(
            f"a shared fixture cannot have scope {scope!r}: use one of {', '.join(SCOPES)}, or "
            f"pytest.fixture for a value of each test"
        )


def _function_of(fixture: Any) -> Function | None:
    """Return the function of what pytest.fixture returned; None if this is none of it."""
    if hasattr(fixture, "_get_wrapped_function"):  # since pytest 8.4
        function: Function = fixture._get_wrapped_function()
        return function
    if hasattr(fixture, "_pytestfixturefunction"):
        function = fixture.__pytest_wrapped__.obj
        return function
    return None


def _declare(declaration: Declaration) -> None:
    global _is_any_declared
    _is_any_declared = True
    inner: Any = getattr(declaration.function, "__func__", declaration.function)
    setattr(inner, _ATTRIBUTE, declaration)  # where it is seen through methods and wrappers


def declaration_of(function: Function) -> Declaration | None:
    """Return what was declared of a fixture function, bound or wrapped; None if it is not ours."""
    return getattr(function, _ATTRIBUTE, None)


def is_any_declared() -> bool:
    """Tell whether this process came across any shared fixture."""
    return _is_any_declared
