"""All forms of fixtures that pytest has can be shared."""

from __future__ import annotations

import pytest

from shmstore.pytest import shared_fixture


def test_dependencies(suite):
    suite.write(
        test_it="""
        @pytest.fixture(scope="session")
        def plain():
            note("plain")
            return "plain"

        @shared_fixture
        def first(plain, tmp_path_factory, request):
            note("first")
            return [plain, request.scope]

        @shared_fixture
        def second(first):
            note("second")
            return [*first, "second"]

        @BOTH
        def test_it(second, worker):
            assert second == ["plain", "session", "second"]
        """
    )
    suite.run().assert_outcomes(passed=2)
    assert sorted(suite.noted) == ["first", "plain", "plain", "second"]


def test_parameters(suite):
    suite.write(
        test_it="""
        from collections import namedtuple

        Choice = namedtuple("Choice", "letters")
        LETTERS = frozenset("abcdefghij")  # in another order in each process
        LARGE = {"letters": LETTERS, "choice": Choice({"letters": LETTERS})}
        SMALL = "\\ud800small"

        @shared_fixture(params=[SMALL, LARGE], ids=["s", "l"])
        def data(request):
            note(f"data {len(request.param)}")
            return request.param

        @shared_fixture
        def chosen(request):
            note(f"chosen {request.param}")
            return request.param * 2

        @shared_fixture
        def doubled(data):
            note(f"doubled {len(data)}")
            return [data, data]

        @BOTH
        def test_own(data, worker):
            assert data in (SMALL, LARGE)

        @BOTH
        def test_of_another(doubled, data, worker):
            assert doubled == [data, data]

        @pytest.mark.parametrize("chosen", [1, 2], indirect=True)
        @BOTH
        def test_indirect(chosen, worker, request):
            assert chosen == 2 * request.node.callspec.params["chosen"]

        # The same value at another index, and a value equal but of another type.
        @pytest.mark.parametrize("chosen", [2, 1.0], indirect=True)
        @BOTH
        def test_indirect_again(chosen, worker, request):
            assert repr(chosen) == repr(2 * request.node.callspec.params["chosen"])
        """
    )
    suite.run().assert_outcomes(passed=16)
    expected = [f"{name} {data}" for name in ("data", "doubled") for data in (6, 2)]
    assert sorted(suite.noted) == sorted([*expected, "chosen 1", "chosen 2", "chosen 1.0"])


def test_a_parameter_of_a_dependency_makes_another_value(suite):
    suite.write(
        test_it="""
        @pytest.fixture(scope="session", params=[1, 2])
        def size(request):
            return request.param

        @pytest.fixture(scope="session")
        def between(size):
            return size

        @shared_fixture
        def data(between):
            note(f"data {between}")
            return between

        @shared_fixture
        def by_name(request):
            return [request.getfixturevalue("data")]

        @shared_fixture
        def by_names(request):
            return request.getfixturevalue("by_name")

        @shared_fixture
        def given(number):
            note(f"given {number}")
            return number

        @pytest.fixture(scope="session")
        def number():
            return 0

        @BOTH
        def test_it(data, size, worker):
            assert data == size

        @pytest.mark.parametrize("size", [1], indirect=True)
        def test_by_name(by_names, size):
            assert by_names == [size]

        @pytest.mark.on("gw1")
        @pytest.mark.parametrize("size", [2], indirect=True)
        def test_by_name_in_another(by_names, size):
            assert by_names == [size]

        @pytest.mark.parametrize("number", [5, 6], scope="session")
        @BOTH
        def test_direct(given, number, worker):
            assert given == number
        """
    )
    suite.run().assert_outcomes(passed=10)
    assert sorted(suite.noted) == ["data 1", "data 2", "given 5", "given 6"]


