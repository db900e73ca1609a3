"""Test suites that use the pytest plugin, each run by processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import steps

ROOT = Path(__file__).parent.parent
PYTHON_VARIABLE = "SUITES_PYTHON"
"""Names an interpreter that is to run the suites: one with another version of pytest."""
SECONDS_MAX = 60.0
PLUGINS = ("-p", "shmstore.pytest.plugin", "-p", "no:cacheprovider")
XDIST = ("-p", "xdist", "-p", "tests.pinned")
HEAD = """
import os, pytest, signal, time
from shmstore.pytest import shared_fixture
from tests.steps import await_note, me, note, notes
BOTH = pytest.mark.parametrize("worker", [
    pytest.param(name, marks=pytest.mark.on(name)) for name in ("gw0", "gw1")
])
"""


class Suite:
    """A suite in a directory of its own. Of plugins only those that are asked for are loaded."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        self.setenv = monkeypatch.setenv
        python = os.environ.get(PYTHON_VARIABLE, sys.executable)
        self._command = [python, "-m", "pytest", f"--basetemp={pytester.path / 'temp'}", *PLUGINS]
        self.path = pytester.path
        monkeypatch.setenv(steps.VARIABLE, str(pytester.path / "notes"))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("COLUMNS", "200")
        for variable in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "PYTEST_XDIST_TESTRUNUID"):
            monkeypatch.delenv(variable, raising=False)

    def write(self, **files: str) -> None:
        """Write Python files by their names, each with a head that imports what suites use."""
        for name, source in files.items():
            path = self.path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(HEAD + textwrap.dedent(source))

    def write_plain(self, **files: str) -> None:
        """Write Python files by their names, without that head."""
        for name, source in files.items():
            (self.path / f"{name}.py").write_text(textwrap.dedent(source))

    def ini(self, **options: str) -> None:
        """Write the configuration of the suite."""
        self._pytester.makeini("\n".join(["[pytest]", *map(" = ".join, options.items())]))

    def run(self, *arguments: str, workers: int = 2, pinned: bool = True) -> pytest.RunResult:
        """Run the suite, by so many workers of xdist; 0 is without xdist. Return what came of it.

        ``pinned`` has the marks ``on`` say which worker runs what, else xdist does.
        """
        xdist = XDIST if pinned else XDIST[:2]
        several = (*xdist, "-n", str(workers)) if workers else ()
        return self._pytester.run(*self._command, *several, *arguments, timeout=SECONDS_MAX)

    def start(self, *arguments: str, workers: int = 2) -> subprocess.Popen[bytes]:
        """Start a run in a process group of its own; the caller waits for it."""
        several = (*XDIST, "-n", str(workers)) if workers else ()
        return self._pytester.popen(
            [*self._command, *several, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def notes(self) -> list[str]:
        """What the processes of the run noted, each with its worker before it."""
        return steps.notes()

    @property
    def noted(self) -> list[str]:
        """What they noted, without the workers."""
        return [line.partition(" ")[2] for line in self.notes]
