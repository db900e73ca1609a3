"""Runs that are interrupted or killed: teardown once where that can be, and nothing is left."""

from __future__ import annotations

import os
import signal

import pytest

from tests.waiting import eventually

SUITE = """
    @shared_fixture
    def data():
        note("computed")
        yield 1
        note("torn down")

    @pytest.fixture(scope="session", autouse=True)
    def plain():
        yield
        note("plain torn down")

    @pytest.fixture(scope="session")
    def above(data):
        yield
        note("above torn down")

    def test_owner(above):
        note("have it")
        await_note("never")

    @pytest.mark.on("gw1")
    def test_other(request):
        await_note("have it")
        request.getfixturevalue("data")
        note("have it, too")
        await_note("never")
"""
IN_THE_END = """
    @shared_fixture
    def data():
        yield 1
        note("torn down")

    @pytest.fixture(scope="session", autouse=True)
    def plain():
        yield
        note("plain torn down")

    @pytest.fixture(scope="session")
    def above(data):
        yield
        note("waiting for others")

    def test_owner(above): pass

    @pytest.mark.on("gw1")
    def test_other():
        await_note("never")
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c(suite, workers):
    suite.write(test_it=SUITE)
    process = suite.start(workers=workers)
    eventually(lambda: ("have it, too" if workers else "have it") in suite.noted)
    os.killpg(process.pid, signal.SIGINT)
    shown, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, shown.decode()
    noted = suite.noted
    assert noted.count("torn down") == 1
    assert noted.count("plain torn down") == max(workers, 1)
    assert noted.index("above torn down") < noted.index("torn down")
    assert b"did not run" not in shown


def test_ctrl_c_while_the_owner_waits_for_others(suite):
    suite.write(test_it=IN_THE_END)
    process = suite.start()
    eventually(lambda: "waiting for others" in suite.noted)
    os.killpg(process.pid, signal.SIGINT)
    shown, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, shown.decode()
    assert suite.noted.count("torn down") == 1
    assert suite.noted.count("plain torn down") == 2


def test_errors_of_teardown_after_ctrl_c(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            yield 1
            raise OSError("cannot stop it")

        def test_it(data):
            note("have it")
            await_note("never")
        """
    )
    process = suite.start(workers=0)
    eventually(lambda: "have it" in suite.noted)
    os.killpg(process.pid, signal.SIGINT)
    shown, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert b"OSError: cannot stop it" in shown


def test_the_controller_is_killed(suite):
    """Its workers notice, and tidy up by themselves; then the leak guard looks for what is left."""
    suite.write(test_it=SUITE.replace('await_note("never")', "time.sleep(60)"))
    process = suite.start()
    eventually(lambda: "have it, too" in suite.noted)
    process.kill()
    process.communicate()  # returns when the last of its workers is gone
    assert suite.noted.count("torn down") == 1
    assert suite.noted.count("plain torn down") == 2


def test_all_of_them_are_killed(suite):
    suite.write(test_it=SUITE)
    process = suite.start()
    eventually(lambda: "have it, too" in suite.noted)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "torn down" not in suite.noted
