"""The function of a fixture, and what it wants to have called when its value is done with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _pytest.fixtures import call_fixture_func

from .declaring import Function

if TYPE_CHECKING:
    import pytest


class Body:
    """The function of a fixture, to be called once; what it wants to be called in the end."""

    def __init__(
        self,
        fixture: pytest.FixtureDef[Any],
        request: Any,
        function: Function,
        arguments: dict[str, Any],
    ) -> None:
        self._fixture = fixture
        self._request = request
        self._function = function
        self._arguments = arguments
        self.finalizers: list[Callable[[], object]] = []

    def dependencies(self) -> list[pytest.FixtureDef[Any]]:
        """Return the fixtures whose values the function was given."""
        names = [name for name in self._fixture.argnames if name != "request"]
        return [self._request._get_active_fixturedef(name) for name in names]

    def call(self) -> Any:
        """Return the value; pytest is not told of the finalizers, as it would call them soon."""
        __tracebackhide__ = True
        attributes: Any = self._fixture
        attributes.addfinalizer = self.finalizers.append
        try:
            return call_fixture_func(self._function, self._request, self._arguments)
        finally:
            del attributes.addfinalizer
