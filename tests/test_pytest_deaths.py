"""Workers die while others wait for them; waits that take too long."""

from __future__ import annotations

import pytest

DIE = "os.kill(os.getpid(), signal.SIGKILL)"


def test_the_next_one_computes(suite):
    suite.write(
        test_it=f"""
        @shared_fixture
        def data():
            note("computing")
            if me() == "gw0":
                await_note("asking")
                {DIE}
            return me()

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(request):
            await_note("computing")
            note("asking")
            assert request.getfixturevalue("data") == "gw1"

        def test_of_the_replacement(data):
            assert data == "gw1"
            assert me() == "gw2"
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["worker 'gw0' crashed while running 'test_it.py::test_owner'"])
    assert suite.notes == ["gw0 computing", "gw1 asking", "gw1 computing"]


@pytest.mark.parametrize("mode", ["load", "worksteal"])
def test_deaths_with_schedulers_of_xdist(suite, mode):
    suite.write(
        test_it=f"""
        @shared_fixture
        def data():
            note("computing")
            if sum("computing" in line for line in notes()) == 1:
                {DIE}
            yield 1
            note("torn down")

        @pytest.mark.parametrize("number", range(6))
        def test_it(data, number):
            if number == 3:
                {DIE}
        """
    )
    suite.run("--dist", mode, pinned=False)
    assert suite.noted.count("computing") == 2
    assert suite.noted.count("torn down") <= 1  # not if who computed had to run the fourth test


def test_three_deaths_are_enough(suite):
    suite.write(
        test_it=f"""
        @shared_fixture
        def data():
            note("computing")
            {DIE}

        @pytest.mark.parametrize("worker", [
            pytest.param(name, marks=pytest.mark.on(name)) for name in ("gw0", "gw2", "gw3", "gw4")
        ])
        def test_it(data, worker): pass

        @pytest.mark.on("gw1")
        def test_bystander(): pass
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=1, failed=3, errors=1)
    [line] = {line for line in result.stdout.lines if line.startswith("E ") and "Died" in line}
    assert "WorkersDied: shared fixture 'data' (test_it.py:9) was given up" in line
    assert "died, gw0, gw2 and gw3; run" in line
    assert suite.notes == ["gw0 computing", "gw2 computing", "gw3 computing"]


