"""A shared fixture is computed once in a run, by the first process that needs it."""

from __future__ import annotations

import pytest

USERS = """
    @pytest.mark.parametrize("number", range(6))
    def test_it(data, number):
        assert data == {"a": [1, (2, 3)]}
        data["a"].append("changed")
"""


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_one_process_computes(suite, workers):
    suite.write(
        conftest="""
        @shared_fixture
        def data():
            note("computed")
            return {"a": [1, (2, 3)]}
        """,
        test_it=USERS,
    )
    suite.run(workers=workers, pinned=False).assert_outcomes(passed=6)
    assert suite.noted == ["computed"]


@pytest.mark.parametrize("options", [("-p", "xdist", "-n0"), ("-p", "no:xdist")])
def test_without_workers(suite, options):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")
            return [1]

        def test_one(data): data.append(2)
        def test_two(data): assert data == [1]
        """
    )
    suite.run(*options, workers=0).assert_outcomes(passed=2)
    assert suite.notes == ["main computed"]


def test_others_wait_and_get_the_same_value(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computing")
            await_note("asking")
            return me()

        def test_owner(data):
            assert data == me()

        @pytest.mark.on("gw1")
        def test_reader(request):
            await_note("computing")
            note("asking")
            assert request.getfixturevalue("data") == "gw0"
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert suite.notes == ["gw0 computing", "gw1 asking"]


def test_two_fixtures_are_computed_at_the_same_time(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def left():
            note("left")
            await_note("right")

        @shared_fixture
        def right():
            note("right")
            await_note("left")

        def test_left(left): pass

        @pytest.mark.on("gw1")
        def test_right(right): pass
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert sorted(suite.notes) == ["gw0 left", "gw1 right"]


def test_none_and_empty_values_are_values(suite):
    suite.write(
        test_it="""
        VALUES = [None, 0, "", (), [], {}, set(), b"", False]

        @shared_fixture(params=range(len(VALUES)))
        def data(request):
            note(f"computed {request.param}")
            return VALUES[request.param]

        @pytest.mark.parametrize("worker", [
            pytest.param("gw0", marks=pytest.mark.on("gw0")),
            pytest.param("gw1", marks=pytest.mark.on("gw1")),
        ])
        def test_it(data, worker, request):
            expected = VALUES[request.node.callspec.params["data"]]
            assert type(data) is type(expected)
            assert data == expected
        """
    )
    suite.run().assert_outcomes(passed=18)
    assert sorted(suite.noted) == [f"computed {number}" for number in range(9)]
