"""The hooks of the plugin. Loaded in every run of pytest: it imports little until it is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from ..errors import ShmstoreError
from .declaring import declaration_of, is_any_declared
from .fixtures import shm_client, shm_namespace, shm_table
from .run import INPUT, RUN, Run
from .settings import add_settings, read_settings
from .sharing import SharedDefinition

if TYPE_CHECKING:
    from .ledger import Ledger
    from .process import Process

__all__ = ["shm_client", "shm_namespace", "shm_table"]  # which pytest finds here
NOTHING_IS_SET_UP = ("collectonly", "setupplan", "showfixtures", "show_fixtures_per_test")
"""With these options no fixture is."""
Closure: TypeAlias = Mapping[str, Sequence[Any]]
"""The fixtures that a test names, and those these take, by their names."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("shmstore", "fixtures shared by the workers of a run")
    group.addoption(
        "--shared-durations",
        action="store_true",
        help="report who computed each shared fixture, how long it took, and who used it",
    )
    add_settings(parser)


def pytest_configure(config: pytest.Config) -> None:
    definitions: dict[Any, SharedDefinition] = {}
    run = config.stash[RUN] = Run(config, read_settings(config))
    config.pluginmanager.register(Hooks(config, run, definitions), "shmstore-run")
    config.pluginmanager.register(Innermost(definitions), "shmstore-fixtures")


class Innermost:
    """The hook that puts the shared value in the place of what other plugins made callable."""

    def __init__(self, definitions: dict[Any, SharedDefinition]) -> None:
        self._definitions = definitions

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: Any
    ) -> Generator[None, Any, None]:
        definition = self._definitions.get(fixturedef)
        with nullcontext() if definition is None else definition.in_place(request):
            yield


class Hooks:
    """The hooks of one run, in one of its processes."""

    def __init__(
        self, config: pytest.Config, run: Run, definitions: dict[Any, SharedDefinition]
    ) -> None:
        self._config = config
        self._run = run
        self._session: pytest.Session | None = None
        self._process: Process | None = None
        self._item: pytest.Item | None = None
        self._definitions = definitions

    def _this_process(self) -> Process:
        if self._process is None:
            from .process import Process

            assert self._session is not None
            self._process = Process(self._run, self._session, self._say)
        return self._process

    # Fixtures.

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Connect before any test begins, and may put something else in the place of sockets.

        A worker does if there is any shared fixture, so that the others know of it; a process
        without workers, which starts the store, if a test names what needs that.
        """
        self._session = session
        if any(getattr(session.config.option, name, False) for name in NOTHING_IS_SET_UP):
            return
        closures = _closures(session.items)
        # Whatever it is: here it would end the run, and tests that need one will hear of it.
        with suppress(Exception):
            if any("shm_client" in closure for closure in closures):
                self._run.connect_ahead()
            if is_any_declared() and (self._run.is_shared or any(map(_names_shared, closures))):
                self._this_process()

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, Any, None]:
        """Recognize a shared fixture, before other plugins put something else in its place."""
        declaration = declaration_of(fixturedef.func)
        if declaration is not None and fixturedef not in self._definitions:
            definition = SharedDefinition(fixturedef, declaration, self._this_process)
            self._definitions[fixturedef] = definition
        yield

    # The end.

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, None]:
        self._item = item
        yield

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, Any, None]:
        """Raise in the end what interrupted this process while it waited for others."""
        if nextitem is None and self._process is not None:
            self._process.ending.is_over = True
            _stop_timer(item)
        outcome = yield
        if self._process is not None and self._process.ending.interruption is not None:
            interruption, self._process.ending.interruption = (
                self._process.ending.interruption,
                None,
            )
            outcome.force_exception(interruption)

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, Any, None]:
        """Tear down what is set up yet, and what others left; errors of that become reports."""
        process = self._process
        if process is not None:
            process.ending.is_over = True
            if exitstatus == pytest.ExitCode.INTERRUPTED:
                process.closing.hurry()
            setup_state: Any = session._setupstate
            self._call_reported(partial(setup_state.teardown_exact, None))
            for task in process.ending.remaining():
                self._call_reported(task)
        yield
        if process is not None:
            process.finish(self._call_reported)

    def _call_reported(self, task: Callable[[], None]) -> None:
        """Call ``task``; an error in it is reported as one of the teardown of the last test."""
        item, session = self._item, self._session
        if item is None or session is None:
            return  # no test was run: there is nothing to tear down
        call = pytest.CallInfo.from_call(
            task, when="teardown", reraise=(KeyboardInterrupt, pytest.exit.Exception)
        )
        if call.excinfo is not None:
            report = item.ihook.pytest_runtest_makereport(item=item, call=call)
            item.ihook.pytest_runtest_logreport(report=report)
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self) -> None:
        self._run.close()

    # Workers, as the controller of xdist sees them.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        self._run.begin()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[INPUT] = self._run.worker_input()
        self._note(lambda ledger: ledger.expect(node.gateway.id))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        self._note(lambda ledger: ledger.note_end(node.gateway.id, is_lost=bool(error)))

    def _note(self, note: Callable[[Ledger], None]) -> None:
        if self._run.has_begun:  # else nobody has anything that such a worker could want
            from .ledger import Ledger

            with suppress(ShmstoreError):
                note(Ledger(self._run.client, ""))

    # What is shown.

    def pytest_report_header(self) -> str:
        return f"shmstore: {self._run.name}, up to {self._run.capacity}, for shared fixtures"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._run.has_begun:
            from .reports import write_report

            options = self._config.option
            write_report(
                terminalreporter,
                self._run.client,
                with_durations=options.shared_durations or options.verbose > 0,
            )

    def _say(self, line: str) -> None:
        """Show a line at once: workers of xdist have standard error alone."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            print(f"\nshmstore: {line}", file=sys.__stderr__, flush=True)


def _closures(items: Iterable[Any]) -> list[Closure]:
    """Return all fixtures of each test, once for tests that have the same."""
    found = {id(info): info for item in items if (info := getattr(item, "_fixtureinfo", None))}
    return [info.name2fixturedefs for info in found.values()]


def _names_shared(closure: Closure) -> bool:
    return any(
        declaration_of(definition.func) for found in closure.values() for definition in found
    )


def _stop_timer(item: pytest.Item) -> None:
    """Let pytest-timeout not count how long others use what this test is to tear down."""
    stop = getattr(item.ihook, "pytest_timeout_cancel_timer", None)
    if stop is not None:
        stop(item=item)