def test_a_value_outlives_who_computed_it(suite):
    suite.write(
        test_it=f"""
        @shared_fixture
        def plain():
            note("computed")
            return [1, 2]

        @shared_fixture
        def array():
            return bytes(100_000)

        @shared_fixture
        def resource():
            yield 7
            note("never")

        @shared_fixture
        def released():
            yield 8
            note("never")

        @released.teardown
        def release(value):
            note(f"released {{value}}")

        def test_owner(plain, array, resource, released):
            note("have it")
            await_note("have it, too")
            {DIE}

        @pytest.mark.on("gw1")
        def test_user(request):
            await_note("have it")
            note(f"got {{request.getfixturevalue('released')}}")
            note("have it, too")

        @pytest.mark.on("gw2")
        def test_other(plain, array, resource, released):
            assert (plain, array, resource, released) == ([1, 2], bytes(100_000), 7, 8)
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=2, failed=1)
    assert suite.noted.count("computed") == 1
    assert suite.noted[-1] == "released 8"
    assert "never" not in suite.noted
    shown = result.stdout.str()
    assert "what follows the yield of shared fixture 'resource' (test_it.py:18) did not" in shown
    assert "under @resource.teardown" in shown
    assert shown.count("what follows the yield") == 1


def test_what_is_left_is_released_by_those_who_never_used_it(suite):
    suite.write(
        conftest="""
        @shared_fixture(params=["one", "two"])
        def server(request):
            yield {"name": request.param}
            note("never")

        @server.teardown
        def stop(value):
            note(f"stopped {value['name']}")

        @shared_fixture
        def client(server):
            yield server["name"]

        @client.teardown
        def hang_up(value):
            note(f"hung up {value}")
        """,
        test_it=f"""
        def test_owner(server, client):
            note(f"have {{server['name']}}")
            if server["name"] == "two":
                {DIE}

        @pytest.mark.on("gw1")
        def test_other():
            await_note("have two")
        """,
    )
    result = suite.run("--max-worker-restart=0")
    result.assert_outcomes(passed=2, failed=1)
    assert suite.notes == [
        "gw0 have one",
        "gw0 have two",
        "gw1 hung up two",
        "gw1 stopped two",
        "gw1 hung up one",
        "gw1 stopped one",
    ]
    result.stdout.no_fnmatch_line("*what follows*")


def test_what_nobody_is_left_to_release_is_said(suite):
    suite.write(
        test_it=f"""
        @shared_fixture
        def server():
            return 1

        @server.teardown
        def stop(value):
            note("never")

        def test_owner(server):
            {DIE}
        """
    )
    result = suite.run("--max-worker-restart=0", workers=1)
    assert suite.notes == []
    result.stdout.fnmatch_lines("shared fixture 'server' (test_it.py:9) was not released: gw0*")


def test_the_death_of_a_user_is_the_end_of_its_use(suite):
    suite.write(
        test_it=f"""
        @shared_fixture
        def data():
            yield 1
            note("torn down")

        def test_owner(data):
            note("have it")
            await_note("have it, too")

        @pytest.mark.on("gw1")
        def test_user(request):
            await_note("have it")
            request.getfixturevalue("data")
            note("have it, too")
            {DIE}
        """
    )
    suite.run("--max-worker-restart=0").assert_outcomes(passed=1, failed=1)
    assert suite.notes == ["gw0 have it", "gw1 have it, too", "gw0 torn down"]


def test_who_comes_during_teardown_waits_for_its_end(suite):
    suite.write(
        test_it=f"""
        @shared_fixture
        def data():
            note("computed")
            yield me()
            note("tearing down")
            if me() == "gw0":
                await_note("late")
                time.sleep(0.1)  # for who does not wait for this
            note("torn down")

        @pytest.fixture(scope="session")
        def dying_at_last():
            yield
            await_note("tearing down")
            {DIE}

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(dying_at_last, request):
            await_note("computed")
            assert request.getfixturevalue("data") == "gw0"

        @pytest.mark.on("gw2")
        def test_late(request):
            await_note("tearing down")
            note("late")
            assert request.getfixturevalue("data") == "gw2"
        """
    )
    suite.run()
    assert suite.notes == [
        *("gw0 computed", "gw0 tearing down", "gw2 late", "gw0 torn down"),
        *("gw2 computed", "gw2 tearing down", "gw2 torn down"),
    ]


def test_a_death_during_teardown(suite):
    suite.write(
        test_it=f"""
        @shared_fixture
        def data():
            note("computed")
            yield me()
            note("tearing down")
            if me() == "gw0":
                await_note("late")
                {DIE}

        @data.teardown
        def release(value):
            note(f"released {{value}}")

        @pytest.fixture(scope="session")
        def dying_at_last():
            yield
            await_note("tearing down")
            {DIE}

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(dying_at_last, request):
            await_note("computed")
            assert request.getfixturevalue("data") == "gw0"

        @pytest.mark.on("gw2")
        def test_late(request):
            await_note("tearing down")
            note("late")
            assert request.getfixturevalue("data") == "gw2"
        """
    )
    suite.run()
    assert suite.notes == [
        *("gw0 computed", "gw0 tearing down", "gw2 late"),
        *("gw2 computed", "gw2 tearing down", "gw2 released gw2"),
    ]


def test_a_wait_that_is_too_long(suite):
    suite.write(
        test_it="""
        @shared_fixture(timeout=0.05)
        def data():
            note("computing")
            await_note("waited")
            return 1

        def test_owner(data):
            assert data == 1

        @pytest.mark.on("gw1")
        def test_other(request):
            await_note("computing")
            with pytest.raises(TimeoutError) as timeout:
                request.getfixturevalue("data")
            note("waited")
            assert "'data' (test_it.py:9), which gw0 (process" in str(timeout.value)
            assert ") computes, for test_it.py::test_owner; if" in str(timeout.value)
        """
    )
    suite.run().assert_outcomes(passed=2)


def test_where_in_the_code_the_one_is_who_is_waited_for(suite):
    suite.write(
        conftest="""
        from shmstore.pytest import places
        places.TELL_SECONDS = 0.01
        """,
        test_it="""
        @shared_fixture(timeout=0.2)
        def data(inner):
            note("computing")
            boot()

        @shared_fixture
        def inner():
            return 1

        def boot():
            await_note("waited")

        def test_owner(data):
            pass

        @pytest.mark.on("gw1")
        def test_other(request, shm_client):
            places = shm_client.table("pytest.places")
            while not any("in boot" in told["place"] for told in places.values()):
                time.sleep(0.002)
            with pytest.raises(TimeoutError) as timeout:
                request.getfixturevalue("data")
            note("waited")
            assert ", for test_it.py::test_owner, at " in str(timeout.value)
            assert "test_it.py:19 in boot < " in str(timeout.value)
            assert "test_it.py:12 in data; if that may take" in str(timeout.value)

        def test_nothing_stays_of_that(data, shm_client):
            assert list(shm_client.table("pytest.places")) == []
        """,
    )
    suite.run().assert_outcomes(passed=3)


def test_a_long_wait_is_told_of(suite):
    suite.write(
        conftest="""
        from shmstore.pytest import obtaining
        obtaining.NOTICE_SECONDS = 0.05
        """,
        test_it="""
        @shared_fixture
        def data():
            note("computing")
            await_note("told")

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(request):
            await_note("computing")
            request.getfixturevalue("data")
        """,
    )
    process = suite.start()
    shown = b""
    while b"has waited 0 s for shared fixture 'data'" not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    with open(suite.path / "notes", "a") as file:
        file.write("outside told\n")
    rest, _ = process.communicate()
    assert b"2 passed" in rest
    assert process.returncode == 0


def test_fixtures_that_wait_for_each_other(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def left(request):
            note("left")
            await_note("right")
            return request.getfixturevalue("right")

        @shared_fixture
        def right(request):
            note("right")
            await_note("left")
            return request.getfixturevalue("left")

        def test_left(left): pass

        @pytest.mark.on("gw1")
        def test_right(right): pass
        """
    )
    result = suite.run()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["E*FixtureCycle: shared fixtures wait for each other: *"])
