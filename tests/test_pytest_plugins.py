"""Shared fixtures next to other plugins."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

ASYNC = """
    import asyncio

    @shared_fixture
    async def data(plain):
        await asyncio.sleep(0)
        note("computed")
        return [1, 2]

    @shared_fixture
    async def service(data):
        await asyncio.sleep(0)
        note("started")
        yield {"port": 80, "data": data}
        await asyncio.sleep(0)
        note("stopped")

    @pytest.fixture(scope="session")
    def plain(): pass

    @BOTH
    MARK
    async def test_async(service, worker):
        await asyncio.sleep(0)
        service["data"].append(3)

    @BOTH
    def test_sync(data, worker):
        assert data == [1, 2]
"""
needs = {
    name: pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("anyio", "pytest_asyncio", "pytest_rerunfailures", "pytest_cov")
}


@needs["pytest_asyncio"]
def test_pytest_asyncio(suite):
    suite.ini(
        asyncio_mode="auto",
        asyncio_default_fixture_loop_scope="session",
        asyncio_default_test_loop_scope="session",
    )
    suite.write(test_it=ASYNC.replace("MARK", ""))
    suite.run("-p", "asyncio").assert_outcomes(passed=4)
    assert suite.noted == ["computed", "started", "stopped"]


@needs["pytest_asyncio"]
def test_pytest_asyncio_in_its_strict_mode(suite):
    suite.ini(asyncio_default_fixture_loop_scope="session")
    suite.write(
        test_it="""
        import asyncio, pytest_asyncio

        @shared_fixture
        @pytest_asyncio.fixture(scope="session")
        async def service(plain):
            await asyncio.sleep(0)
            note("started")
            yield {"port": 80}
            await asyncio.sleep(0)
            note("stopped")

        @pytest.fixture(scope="session")
        def plain(): pass

        @BOTH
        def test_sync(service, worker):
            assert service == {"port": 80}

        @BOTH
        @pytest.mark.asyncio
        async def test_async(worker, shm_namespace):
            import shmstore
            assert shmstore.namespaces.current() == shm_namespace
        """
    )
    suite.run("-p", "asyncio").assert_outcomes(passed=4)
    assert suite.noted == ["started", "stopped"]


@needs["anyio"]
def test_anyio(suite):
    suite.write(
        conftest="""
        @pytest.fixture(scope="session")
        def anyio_backend():
            return "asyncio"
        """,
        test_it=ASYNC.replace("MARK", "@pytest.mark.anyio").replace(
            "test_sync(data,", "test_sync(anyio_backend, data,"
        ),
    )
    suite.run("-p", "anyio").assert_outcomes(passed=4)
    assert suite.noted == ["computed", "started", "stopped"]


def test_nobody_runs_what_is_async(suite):
    suite.write(
        test_it="""
        @shared_fixture
        async def data():
            note("computed")

        def test_it(data): pass
        """
    )
    shown = suite.run(workers=0).stdout.str()
    # The second is what versions before 8.4 let Python say.
    assert "async fixture 'data'" in shown or "coroutine 'data' was never awaited" in shown
    assert suite.notes == []


def test_hypothesis(suite):
    suite.write(
        test_it="""
        from hypothesis import given, settings, strategies

        @shared_fixture
        def data():
            note("computed")
            return [1]

        @BOTH
        @settings(max_examples=5, database=None)
        @given(number=strategies.integers())
        def test_it(data, worker, number):
            assert data == [1]
        """
    )
    suite.run("-p", "hypothesispytest").assert_outcomes(passed=2)
    assert suite.noted == ["computed"]


@needs["pytest_rerunfailures"]
def test_reruns(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            yield [1]
            note("torn down")

        @shared_fixture
        def flaky():
            note("flaky")
            if sum("flaky" in line for line in notes()) < 3:
                raise OSError("not yet")
            return 7

        def test_flaky_fixture(flaky):
            assert flaky == 7

        def test_flaky(data):
            note("tried")
            data.append(2)
            assert len(data) == 2
            assert sum("tried" in line for line in notes()) == 3

        @pytest.mark.on("gw1")
        def test_other(request):
            await_note("tried")
            assert request.getfixturevalue("data") == [1]
        """
    )
    result = suite.run("-p", "rerunfailures", "--reruns", "4")
    assert result.parseoutcomes() == {"passed": 3, "rerun": 4}
    assert suite.noted.count("computed") == 1
    assert suite.noted.count("flaky") == 3
    assert suite.noted[-1] == "torn down"


@needs["pytest_cov"]
def test_coverage(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            computed = 1
            yield computed
            torn_down = 1

        @BOTH
        def test_it(data, worker): pass
        """
    )
    result = suite.run("-p", "pytest_cov", "--cov", "test_it", "--cov-report=term-missing")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["test_it.py * 100%*"])


def test_last_failed_and_choosing(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            return 1

        def test_good(data): pass
        def test_bad(data): assert data == 2
        """
    )
    cached = ("-p", "cacheprovider")
    suite.run(*cached).assert_outcomes(passed=1, failed=1)
    suite.run(*cached, "--lf").assert_outcomes(failed=1)
    suite.run("-k", "good").assert_outcomes(passed=1)
    assert suite.noted == ["computed"] * 3
