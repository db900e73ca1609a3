"""The ways in which a suite can share its fixtures: what stands in its ``conftest.py``.

Each as its own documentation says. Where that leaves a choice it is the fastest one that does the
job: pytest-shared-session-scope with pickle, and in the form that yields twice (in version 0.5.2
the form that returns stores nothing, and computes in each worker).
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import TypeAlias

from ..rivals.base import NotAvailable

GROUP = "fixtures"
"""What the results of these measurements are called."""
FixtureBodies: TypeAlias = dict[str, str]
"""Expressions by the name of the fixture."""


@dataclass(frozen=True)
class Way:
    """A way to share fixtures."""

    packages: tuple[str, ...]
    """What has to be installed for it."""
    head: str
    """What stands once above the fixtures."""
    fixture: str
    """A fixture, with NAME and VALUE for its name and the expression that computes it."""
    plugins: tuple[str, ...] = ()
    """The plugins that it needs; no others are loaded."""

    def conftest(self, fixtures: FixtureBodies) -> str:
        """Return the text of a ``conftest.py``."""
        parts = [
            self.fixture.replace("NAME", name).replace("VALUE", value)
            for name, value in fixtures.items()
        ]
        return "\n\n".join([self.head.strip(), *(part.strip() for part in parts)]) + "\n"

    def version(self) -> str:
        """Return what is used. Raises NotAvailable."""
        try:
            for plugin in self.plugins:
                importlib.import_module(plugin)
            versions = [f"{name} {importlib.metadata.version(name)}" for name in self.packages]
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            raise NotAvailable(f"{error}") from error
        return ", ".join(versions)


PLAIN = """
@pytest.fixture(scope="session")
def NAME():
    return VALUE
"""

LOCKED_HEAD = """
import json
import pickle

import pytest
from filelock import FileLock


def once(name, compute, tmp_path_factory, worker_id):
    if worker_id == "master":
        return compute()
    file = tmp_path_factory.getbasetemp().parent / name
    with FileLock(f"{file}.lock"):
        if file.is_file():
            return LOAD
        value = compute()
        STORE
        return value
"""
LOCKED = """
@pytest.fixture(scope="session")
def NAME(tmp_path_factory, worker_id):
    return once("NAME", lambda: VALUE, tmp_path_factory, worker_id)
"""


def locked(load: str, store: str) -> Way:
    """Return the recipe of pytest-xdist's documentation: a file, and a lock beside it."""
    head = LOCKED_HEAD.replace("LOAD", load).replace("STORE", store)
    return Way(("filelock",), head, LOCKED)


WAYS = {
    "plain fixtures": Way(("pytest", "pytest-xdist"), "import pytest", PLAIN),
    "file lock, JSON": locked("json.loads(file.read_text())", "file.write_text(json.dumps(value))"),
    "file lock, pickle": locked(
        "pickle.loads(file.read_bytes())",
        "file.write_bytes(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))",
    ),
    "shared-session-scope": Way(
        ("pytest-shared-session-scope",),
        "from pytest_shared_session_scope import SetupToken, shared_session_scope_pickle",
        """
@shared_session_scope_pickle()
def NAME():
    value = yield
    if value is SetupToken.FIRST:
        value = VALUE
    yield value
""",
        ("pytest_shared_session_scope.plugin",),
    ),
    "shmstore": Way(
        ("shmstore",),
        "from shmstore.pytest import shared_fixture",
        """
@shared_fixture
def NAME():
    return VALUE
""",
        ("shmstore.pytest.plugin",),
    ),
}
"""In the order in which they are shown."""


def survey(names: list[str]) -> tuple[dict[str, Way], dict[str, str]]:
    """Return the ways that can be had here, and what is said of all of them."""
    found: dict[str, Way] = {}
    said: dict[str, str] = {}
    for name in names:
        try:
            said[name] = WAYS[name].version()
            found[name] = WAYS[name]
        except NotAvailable as error:
            said[name] = f"not available: {error}"
    return found, said
