"""One run of one suite, in processes of its own, and what its workers noted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..arena import MEMORY_FOLDER
from . import suites
from .figures import Notes, Sample, sample_of
from .probe import FOLDER_VARIABLE
from .ways import Way

ROOT = Path(__file__).parent.parent.parent
SECONDS_MAX = 180.0


class RunFailed(Exception):
    """The run did not do what it should; the text is the first error of it."""


def run_once(workload: suites.Workload, way: Way, workers: int) -> Sample:
    """Run a suite once with so many workers; return what was measured. Raises RunFailed."""
    place = MEMORY_FOLDER if Path(MEMORY_FOLDER).is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=place))
    try:
        suite, notes = folder / "suite", folder / "notes"
        suites.write(suite, workload, way, workers)
        notes.mkdir()
        account = launched(folder, command_of(suite, way, workers))
        output = (folder / "output").read_text(errors="replace")
        if account["status"] is None:
            raise RunFailed(f"not done after {SECONDS_MAX:.0f} s")
        if account["status"] != 0:
            raise RunFailed(reason_in(output))
        if account["left"]:
            raise RunFailed(f"{account['left']} processes were left behind")
        found = [Notes(**json.loads(path.read_text())) for path in sorted(notes.iterdir())]
        if len(found) != workers:
            raise RunFailed(f"{len(found)} of {workers} workers had tests to run")
        return sample_of(account["wall_ns"], account["cpu_ns"], found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command_of(suite: Path, way: Way, workers: int) -> list[str]:
    """Return the command of a run: the plugins of this way and no others."""
    plugins = ["xdist.plugin", "benchmarks.sharing_fixtures.probe", "no:cacheprovider"]
    named = [part for plugin in [*plugins, *way.plugins] for part in ("-p", plugin)]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", *named, f"-n{workers}"]
    return [*command, "-c", f"{suite}/pytest.ini", f"--basetemp={suite.parent}/tmp", str(suite)]


def launched(folder: Path, command: list[str]) -> dict[str, Any]:
    """Run a command in its launcher; return the launcher's account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        FOLDER_VARIABLE: str(folder / "notes"),
    }
    launcher = [sys.executable, "-m", "benchmarks.sharing_fixtures.launch", str(SECONDS_MAX)]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [*launcher, str(folder / "account"), *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            process.wait()
        finally:
            process.terminate()  # when this process is interrupted: the launcher clears up
            process.wait()
    if process.returncode:
        raise RunFailed(reason_in((folder / "output").read_text(errors="replace")))
    account: dict[str, Any] = json.loads((folder / "account").read_text())
    return account


def reason_in(output: str) -> str:
    """Return the first error in what pytest printed, or else the last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line[1:].strip() for line in lines if line.startswith("E  ")]
    return [*errors, *lines[-1:], "it printed nothing"][0]
