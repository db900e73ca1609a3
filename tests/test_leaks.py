"""The leak guard itself: each kind of leak fails the test that made it, by name, and is ended."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

ROOT = Path(__file__).parent.parent

LEAKS = {
    "descriptor": "kept.append(os.open('/dev/null', os.O_RDONLY))",
    "memory": """
        fd = os.memfd_create('leaked')
        os.truncate(fd, 4096)
        kept.append(mmap.mmap(fd, 4096))
        os.close(fd)""",
    "socket": """
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.environ['SHMSTORE_RUNTIME_DIR'] + '/left.sock')""",
    "thread": """
        kept.append(threading.Thread(target=event.wait, name='leaked', daemon=True))
        kept[-1].start()""",
    "process": "kept.append(subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1))",
}
"""Kind of leak -> the body of a test that leaks it."""

CONFTEST = """
from tests import leaks
from tests.conftest import *

leaks.SETTLE_SECONDS_MAX = 0.5
"""

SUITE = """
import mmap, os, pathlib, socket, subprocess, sys, threading

kept = []
event = threading.Event()

def test_first():
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run a suite of one test under the guard, in a pytest of its own, and return its outcome."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run_body(body: str) -> pytest.RunResult:
        (pytester.path / "conftest.py").write_text(CONFTEST)
        (pytester.path / "test_suite.py").write_text(SUITE + indent(dedent(body), " " * 4))
        plugins = ("randomly", "cacheprovider", "hypothesispytest", "xdist", "timeout")
        without = [word for plugin in plugins for word in ("-p", f"no:{plugin}")]
        return pytester.runpytest_subprocess(*without)

    return run_body


@pytest.mark.parametrize("kind", LEAKS)
def test_a_leak_of_each_kind_fails_the_test_that_made_it(run, kind):
    outcome = run(LEAKS[kind])
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.stdout.fnmatch_lines(["*left behind:*", f"*  {kind}: *"])


def test_a_clean_test_passes(run):
    run("assert os.environ['SHMSTORE_RUNTIME_DIR']").assert_outcomes(passed=1)


def test_what_ends_by_itself_in_time_is_no_leak(run):
    body = "threading.Timer(0.1, event.set).start(); threading.Thread(target=event.wait).start()"
    run(body).assert_outcomes(passed=1)


def test_a_failed_test_is_not_blamed_twice(run):
    run("kept.append(os.open('/dev/null', os.O_RDONLY)); assert False").assert_outcomes(failed=1)


def test_a_leaked_grandchild_whose_parent_is_gone_is_found_and_killed(run, pytester):
    grandchild = "import os, signal; os.write(1, b'%d' % os.getpid()); signal.pause()"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {grandchild!r}])"
    body = f"""
    found, other = os.pipe()
    subprocess.run([sys.executable, '-c', {parent!r}], stdout=other)
    pathlib.Path('pid').write_bytes(os.read(found, 100))
    os.close(found)
    os.close(other)"""
    outcome = run(body)
    outcome.assert_outcomes(passed=1, errors=1)
    outcome.stdout.fnmatch_lines(["*  process: *signal.pause()*"])
    pid = int((pytester.path / "pid").read_text())
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        words = b""
    assert b"signal.pause" not in words


@pytest.mark.parametrize("package", ["multiprocessing", "multiprocess"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_joined_child_of_every_start_method_is_no_leak(run, package, method):
    body = f"""
    import {package}
    child = {package}.get_context('{method}').Process(target=os.getpid)
    child.start()
    child.join()
    assert child.exitcode == 0"""
    run(body).assert_outcomes(passed=1)
