"""The fixtures of all tests, and the leak guard that stands around each of them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests import leaks
from tests.suites import Suite

if TYPE_CHECKING:
    from shmstore import Client
    from shmstore.server import Server

CAPACITY = "8MiB"
ENGINES = ("pure", "native")
DEMANDED = os.environ.get("SHMSTORE_ENGINE")
_failed = pytest.StashKey[bool]()

if not entry_points(group="pytest11", name="shmstore"):  # where shmstore is not installed
    pytest_plugins = ("shmstore.pytest.plugin",)

# Two busy cores make an example slow now and then, which says nothing about the code.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@contextmanager
def _private_runtime_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="shm-"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHMSTORE_RUNTIME_DIR", str(path))
            patch.delenv("SHMSTORE_NAMESPACE", raising=False)
            yield path
    finally:
        shutil.rmtree(path)


def pytest_configure(config: pytest.Config) -> None:
    # A run in the background of a shell ignores Ctrl-C, and so would its children.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Of servers that outlive a test, as that of the shared fixtures: not the user's own.
    session = ExitStack()
    session.enter_context(_private_runtime_dir())
    config.add_cleanup(session.close)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> Generator[None, None, None]:
    """Have all processes of the store that shared fixtures need come up before any test.

    What came up later would be there after a test and not before: the leak guard would blame it.
    """
    from shmstore.pytest.run import RUN
    from shmstore.server import supervisor
    from tests.waiting import eventually

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "SPARE_AFTER_SECONDS", 0.0)
        yield
        server = getattr(session.config.stash.get(RUN, None), "_server", None)
        if server is not None:
            eventually(lambda: server._supervisor.spare_pid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests failed: their tracebacks keep memory and descriptors alive."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture(scope="session", autouse=True)
def chosen_engine() -> Iterator[None]:
    """Where no native engine is built, ask for the pure one, lest commands warn of that."""
    from shmstore.engine import WHY_PURE

    with pytest.MonkeyPatch.context() as patch:
        if WHY_PURE:
            patch.setenv("SHMSTORE_ENGINE", "pure")
            patch.setattr("shmstore.commands.outcome.WHY_PURE", None)
        yield


@pytest.fixture(autouse=True)
def runtime_dir() -> Iterator[Path]:
    """The test's own runtime directory: short, as socket paths are limited, and private."""
    with _private_runtime_dir() as path:
        yield path


@pytest.fixture(autouse=True)
def leak_guard(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[None]:
    """Fail a test that leaves a process, descriptor, memory, socket file or thread behind."""
    before = leaks.Traces.now(runtime_dir)
    yield
    request.node.funcargs.clear()  # what the test was given, and may keep memory alive
    leaks.stop_fork_servers()
    failed = request.node.stash.get(_failed, False)
    after = leaks.Traces.now(runtime_dir) if failed else leaks.wait_until_gone(before, runtime_dir)
    leaks.kill_new_processes(before, after)
    left = after.since(before)
    if left and not failed:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(params=[DEMANDED] if DEMANDED else ENGINES)
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """Each engine in turn, as a module with Reader and Owner; only the one that is demanded."""
    from shmstore import pure
    from shmstore.engine import load_native

    if request.param == "pure":
        return pure
    try:
        native = load_native()
    except ImportError as error:
        if DEMANDED:
            raise
        pytest.skip(f"no native engine here: {error}")
    twin = ModuleType(native.__name__)  # what is checked is the same for both, in the same words
    vars(twin).update(vars(native), INVARIANTS=pure.INVARIANTS)
    return twin


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of small capacity without a name; its writer runs."""
    import shmstore

    with shmstore.start(capacity=CAPACITY) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of ``server``, in this process."""
    with server.connect() as connected:
        yield connected


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A test suite that uses the pytest plugin, to be run in processes of its own."""
    return Suite(pytester, monkeypatch)