def test_fixtures_of_one_name(suite):
    source = """
        @shared_fixture
        def data():
            note("{0}")
            return "{0}"
    """
    suite.write(conftest=source.format("top"))
    for folder in ("a", "b"):
        suite.write(
            **{
                f"{folder}/conftest": source.format(folder),
                f"{folder}/test_{folder}": f"""
        @BOTH
        def test_it(data, worker):
            assert data == "{folder}"
        """,
            }
        )
    suite.write(
        test_overriding="""
        @shared_fixture
        def data(data):
            note(f"over {data}")
            return ["over", data]

        @shared_fixture
        def user(data):
            note(f"user {data}")
            return data

        def make(number):
            @shared_fixture(name=f"made{number}")
            def made():
                note(f"made {number}")
                return number
            return made

        one, two = make(1), make(2)

        class TestInside:
            @shared_fixture
            def data(self):
                note("inside")
                return "inside"

            @BOTH
            def test_it(self, data, worker):
                assert data == "inside"

        @BOTH
        def test_it(data, user, worker, made1, made2):
            assert data == user == ["over", "top"]
            assert (made1, made2) == (1, 2)
        """
    )
    suite.run().assert_outcomes(passed=8)
    assert sorted(suite.noted) == sorted(
        ["a", "b", "top", "over top", "inside", "made 1", "made 2", "user ['over', 'top']"]
    )


def test_one_function_imported_by_two_modules(suite):
    importing = "from common import data\ndef test_it(data): pass"
    suite.write(
        common="""
        @shared_fixture
        def data():
            note("computed")
        """,
        test_one=importing,
        test_two=importing,
    )
    suite.run(workers=0).assert_outcomes(passed=2)
    assert suite.noted == ["computed"] * 2  # as in pytest, which has two fixtures here


def test_ways_to_ask(suite):
    suite.write(
        test_it="""
        import unittest

        @shared_fixture(autouse=True)
        def everywhere():
            note("everywhere")
            return []

        @shared_fixture(name="other_name")
        def named():
            note("named")
            return {1, 2}

        @BOTH
        def test_by_name(request, worker):
            assert request.getfixturevalue("other_name") == {1, 2}

        @BOTH
        @pytest.mark.usefixtures("other_name")
        class TestClass:
            @shared_fixture(scope="class")
            def of_class(self):
                note("of class")
                self.attribute = 1
                return (self.attribute,)

            def test_method(self, of_class, worker):
                assert of_class == (1,)

        @pytest.mark.on("gw1")
        class TestUnittest(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def take(self, other_name, everywhere):
                self.taken = other_name, everywhere

            def test_it(self):
                assert self.taken == ({1, 2}, [])
        """
    )
    suite.run().assert_outcomes(passed=5)
    assert sorted(suite.noted) == ["everywhere", "named", "of class"]


def test_scopes(suite):
    for package in ("a", "b"):
        tests = """
            @BOTH
            def test_it(of_package, of_module, of_class, worker):
                assert of_package == os.path.dirname(__file__)

            @BOTH
            class TestIt:
                def test_one(self, of_package, of_module, of_class, worker): pass
                def test_two(self, of_class, worker): pass
        """
        fixtures = """
            @shared_fixture(scope="package")
            def of_package():
                note("of package")
                return os.path.dirname(__file__)

            @shared_fixture(scope="module")
            def of_module(of_package):
                note("of module")

            @shared_fixture(scope="class")
            def of_class(of_module):
                note("of class")
        """
        files = {"__init__": "", "conftest": fixtures, f"test_{package}1": tests}
        files[f"test_{package}2"] = "def test_one(of_package, of_module): pass"
        suite.write(**{f"{package}/{name}": source for name, source in files.items()})
    suite.run().assert_outcomes(passed=14)
    noted = suite.noted
    assert noted.count("of package") == 2
    assert noted.count("of module") == 4
    assert noted.count("of class") == 6  # for a function it lives as long as that, as in pytest


@pytest.mark.parametrize("timeout", [0, -1.5, float("nan")])
def test_no_timeout_that_is_over_at_once(timeout):
    with pytest.raises(ValueError, match=f"timeout={timeout}: give a number of seconds greater"):
        shared_fixture(timeout=timeout)


def test_no_function_scope(suite):
    suite.write(
        test_it="""
        @shared_fixture(scope=lambda fixture_name, config: "function")
        def dynamic(): pass

        def test_it(request):
            refusal = "'function': use one of session, package, module"
            with pytest.raises(ValueError, match=refusal):
                shared_fixture(scope="function")
            with pytest.raises(ValueError, match=refusal):
                request.getfixturevalue("dynamic")
        """
    )
    suite.run(workers=0).assert_outcomes(passed=1)


