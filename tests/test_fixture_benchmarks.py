"""The benchmarks of shared fixtures measure what they say; here on suites of a few records."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import plots, results, tables
from benchmarks.header import header_of
from benchmarks.results import Cell
from benchmarks.sharing_fixtures import launch, running, series
from benchmarks.sharing_fixtures.figures import Notes, delays_of, fill_in, sample_of
from benchmarks.sharing_fixtures.suites import Sizes, Workload, workloads
from benchmarks.sharing_fixtures.ways import GROUP, WAYS, Way, survey
from tests.waiting import eventually

TINY = Sizes(seconds=0.01, records=40, array_bytes=800, fixtures=3)
MS = 1_000_000


def workload(name: str) -> Workload:
    return next(each for each in workloads(TINY) if each.name == name)


def notes(worker: str, ready: dict[str, int], asked: int, in_hand: int, gained: int = 0) -> Notes:
    return Notes(worker, list(ready.items()), asked, in_hand, 100, 100 + gained, 7, 7 + gained)


# One run


def test_a_plain_fixture_is_computed_in_each_worker_and_nobody_waits():
    sample = running.run_once(workload("records"), WAYS["plain fixtures"], 2)
    assert sample.computed == 2
    assert sample.delays == ()
    assert sample.reader_gained is None
    assert sample.wall_ns > 0
    assert sample.cpu_ns > 0
    assert sample.private > sample.gained


def test_our_fixture_is_computed_once_and_waited_for():
    sample = running.run_once(workload("records"), WAYS["shmstore"], 2)
    assert sample.computed == 1
    assert len(sample.delays) == 1
    assert sample.reader_gained is not None


def test_a_way_that_cannot_do_it_says_why():
    cannot = Way((), "import pytest", WAYS["plain fixtures"].fixture.replace("VALUE", "int('x')"))
    settings = series.Settings(TINY, (1,), repetitions=2)
    cells = series.measure(settings, [workload("computing")], {"cannot": cannot}, say=print)
    assert [cell.skipped for cell in cells] == [
        "failed: ValueError: invalid literal for int() with base 10: 'x'"
    ]
    assert cells[0].ns is None


def test_the_processor_time_of_orphans_counts_and_they_are_waited_for(tmp_path):
    orphan = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    account = launched(tmp_path, [sys.executable, "-c", parent], seconds=60)
    assert account["status"] == 0
    assert account["left"] == 0
    assert account["cpu_ns"] is not None
    assert account["cpu_ns"] >= 300 * MS


def test_a_run_that_hangs_is_ended_with_all_its_processes(tmp_path):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    child += "; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    account = launched(tmp_path, [sys.executable, "-c", parent], seconds=1)
    assert account["status"] is None
    assert account["left"] == 1
    assert is_gone(tmp_path)


def test_a_launcher_that_is_told_to_end_ends_the_run(tmp_path):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    child += "; time.sleep(600)"
    command = [sys.executable, "-m", launch.__name__, "60", str(tmp_path / "account")]
    process = subprocess.Popen([*command, sys.executable, "-c", child], cwd=running.ROOT)
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    assert is_gone(tmp_path)


def launched(folder: Path, command: list[str], seconds: float) -> dict[str, int | None]:
    launcher = [sys.executable, "-m", launch.__name__, str(seconds), str(folder / "account")]
    subprocess.run([*launcher, *command], cwd=running.ROOT, check=True)
    account: dict[str, int | None] = json.loads((folder / "account").read_text())
    return account


def is_gone(folder: Path) -> bool:
    return not Path(f"/proc/{(folder / 'pid').read_text()}").exists()


def test_the_first_error_is_the_reason():
    said = "== ERRORS ==\nE   TypeError: no\nE   ValueError: also\n1 error in 0.1s\n"
    assert running.reason_in(said) == "TypeError: no"
    assert running.reason_in("usage: pytest\n\nno such option\n\n") == "no such option"
    assert running.reason_in("") == "it printed nothing"


def test_only_the_plugins_of_a_way_are_loaded():
    command = running.command_of(Path("/suite"), WAYS["shmstore"], 4)
    named = [after for part, after in itertools.pairwise(command) if part == "-p"]
    assert "shmstore.pytest.plugin" in named
    assert "pytest_shared_session_scope.plugin" not in named
    assert "-n4" in command


# Figures


def test_who_waited_counts_from_ready_and_who_came_later_from_asking():
    every = [
        notes("gw0", {"one": 50}, asked=10, in_hand=60),
        notes("gw1", {}, asked=20, in_hand=54),
        notes("gw2", {}, asked=70, in_hand=73),
    ]
    assert delays_of(every) == (4, 3)


def test_of_many_fixtures_the_last_one_counts():
    every = [
        notes("gw0", {"one": 50, "three": 70}, asked=10, in_hand=75),
        notes("gw1", {"two": 60}, asked=20, in_hand=72),
    ]
    assert delays_of(every) == (2,)


def test_nobody_waits_where_everybody_computes():
    every = [notes("gw0", {"one": 50}, 10, 60), notes("gw1", {"one": 90}, 10, 95)]
    assert delays_of(every) == ()
    assert delays_of([notes("gw0", {}, 10, 11)]) == ()


def test_readers_are_those_that_computed_nothing():
    every = [notes("gw0", {"one": 50}, 10, 60, gained=30), notes("gw1", {}, 10, 60, gained=10)]
    sample = sample_of(1000, 500, every)
    assert (sample.gained, sample.private, sample.computed) == (20, 120, 1)
    assert (sample.reader_gained, sample.reader_cpu_ns) == (10, 10)
    assert sample_of(1000, 500, every[1:]).reader_gained is None


def test_a_cell_has_medians_of_the_runs():
    cell = Cell("records", "shmstore", 40, "200 B", 2)
    walls = [5, 1, 3]
    fill_in(cell, [sample_of(wall, 10 * wall, [one, other]) for wall in walls])
    assert (cell.ns, cell.cpu_ns, cell.bytes) == (3, 30, 20)
    assert (cell.p50, cell.highest) == (10, 10)
    assert cell.extra == {
        "runs": 3,
        "computed": 1,
        "private bytes": 120,
        "reader bytes": 10,
        "reader cpu ns": 10,
    }


one = notes("gw0", {"one": 50}, 10, 60, gained=30)
other = notes("gw1", {}, 10, 60, gained=10)


# Ways and suites


def test_a_way_that_is_not_installed_is_reported(monkeypatch):
    monkeypatch.setitem(WAYS, "nobody", Way(("no-such-package",), "", ""))
    found, said = survey(["nobody"])
    assert found == {}
    assert said["nobody"].startswith("not available: ")


@pytest.mark.parametrize("name", list(WAYS))
@pytest.mark.parametrize("each", workloads(TINY), ids=lambda each: each.name)
def test_every_suite_is_python(name, each, tmp_path):
    from benchmarks.sharing_fixtures.suites import write

    write(tmp_path / "suite", each, WAYS[name], 4)
    for file in ("conftest.py", "test_use.py"):
        compile((tmp_path / "suite" / file).read_text(), file, "exec")
    assert "range(8)" in (tmp_path / "suite" / "test_use.py").read_text()


def test_what_is_asked_for_wrongly_is_refused(capsys):
    assert series.run(None, quick=True, only="no such/thing") == 2
    assert "many fixtures" in capsys.readouterr().out


# Pages and plots


@pytest.fixture
def folder(tmp_path):
    cells = [
        Cell("records", "plain fixtures", 40, "200 B", 2, ns=2e9, cpu_ns=3e9, bytes=3e8),
        Cell("records", "file lock, JSON", 40, "200 B", 2, skipped="failed: TypeError: no"),
        Cell("records", "shmstore", 40, "200 B", 1, ns=1e9, cpu_ns=1e9, bytes=2e4, p50=2 * MS),
        Cell("records", "shmstore", 40, "200 B", 2, ns=1e9, cpu_ns=1e9, bytes=3e4, p50=3 * MS),
    ]
    cells[-1].highest = 4 * MS
    cells[-1].extra = {"reader bytes": 20_000, "reader cpu ns": 5 * MS}
    said = dict.fromkeys(["plain fixtures", "file lock, JSON", "shmstore"], "1.0")
    results.save(tmp_path / f"{GROUP}.json", header_of(GROUP, said, quick=True), cells)
    return tmp_path


def test_tables_of_shared_fixtures_are_written(folder, tmp_path):
    page = tmp_path / "page.md"
    marks = ["setting of fixtures", "setting"]
    marks += ["fixtures/records", "fixtures/records as hand", "fixtures/records as reader"]
    page.write_text("".join(f"<!-- table: {mark} -->\n<!-- end -->\n" for mark in marks))
    tables.fill_in(folder, page)
    text = page.read_text()
    assert "|  | 1 worker | 2 workers |" in text
    assert "| **shmstore** | 1 s | 1 s |" in text
    assert "| **shmstore** |  | 3 ms / 4 ms |" in text
    assert "| **shmstore** |  | 5 ms, 20,000 bytes |" in text
    assert "failed: TypeError: no" in text
    assert "| plain fixtures | 1.0 |" in text
    assert text.count("Not measured yet.") == 1, "only these were measured"


def test_plots_of_shared_fixtures_are_drawn(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is for drawing plots only")
    assert plots.draw_all(folder, tmp_path / "img") == 0
    assert b"file lock" not in (tmp_path / "img" / "fixtures.svg").read_bytes()
    assert b"plain fixtures" in (tmp_path / "img" / "fixtures-memory.svg").read_bytes()
