"""What stands in one of several conftest.py, and goes from worker to worker all the same."""

from __future__ import annotations

import pickle
from types import ModuleType

import pytest

from shmstore.pytest.conftests import know_conftests
from shmstore.pytest.values import pickled

CONFTEST = """
    import enum

    class Mode(enum.Enum):
        FAST = 1

    class Thing:
        where = "{0}"

        class Inner:
            where = "{0}"

        def __init__(self, mode=Mode.FAST):
            self.mode = mode

        def __reduce__(self):
            return made, (self.mode,)

    class Trouble(Exception):
        where = "{0}"

    def made(mode):
        return Thing(mode)

    @shared_fixture
    def things():
        note("computed in {0}")
        return [Thing(), Thing.Inner(), Thing, made]

    @shared_fixture
    def rows():
        return {{number: [Thing(), "x" * 2000] for number in range(1000)}}

    @shared_fixture
    def failing():
        note("raised in {0}")
        raise Trouble(Mode.FAST)

    @shared_fixture(params=[Mode.FAST, Thing.Inner])
    def chosen(request):
        note(f"chosen in {0}")
        return request.param

    @pytest.fixture
    def original():
        return Thing, Mode, Trouble, made
"""
TESTS = """
    @BOTH
    def test_things(things, original, worker):
        Thing, Mode, _, made = original
        thing, inner, *same = things
        assert type(thing) is Thing and thing.mode is Mode.FAST
        assert type(inner) is Thing.Inner and inner.where == "{0}"
        assert same == [Thing, made]

    @BOTH
    def test_rows(rows, original, worker):
        assert type(rows[7][0]) is original[0]

    @BOTH
    def test_failing(request, original, worker):
        Thing, Mode, Trouble, _ = original
        with pytest.raises(Trouble) as raised:
            request.getfixturevalue("failing")
        assert raised.value.args == (Mode.FAST,)

    @BOTH
    def test_parameters(chosen, original, worker):
        assert chosen in (original[1].FAST, original[0].Inner)
"""


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_what_stands_in_any_conftest_is_shared(suite, mode):
    for folder in (".", "a", "b"):
        name = "top" if folder == "." else folder
        suite.write(
            **{
                f"{folder}/conftest": CONFTEST.format(name),
                f"{folder}/test_{name}": TESTS.format(name),
            }
        )
    suite.run(f"--import-mode={mode}", "-W", "error").assert_outcomes(passed=30)
    once = [f"{what} in {where}" for what in ("computed", "raised") for where in ("top", "a", "b")]
    twice = [f"chosen in {where}" for where in ("top", "a", "b")] * 2
    assert sorted(suite.noted) == sorted(once + twice)


def test_a_class_that_nobody_finds(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data():
            class Local: pass
            return [Local()]

        def test_it(data): pass
        """
    )
    result = suite.run(workers=0)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "E *NotShareable: data[[]0] argument 0 cannot be shared: type cannot be pickled "
            "(*Local*); define it at the top of a module or of a conftest.py, where all workers *"
        ]
    )


def _loaded(file: str) -> ModuleType:
    module = ModuleType("conftest")
    exec("class Thing: pass", vars(module))
    module.__file__ = file
    return module


def test_the_same_file_loaded_by_a_run_inside_the_run_changes_nothing():
    outer, inner = _loaded("/here/conftest.py"), _loaded("/here/conftest.py")
    for module in (outer, inner):
        know_conftests([object(), module])
    assert pickled.load(pickled.dump([outer.Thing]).data) == [outer.Thing]
    with pytest.raises(pickle.PicklingError):
        pickled.dump(inner.Thing)


def test_a_conftest_that_is_not_loaded_is_named():
    module = _loaded("/there/conftest.py")
    know_conftests([module])
    data = pickled.dump(module.Thing).data
    del module
    with pytest.raises(LookupError, match=r"/there/conftest\.py is not loaded here"):
        pickled.load(data)
