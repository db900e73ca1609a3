"""What follows a shared fixture's yield runs once, after the last use in any worker."""

from __future__ import annotations

import pytest


def test_the_order_over_all_workers(suite):
    suite.write(
        test_it="""
        @pytest.fixture(scope="session")
        def below():
            yield
            note("end below")

        @pytest.fixture(scope="session")
        def above(first):
            yield
            note("end above")

        @shared_fixture
        def first(below):
            yield 1
            note("end first")

        @shared_fixture
        def second(first):
            yield first + 1
            time.sleep(0.1)  # for who does not wait for this
            note("end second")

        def test_first(first, above):
            note("have first")

        @pytest.mark.on("gw1")
        def test_second(request):
            await_note("have first")
            assert request.getfixturevalue("second") == 2
            note("have second")

        def test_both(request):
            await_note("have second")
            assert request.getfixturevalue("second") == 2
        """
    )
    suite.run().assert_outcomes(passed=3)
    ends = [note for note in suite.notes if "end" in note]
    assert ends.count("gw1 end second") == ends.count("gw0 end first") == 1
    assert ends.index("gw1 end second") < ends.index("gw0 end first")
    assert ends.index("gw0 end above") < ends.index("gw0 end first") < ends.index("gw0 end below")
    assert ends.index("gw1 end second") < ends.index("gw1 end below")
    assert len(ends) == 5


def test_who_has_not_used_it_yet_is_waited_for(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            yield 1
            note("torn down")

        @pytest.fixture(scope="session", autouse=True)
        def last(request):
            yield
            note("over")

        @pytest.fixture(scope="session")
        def after(data):
            yield
            note("ending")

        def test_owner(after): pass

        @pytest.mark.on("gw1")
        def test_other(): await_note("ending")

        @pytest.mark.on("gw1")
        def test_user(data):
            note("used")

        def test_unused(): pass
        """
    )
    suite.run().assert_outcomes(passed=4)
    noted = [note for note in suite.notes if not note.endswith("over")]
    assert noted == ["gw0 computed", "gw0 ending", "gw1 used", "gw0 torn down"]


@pytest.mark.parametrize("workers", [0, 2])
def test_finalizers_and_parameters(suite, workers):
    suite.write(
        test_it="""
        @shared_fixture(params=[1, 2])
        def data(request):
            request.addfinalizer(lambda: note(f"first of {request.param}"))
            request.addfinalizer(lambda: note(f"second of {request.param}"))
            yield request.param
            note(f"after yield of {request.param}")

        @data.teardown
        def release(value):
            note(f"release {value}")

        @pytest.fixture
        def ends():
            yield
            note("test ends")

        def test_it(data, ends): pass
        """
    )
    suite.run(workers=workers).assert_outcomes(passed=2)
    parts = ("after yield of", "second of", "first of", "release")
    expected = [f"{part} {number}" for number in (2, 1) for part in parts]
    assert suite.noted == ["test ends", "test ends", *expected]


def test_a_change_of_parameters_ends_nothing(suite):
    suite.write(
        test_it="""
        @pytest.fixture(scope="session", params=[1, 2])
        def size(request):
            return request.param

        @shared_fixture
        def data(size):
            yield size
            note(f"torn down {size}")

        def test_it(data):
            note(f"used {data}")
        """
    )
    suite.run(workers=0).assert_outcomes(passed=2)
    assert suite.noted == ["used 1", "used 2", "torn down 2", "torn down 1"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [(), ("-x",)])
def test_errors_are_reported(suite, workers, options):
    suite.write(
        test_it="""
        @shared_fixture
        def failing():
            yield 1
            note("failing")
            raise OSError("cannot stop it")

        @shared_fixture
        def released():
            return 2

        @released.teardown
        def release(value):
            note("releasing")
            raise OSError("cannot release it")

        @shared_fixture
        def well():
            yield 3
            note("well")

        def test_it(well, failing, released, request):
            assert not request.config.getoption("maxfail")

        def test_after(well): pass
        """
    )
    result = suite.run(*options, workers=workers)
    assert result.ret in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    assert suite.noted == ["releasing", "failing", "well"]
    shown = result.stdout.str()
    assert "ERROR at teardown of" in shown
    assert "OSError: cannot stop it" in shown
    assert "OSError: cannot release it" in shown


def test_two_yields(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            yield 1
            yield 2

        def test_it(data): assert data == 1
        """
    )
    result = suite.run(workers=0)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture function has more than one 'yield':"])


def test_what_a_failed_fixture_has_begun_is_ended(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data(request):
            request.addfinalizer(lambda: note("ended"))
            raise ValueError("after that")

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(data): pass
        """
    )
    suite.run().assert_outcomes(errors=2)
    assert suite.noted == ["ended"]


def test_the_first_failure_ends_the_run(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            yield 1
            note("torn down")

        def test_owner(data):
            note("have it")
            await_note("have it, too")
            assert data == 2

        def test_never(data):
            note("never")

        @pytest.mark.on("gw1")
        def test_other(request):
            await_note("have it")
            data = request.getfixturevalue("data")
            note("have it, too")
            assert data == 1
            note("done")
        """
    )
    suite.run("-x")
    assert suite.notes == ["gw0 have it", "gw1 have it, too", "gw1 done", "gw0 torn down"]


def test_the_time_others_take_is_not_that_of_the_last_test(suite):
    suite.write(
        conftest="""
        @pytest.hookimpl(optionalhook=True, tryfirst=True)
        def pytest_timeout_cancel_timer(item):
            note("timer stopped")
        """,
        test_it="""
        @shared_fixture
        def data():
            yield 1
            note("torn down")

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other():
            await_note("timer stopped")
            note("seen")
        """,
    )
    suite.run("-p", "pytest_timeout", "--timeout=60").assert_outcomes(passed=2)
    noted = suite.notes
    assert noted.index("gw1 seen") < noted.index("gw0 torn down")


def test_a_forked_child_leaves_it_alone(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            yield 1
            note(f"torn down by {os.getpid()}")

        def test_it(data):
            note(f"computed by {os.getpid()}")
            if os.fork() == 0:
                return  # and through all that ends a session
            os.wait()
        """
    )
    suite.run(workers=0)
    computed, torn_down = suite.noted
    assert computed.split()[-1] == torn_down.split()[-1]