def test_above_other_decorators(suite):
    suite.write(
        test_it="""
        @shared_fixture(timeout=5)
        @pytest.fixture(scope="session", params=[1, 2])
        def data(request):
            note(f"computed {request.param}")
            return [request.param]

        @data.teardown
        def release(value):
            note(f"released {value}")

        class TestIt:
            @shared_fixture(scope="class")
            @classmethod
            def of_class(cls):
                note(f"of {cls.__name__}")
                return 7

            @BOTH
            def test_it(self, data, of_class, worker):
                assert len(data) == 1
                assert of_class == 7
                data.clear()

        def test_refused():
            with pytest.raises(TypeError, match="fixture already: give scope, params"):
                shared_fixture(params=[1])(data)
        """
    )
    suite.run().assert_outcomes(passed=5)
    assert sorted(suite.noted) == sorted(
        ["computed 1", "computed 2", "of TestIt", "released [1]", "released [2]"]
    )


@pytest.mark.parametrize("argument", ["--collect-only", "--fixtures", "--setup-plan"])
def test_what_runs_nothing_computes_nothing(suite, argument):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            note("computed")

        def test_it(data): pass
        """
    )
    result = suite.run(argument, workers=0)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*test_it*"])
    assert suite.notes == []


def test_a_parameter_that_no_other_process_can_know(suite):
    suite.write(
        test_it="""
        @shared_fixture(params=[lambda: 1, lambda: 2], ids=["one", "two"])
        def data(request):
            note(f"computed {request.param()}")
            return request.param()

        def test_owner(data, request):
            assert data == request.node.callspec.params["data"]()

        @pytest.mark.on("gw1")
        def test_other(data, request):
            assert data == request.node.callspec.params["data"]()
        """
    )
    result = suite.run()
    result.assert_outcomes(passed=4, warnings=4)
    result.stdout.fnmatch_lines(["*NotSharedWarning: shared fixture 'data' is computed in each*"])
    assert sorted(suite.notes) == [
        f"{worker} computed {number}" for worker in ("gw0", "gw1") for number in (1, 2)
    ]


@pytest.mark.parametrize(
    "mode", ["load", "worksteal", "loadscope", "loadfile", "loadgroup", "each"]
)
def test_modes_of_xdist(suite, mode):
    suite.write(
        test_it="""
        pytestmark = pytest.mark.xdist_group("together")

        @shared_fixture
        def data():
            note("computed")
            yield [1]
            note("torn down")

        @pytest.mark.parametrize("number", range(3))
        def test_it(data, number):
            assert data == [1]
        """
    )
    suite.run("--dist", mode, workers=2, pinned=False).assert_outcomes(
        passed=6 if mode == "each" else 3
    )
    assert suite.noted == ["computed", "torn down"]


def test_tables_and_views(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def large():
            return {f"key {n}": {"number": n, "text": "x" * 100} for n in range(9000)}

        @shared_fixture(as_table=True)
        def forced():
            return [{"number": number} for number in range(3)]

        @shared_fixture(as_table=False)
        def whole():
            return {f"key {number}": {"text": "x" * 1000} for number in range(1100)}

        @shared_fixture
        def buffer():
            import array
            return array.array("d", range(100_000))

        @BOTH
        def test_it(large, forced, whole, buffer, worker):
            assert (type(large).__name__, len(large)) == ("SharedMapping", 9000)
            assert large["key 77"] == {"number": 77, "text": "x" * 100}
            large["key 77"]["number"] = 0
            assert type(forced).__name__ == "SharedSequence"
            assert [row["number"] for row in forced] == [0, 1, 2]
            assert type(whole) is dict
            assert list(buffer[:3]) == [0.0, 1.0, 2.0]

        @BOTH
        def test_after(large, whole, worker):
            assert large["key 77"]["number"] == 77
        """
    )
    suite.run().assert_outcomes(passed=4)
