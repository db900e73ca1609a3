"""The store of a run: who starts it, who finds it, what is shown of it."""

from __future__ import annotations

import re

import pytest

COMPUTED_ONCE = """
    @shared_fixture
    def data():
        note("computed")
        return os.getpid()

    @BOTH
    def test_it(data, worker): pass
"""


def test_runs_do_not_meet(suite):
    suite.write(
        test_it="""
        @shared_fixture
        def data(request):
            run = os.environ["RUN"]
            note(f"computed {run}")
            await_note("computed one" if run == "two" else "computed two")
            return run

        @BOTH
        def test_it(data, worker, shm_table):
            assert data == os.environ["RUN"]
            assert shm_table.setdefault("run", data) == data
        """
    )
    processes = []
    for run in ("one", "two"):
        suite.setenv("RUN", run)
        processes.append(suite.start("--testrunuid=same"))
    for process in processes:
        shown, _ = process.communicate()
        assert process.returncode == 0, shown.decode()
    assert sorted(suite.noted) == ["computed one", "computed two"]


ELSEWHERE = """
    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_configure_node(node):
        if node.gateway.id == "gw1":
            node.workerinput["shmstore"]["{}"] = "elsewhere"
"""


@pytest.mark.parametrize("what", ["machine", "address"])
def test_workers_elsewhere_compute_their_own(suite, what):
    suite.write(
        conftest=ELSEWHERE.format(what),
        test_it=COMPUTED_ONCE
        + """
    @pytest.mark.on("gw1")
    def test_more(data, shm_table): pass
    """,
    )
    result = suite.run()
    result.assert_outcomes(passed=3, warnings=1)
    result.stdout.fnmatch_lines(["*NotSharedWarning: a worker runs where the store of the run*"])
    assert sorted(suite.notes) == ["gw0 computed", "gw1 computed"]


def test_workers_elsewhere_where_warnings_are_errors(suite):
    suite.write(conftest=ELSEWHERE.format("machine"), test_it=COMPUTED_ONCE)
    result = suite.run("-W", "error")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E *NotSharedWarning: a worker runs where the store of the run*"])
    assert suite.notes == ["gw0 computed"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_does_not_use_it_imports_little(suite, workers):
    suite.write_plain(
        conftest="""
        import sys
        from tests.steps import note

        def pytest_unconfigure(config):
            note(" ".join(name for name in sys.modules if name.startswith("shmstore")))
        """,
        test_it="def test_it(): pass",
    )
    result = suite.run(workers=workers, pinned=False)
    result.assert_outcomes(passed=1)
    workers_and_controller = suite.notes
    assert len(workers_and_controller) == 1 + workers
    for line in workers_and_controller:
        name, *modules = line.split()
        assert "shmstore.pytest.plugin" in modules
        # The controller of xdist loads the rest while it waits for its workers.
        assert ("shmstore.engine" in modules) == (name == "main" and workers > 0)


def test_the_header_names_the_store(suite):
    suite.write(
        test_it="""
        def test_it(shm_client):
            note(shm_client.address)
        """
    )
    shown = suite.run().stdout.str()
    [name] = re.findall(r"^shmstore: (\S+), up to \S+, for shared fixtures$", shown, re.MULTILINE)
    assert suite.noted[0].endswith(f"/{name}.sock")


@pytest.mark.parametrize("option", ["-v", "--shared-durations", "-q"])
def test_the_report(suite, option):
    suite.write(
        test_it="""
        @shared_fixture
        def data(request):
            note("computing")
            client = request.getfixturevalue("shm_client")
            while client.stats()["waits"] == 0:
                pass
            return bytes(10_000)

        @shared_fixture(params=[3])
        def failing(request):
            raise ValueError

        @shared_fixture
        def skipping(request):
            pytest.skip("why not")

        def test_owner(data, failing): pass

        def test_skip(skipping): pass

        @pytest.mark.on("gw1")
        def test_reader(request):
            await_note("computing")
            request.getfixturevalue("data")
        """
    )
    result = suite.run(option)
    result.assert_outcomes(passed=1, errors=1, skipped=1)
    if option == "-q":
        assert "shared fixtures" not in result.stdout.str()
        return
    result.stdout.fnmatch_lines(["*= shared fixtures =*", "fixture * by * seconds *"])
    rows = [line.split() for line in result.stdout.lines]
    [data] = [row for row in rows if row[:2] == ["data", "gw0"]]
    seconds, size, readers, waited = data[2:]
    assert float(seconds) > 0
    assert int(size.replace(",", "")) > 10_000
    assert int(readers) == 1
    assert float(waited) > 0
    assert ["failing[3]", "gw0", "failed", "0", "0.000"] in rows
    assert ["skipping", "gw0", "skipped", "0", "0.000"] in rows


def test_a_run_in_a_run(suite):
    suite.write(
        inner="""
        @shared_fixture
        def data():
            note("inner")
            return "inner"

        def test_inner(data):
            assert data == "inner"
        """,
        test_it="""
        @shared_fixture
        def data():
            note("outer")
            return "outer"

        def test_outer(data):
            assert pytest.main(["-p", "no:cacheprovider", "inner.py"]) == 0

        def test_after(data):
            assert data == "outer"
        """,
    )
    suite.run(workers=1).assert_outcomes(passed=2)
    assert suite.noted == ["outer", "inner"]


def test_a_machine_with_little_memory(suite):
    suite.write(
        conftest="""
        from shmstore import segment
        segment.available_bytes = lambda root="/": 600 << 20
        """,
        test_it=COMPUTED_ONCE,
    )
    result = suite.run()
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["shmstore: *, up to 300MiB, for shared fixtures"])
    assert suite.noted == ["computed"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_cannot_be_started(suite, workers):
    suite.ini(shmstore_capacity="1TiB")
    suite.write(test_it=COMPUTED_ONCE + "\n    def test_other(): pass")
    result = suite.run(workers=workers)
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["E *a capacity of 1099511627776 bytes was asked for*"])
    assert suite.noted == []


