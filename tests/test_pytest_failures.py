"""What a shared fixture raises is raised in every process that asks for it, and computed once."""

from __future__ import annotations

import pytest


def test_exceptions(suite):
    suite.write(
        raised="""
        import threading

        class Plain(Exception):
            pass

        class Demanding(Exception):
            def __init__(self, code, *, reason):
                super().__init__(f"{code}: {reason}")
                self.code = code
                self.lock = threading.Lock()
        """,
        test_it="""
        import raised

        CASES = {
            "builtin": lambda: ValueError("bad", 7),
            "plain": lambda: raised.Plain("plainly"),
            "demanding": lambda: raised.Demanding(3, reason="odd"),
        }

        def fixture_of(case):
            @shared_fixture(name=case)
            def data():
                note(f"computed {case}")
                def deep_inside():
                    raise CASES[case]()
                deep_inside()
            return data

        one, two, three = map(fixture_of, CASES)

        @BOTH
        @pytest.mark.parametrize("case", CASES)
        def test_it(request, worker, case):
            expected = CASES[case]()
            with pytest.raises(type(expected)) as raised:
                request.getfixturevalue(case)
            assert type(raised.value) is type(expected)
            assert str(raised.value) == str(expected)
            assert raised.value.args == expected.args
            assert getattr(raised.value, "code", None) == getattr(expected, "code", None)
            if f"{worker} computed {case}" not in notes():
                assert "in deep_inside" in str(raised.value.__cause__)
        """,
    )
    suite.run().assert_outcomes(passed=6)
    assert sorted(suite.noted) == [f"computed {case}" for case in ("builtin", "demanding", "plain")]


def test_the_traceback_is_shown_in_every_worker(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            raise ValueError("bad luck")

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(data): pass
        """
    )
    result = suite.run()
    result.assert_outcomes(errors=2)
    assert suite.noted == ["computed"]
    shown = result.stdout.str()
    assert shown.count('raise ValueError("bad luck")') == 2
    assert shown.count("test_it.py:12") == 1
    assert 'test_it.py", line 12, in data' in shown
    assert "shmstore/pytest/" not in shown


def test_what_cannot_be_made_again_elsewhere(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            class Local(LookupError):
                pass
            raise Local("nowhere else")

        def test_owner(request):
            with pytest.raises(LookupError):
                request.getfixturevalue("data")
            note("raised")

        @pytest.mark.on("gw1")
        def test_other(request):
            await_note("raised")
            request.getfixturevalue("data")
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*FixtureFailed: test_it.data.<locals>.Local: nowhere else"])


def test_a_failure_that_does_not_fit(suite):
    suite.ini(shmstore_capacity="2MiB")
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            raise ValueError("x" * (3 << 20))

        @BOTH
        def test_it(request, worker):
            with pytest.raises((ValueError, RuntimeError), match="x" * 500):
                request.getfixturevalue("data")
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert suite.noted == ["computed"]


def test_outcomes(suite):
    suite.write(
        test_it="""
        OUTCOMES = {"skip": pytest.skip, "fail": pytest.fail, "xfail": pytest.xfail}

        @shared_fixture(params=OUTCOMES)
        def data(request):
            note(f"computed {request.param}")
            OUTCOMES[request.param]("as it is")

        @BOTH
        def test_it(data, worker): pass
        """
    )
    result = suite.run("-rsx")
    result.assert_outcomes(skipped=2, errors=2, xfailed=2)
    assert sorted(suite.noted) == ["computed fail", "computed skip", "computed xfail"]
    result.stdout.fnmatch_lines(["SKIPPED*test_it.py*as it is"])
    assert result.stdout.str().count("Failed: as it is") >= 2


def test_what_cannot_be_shared_is_said_at_once(suite):
    suite.write(
        test_it="""
        import threading

        @shared_fixture(params=[1])
        def data(request):
            note("computed")
            yield {"number": 1, "lock": threading.Lock()}
            note("torn down")

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(data): pass
        """
    )
    result = suite.run()
    result.assert_outcomes(errors=2)
    assert suite.noted == ["computed", "torn down"]
    assert (
        result.stdout.str().count("NotShareable: data['lock'] cannot be shared: _thread.lock") >= 2
    )


def test_pickling_can_be_forbidden(suite):
    suite.ini(shmstore_pickle="false")
    suite.write(
        kinds="class Kind: pass\nclass Odd(Exception): pass",
        test_it="""
        import kinds

        @shared_fixture
        def data():
            return kinds.Kind()

        @shared_fixture
        def failing():
            raise kinds.Odd("so it is")

        @BOTH
        def test_it(request, worker):
            with pytest.raises(TypeError, match="kinds.Kind"):
                request.getfixturevalue("data")

        @pytest.mark.on("gw0")
        def test_failing(failing): pass

        @pytest.mark.on("gw1")
        def test_failing_too(failing): pass
        """,
    )
    result = suite.run()
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["E*kinds.Odd: so it is", "E*FixtureFailed: kinds.Odd: so it is"])


def test_a_store_that_is_full(suite):
    suite.ini(shmstore_capacity="2MiB")
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            return os.urandom(4 << 20)

        def test_owner(data): pass

        @pytest.mark.on("gw1")
        def test_other(data): pass
        """
    )
    result = suite.run()
    result.assert_outcomes(errors=2)
    assert suite.noted == ["computed"]
    result.stdout.fnmatch_lines(["E*StoreFull: *shmstore_capacity*"])


def test_an_order_to_end_the_run_is_no_failure(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            pytest.exit("enough")

        def test_owner(data): pass
        """
    )
    result = suite.run(workers=0)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*Exit: enough*"])
