"""A shared fixture in place of an ordinary one: what pytest calls, and what it gets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from _pytest.fixtures import resolve_fixture_function

from .body import Body
from .declaring import Declaration, Function
from .identity import instance_of

if TYPE_CHECKING:
    import pytest

    from .process import Process
    from .values import Loaded


class SharedDefinition:
    """What one definition of a fixture, a FixtureDef of pytest, does in this process."""

    def __init__(
        self,
        fixture: pytest.FixtureDef[Any],
        declaration: Declaration,
        process: Callable[[], Process],
    ) -> None:
        self._fixture = fixture
        self._declaration = declaration
        self._process = process
        self._load: Callable[[], Loaded] | None = None
        """What gives a test a value of its own; None if all may have the same."""
        self._is_new = False
        attributes: Any = fixture
        attributes.execute = self.execute

    def execute(self, request: Any) -> Any:
        """Do what FixtureDef.execute does, and give each test a value of its own."""
        __tracebackhide__ = True
        fixture: Any = self._fixture
        self._is_new = False
        type(fixture).execute(fixture, request)
        if self._load is not None and not self._is_new:
            fixture.cached_result = (self._load().value, *fixture.cached_result[1:])
        return fixture.cached_result[0]

    @contextmanager
    def in_place(self, request: Any) -> Iterator[None]:
        """Let pytest call, inside the block, what gets the value instead of the function.

        The innermost place: other plugins have made of the function what can be called by then.
        """
        fixture: Any = self._fixture
        function = resolve_fixture_function(fixture, request)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            yield  # nobody can call it; pytest says so
            return
        original, self._load = fixture.func, None

        def instead(*_: Any, **arguments: Any) -> Any:
            __tracebackhide__ = True
            return self._value(request, function, arguments)

        fixture.func = instead
        try:
            yield
        finally:
            fixture.func = original

    def _value(self, request: Any, function: Function, arguments: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        process = self._process()
        instance = instance_of(self._fixture, request, self._declaration)
        body = Body(self._fixture, request, function, arguments)
        load = process.obtain(instance, request._pyfuncitem.nodeid, body)
        loaded = load()
        self._load, self._is_new = None if loaded.reusable else load, True
        return loaded.value
