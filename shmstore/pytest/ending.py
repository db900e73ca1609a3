"""The end of shared values: when nobody uses them any more, what follows their yield is run.

The process that computed a value closes it, at its own end: its turn comes where pytest would tear
down a session fixture that was set up when the value was. There it waits until nobody uses the
value. If the process died, the function given to ``teardown`` is run by one of those that are left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ShmstoreError, WriterUnavailable
from .body import Body
from .closing import Closing
from .declaring import Declaration, declaration_of
from .identity import Instance, definitions, location_of
from .ledger import CLOSING, READY, VALUES, Ledger, value_key
from .values import fetch

if TYPE_CHECKING:
    import pytest

Task: TypeAlias = Callable[[], None]


class Ending:
    """What this process has to do in the end. Nothing of it is done in forked children.

    It is added to the finalizers of pytest's session, which run last in, first out, so that what
    the fixture was given lives longer. As some versions of pytest finish that earlier, it is added
    to the finalizers of that, too: who comes first runs it.
    """

    def __init__(
        self, ledger: Ledger, session: pytest.Session, used: set[str], closing: Closing
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._used = used
        self._closing = closing
        self._open: list[Task] = []
        self._process = os.getpid()
        self.is_over = False
        """Whether the last test was run: what is finished before is needed by others yet."""
        self.interruption: KeyboardInterrupt | None = None
        """What came while this process waited: to be raised when all has been run."""

    def own(self, instance: Instance, value: Any, body: Body) -> None:
        """Close a value that was computed here, when nobody uses it any more."""
        self._add(partial(self._close, instance, value, body.finalizers), body)

    def abandon(self, body: Body) -> None:
        """End what a fixture has begun that has come to no value."""
        if body.finalizers:
            self._add(partial(self._run, body.finalizers), body)

    def use(self, instance: Instance, body: Body) -> None:
        """Let go of a value that another process computed."""
        self._add(partial(self._leave, instance), body)

    def remaining(self) -> list[Task]:
        """Return what pytest has not called in time, each to be called by itself."""
        return [partial(self._end, task) for task in reversed(self._open)]

    def _add(self, task: Task, body: Body) -> None:
        self._open.append(task)
        end = partial(self._end, task)
        self._session.addfinalizer(end)
        for fixture in body.dependencies():
            fixture.addfinalizer(end)

    def _end(self, task: Task) -> None:
        if self.is_over and task in self._open and os.getpid() == self._process:
            self._open.remove(task)
            task()

    # The tasks.

    def _close(
        self, instance: Instance, value: Any, finalizers: list[Callable[[], object]]
    ) -> None:
        release = instance.declaration.release
        with ExitStack() as steps:  # all of them, whatever they raise
            steps.callback(self._say_closed, instance)
            if release is not None:
                steps.callback(release, value)
            for finalizer in finalizers:
                steps.callback(finalizer)
            self._await_last_use(instance)

    def _run(self, finalizers: list[Callable[[], object]]) -> None:
        with ExitStack() as steps:
            for finalizer in finalizers:
                steps.callback(finalizer)

    def _await_last_use(self, instance: Instance) -> None:
        try:
            self._closing.say_done()
            self._closing.begin(instance)
        except ShmstoreError:
            pass  # the controller is gone, most likely: all that is left is to tidy up
        except KeyboardInterrupt as interruption:
            # Raised here it would take the place of all that is still to be run.
            self.interruption = interruption
            self._closing.hurry()

    def _say_closed(self, instance: Instance) -> None:
        with suppress(ShmstoreError):
            self._ledger.close(instance.key)

    def _leave(self, instance: Instance) -> None:
        self._used.discard(instance.key)
        with suppress(ShmstoreError):
            self._closing.say_done()
            self._ledger.leave(instance.key)

    # What processes that died have left.

    def legacies(self) -> list[Task]:
        """Return what is to be called when this process has ended all else, each by itself."""
        if os.getpid() != self._process:
            return []
        found: list[Task] = []
        for key, result in self._ledger.unclosed().items():
            declaration = self._declaration(result) if result["releases"] else None
            if declaration is not None and declaration.release is not None:
                label, location = result["label"], result["location"]
                instance = Instance(key, result["name"], label, location, declaration)
                found.append(partial(self._take_over, instance, declaration.release))
        return found

    def _declaration(self, result: dict[str, Any]) -> Declaration | None:
        """Return what was declared of the fixture of a result, which this process may not use."""
        root = self._session.config.rootpath
        for item in self._session.items:
            for definition in definitions(self._session._fixturemanager, result["name"], item):
                found = declaration_of(definition.func)
                if found and location_of(found.function, root) == result["location"]:
                    return found
        return None

    def _take_over(self, instance: Instance, release: Callable[[Any], object]) -> None:
        """Release a value if its owner dies before it is closed, unless somebody else does."""
        key, ledger = instance.key, self._ledger
        with suppress(WriterUnavailable):
            while not self._closing.is_late and ledger.state(key) in (READY, CLOSING):
                if not self._closing.await_owner(instance) and ledger.own(key):
                    self._closing.begin(instance)
                    try:
                        name = value_key(key, ledger.results[key])
                        release(fetch(ledger.client, VALUES, name).value)
                    finally:
                        ledger.close(key)