@pytest.mark.parametrize(
    ("setting", "given", "wanted"),
    [
        ("capacity", "much", "bytes from 1MiB to 1TiB, as 512MiB or 1.5GiB"),
        ("capacity", "64KiB", "bytes from 1MiB to 1TiB, as 512MiB or 1.5GiB"),
        ("timeout", "soon", "a number of seconds greater than 0"),
        ("timeout", "0", "a number of seconds greater than 0"),
        ("timeout", "nan", "a number of seconds greater than 0"),
        ("table_bytes", "1MiB", "a whole number of bytes, 0 or more"),
        ("table_bytes", "-1", "a whole number of bytes, 0 or more"),
    ],
)
def test_a_setting_that_makes_no_sense_ends_the_run_at_once(suite, setting, given, wanted):
    suite.ini(**{f"shmstore_{setting}": given})
    suite.write(test_it="note('collected')")
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: shmstore_{setting} = {given}: give {wanted}" in result.stderr.lines
    assert suite.notes == []


def test_the_setting_that_is_no_truth_value_is_named(suite):
    suite.ini(shmstore_pickle="maybe")
    result = suite.run(workers=0)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: shmstore_pickle: invalid truth value 'maybe'; give true or false"]
    )


def test_the_settings_of_the_command_line_reach_the_workers(suite):
    suite.write(
        test_it="""
        @BOTH
        def test_it(worker, pytestconfig):
            from shmstore.pytest.run import RUN
            note(str(tuple(pytestconfig.stash[RUN].settings)))
        """
    )
    settings = {"capacity": "16MiB", "timeout": "7.5", "table_bytes": "9", "pickle": "no"}
    arguments = [f"--override-ini=shmstore_{name}={given}" for name, given in settings.items()]
    suite.run(*arguments).assert_outcomes(passed=2)
    assert suite.noted == ["('16MiB', 7.5, 9, False)"] * 2


WITHOUT_SOCKETS = """
    import socket
    from shmstore.pytest.run import RUN

    def pytest_runtest_setup(item):
        note("begun" if item.config.stash[RUN].has_begun else "not begun")
        item.patch = pytest.MonkeyPatch()
        item.patch.setattr(socket, "socket", None)

    def pytest_runtest_teardown(item):
        item.patch.undo()

    @shared_fixture
    def data():
        return [1]

    @pytest.fixture(autouse=True)
    def everywhere(): pass
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_tests_may_replace_sockets(suite, workers):
    suite.write(
        conftest=WITHOUT_SOCKETS,
        test_it="""
        @pytest.fixture
        def derived(data):
            return data * 2

        @BOTH
        @pytest.mark.parametrize("number", range(2))
        def test_data(derived, worker, number):
            assert derived == [1, 1]

        @BOTH
        def test_table(shm_table, worker):
            shm_table["known"] = 1
        """,
    )
    for chosen, count in (("test_data", 4), ("test_table", 2), ("test", 6)):
        suite.run("-k", chosen, workers=workers).assert_outcomes(
            passed=count, deselected=0 if workers else 6 - count
        )


def test_what_no_test_names_is_started_when_it_is_asked_for(suite):
    suite.write(
        conftest=WITHOUT_SOCKETS,
        test_it="""
        def test_lazy(request):
            request.node.patch.undo()
            assert request.getfixturevalue("data") == [1]

        def test_after(request):
            assert request.getfixturevalue("data") == [1]

        def test_named(data): pass
        """,
    )
    suite.run("-k", "not named", workers=0).assert_outcomes(passed=2, deselected=1)
    assert suite.noted == ["not begun", "begun"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "option", ["--collect-only", "--setup-plan", "--fixtures", "--fixtures-per-test"]
)
def test_what_sets_up_nothing_starts_nothing(suite, option, workers):
    suite.write(
        conftest="""
        from shmstore.pytest.run import RUN

        @pytest.hookimpl(tryfirst=True)
        def pytest_unconfigure(config):
            run = config.stash[RUN]
            note("begun" if run.has_begun else "not begun")
        """,
        test_it="""
        @shared_fixture
        def data(): pass

        def test_it(data, shm_client): pass
        """,
    )
    assert suite.run(option, workers=workers).ret == 0
    assert set(suite.noted) == {"not begun"}
