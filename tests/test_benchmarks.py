"""The benchmarks measure what they say; here on rivals that need no installation, for moments."""

from __future__ import annotations

import json
import math
import random
import sqlite3
import time
from typing import Any

import msgpack
import pytest

from benchmarks import plots, results, rivals, tables, timing
from benchmarks.__main__ import parsed
from benchmarks.arena import Arena, check
from benchmarks.bars.bar import Bar, judge
from benchmarks.bars.contest import Contestant, contest
from benchmarks.bars.listed import BARS
from benchmarks.harness import Run, Settings
from benchmarks.header import header_of
from benchmarks.histogram import Histogram, bucket_of, highest_of
from benchmarks.processes import TaskFailed, Worker, together
from benchmarks.records import RARE, RARE_RECORDS, Dataset, key_of, missing_key_of
from benchmarks.results import Cell
from benchmarks.rivals.base import NotAvailable
from benchmarks.workloads import growing, listing, memory, reading, sharing, writing
from benchmarks.workloads.operations import OPERATIONS

AT_HAND = ["dict", "shmstore", "sqlite", "Manager().dict()"]
MOMENT = Settings(
    seconds=0.02, repetitions=2, sizes=(50,), middle=50, processes=(1, 2), grow_records=50, starts=1
)
SQLITE_NEEDED = (3, 30)


def run_of(only: str | None = None, names: list[str] = AT_HAND) -> Run:
    found, said = rivals.survey(names)
    assert list(found) == names, said
    return Run(MOMENT, found, only, say=lambda line: None)


def figures(run: Run, workload: str) -> dict[str, Any]:
    return {cell.rival: cell for cell in run.cells if cell.workload == workload}


# Records


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("16 B", 14, 18),
        ("160 B", 140, 180),
        ("4 KiB", 3900, 4300),
        ("1 MiB", 1 << 20, 1.01 * (1 << 20)),
    ],
)
def test_records_have_the_size_that_their_kind_names(value, least, most):
    assert least <= Dataset(100, value).value_bytes() * 1.001 <= most * 1.001


def test_keys_differ_and_missing_ones_are_missing():
    keys = {key_of(number) for number in range(10_000)}
    assert len(keys) == 10_000
    assert not keys & {missing_key_of(number) for number in range(10_000)}
    assert {len(key) for key in keys} == {len(missing_key_of(7))}


@pytest.mark.parametrize("records", [10, 1_000])
def test_few_records_of_an_indexed_dataset_are_rare_whatever_its_size(records):
    dataset = Dataset(records, indexed=True)
    assert sum(one["status"] == RARE for _, one in dataset.items(packed=False)) == RARE_RECORDS


def test_packed_records_are_the_records():
    dataset = Dataset(20)
    plain, packed = dict(dataset.items(packed=False)), dict(dataset.items(packed=True))
    assert {key: msgpack.unpackb(data) for key, data in packed.items()} == plain


# Times


def test_a_bucket_holds_its_values_and_is_narrow():
    for value in [*range(2_000), *(1 << shift for shift in range(50)), 10**15 + 7]:
        highest = highest_of(bucket_of(value))
        assert value <= highest <= value * 1.01 + 1
        assert bucket_of(highest) == bucket_of(value) != bucket_of(highest + 1)


@pytest.mark.parametrize("percent", [50, 90, 99, 99.9])
def test_percentiles_are_those_of_the_sorted_values(percent):
    chance = random.Random(4)
    values = [int(chance.lognormvariate(8, 2)) for _ in range(20_000)]
    halves = Histogram.of(values[:5_000])
    halves.add(Histogram.of(values[5_000:]))
    exact = sorted(values)[math.ceil(len(values) * percent / 100) - 1]
    found = halves.percentile(percent)
    assert found is not None
    assert exact <= found <= exact * 1.01 + 1
    assert len(halves) == len(values)


def test_few_values_have_no_far_percentiles():
    few = Histogram.of(range(100))
    assert few.percentile(50) == 49
    assert few.percentile(99) == 98
    assert few.percentile(99.9) is None
    assert few.highest() == 99
    assert Histogram().percentile(50) is None
    assert Histogram().highest() is None


@pytest.mark.parametrize(("arity", "item"), [(0, None), (1, "a"), (2, ("a", "b"))])
def test_every_call_gets_its_arguments(arity, item):
    seen = set()
    measured = timing.measure(
        lambda *given: seen.add(given), [item] * 100, arity, 5, 0.01, start=lambda: None
    )
    assert seen == {() if arity == 0 else (item,) if arity == 1 else item}
    assert measured.operations % 5 == 0
    assert measured.operations > 0
    assert len(measured.singles) > 0
    assert measured.wall_ns >= 0.006 * 1e9


def test_all_contestants_are_called_and_none_is_free():
    seen: list[str] = []
    costs = contest({name: Contestant(seen.append, [name]) for name in ("one", "other")}, rounds=5)
    assert set(seen) == set(costs) == {"one", "other"}
    assert min(costs.values()) > 0


# Processes


def test_a_failure_in_a_process_is_told_and_the_process_goes_on():
    worker = Worker("dict", None)
    try:
        with pytest.raises(TaskFailed, match="no such"):
            worker.call(fails, "no such")
        assert worker.call(answers, 5) == ("dict", 5)
    finally:
        worker.stop()


def test_a_common_start_lets_nobody_go_before_the_last_is_ready():
    workers = [Worker("dict", None) for _ in range(3)]
    try:
        begun = together(workers, started)
        ready, went = zip(*begun, strict=True)
        assert max(ready) <= min(went)
    finally:
        for worker in workers:
            worker.stop()


def fails(desk, text):
    raise ValueError(text)


def answers(desk, value):
    return desk.rival, value


def started(desk):
    ready = time.monotonic_ns()
    desk.start()
    return ready, time.monotonic_ns()


def test_a_rival_that_is_not_installed_is_reported(monkeypatch):
    monkeypatch.setitem(rivals.WHERE, "nobody", "no_such_module:Nobody")
    found, said = rivals.survey(["dict", "nobody"])
    assert list(found) == ["dict"]
    assert said["nobody"].startswith("not available: ")
    with pytest.raises(NotAvailable):
        rivals.load("nobody")


def test_what_is_read_back_wrong_is_noticed(monkeypatch):
    with Arena("dict", Dataset(20)) as arena:
        arena.load()
        arena.workers(1)[0].call(spoil)
        with pytest.raises(TaskFailed, match="reads back as"):
            arena.workers(1)[0].call(check, Dataset(20), False)


def spoil(desk):
    desk.connected().put(key_of(0), {"status": "spoilt"})


# Workloads


def test_reading_measures_every_rival():
    run = run_of()
    reading.on_dataset(run, Dataset(50), ("get raw", "get decoded", "get 100 decoded"))
    for workload in ("get raw", "get decoded"):
        cells = figures(run, workload)
        assert list(cells) == AT_HAND
        assert all(cell.ns > 0 and cell.rate > 0 and cell.p50 > 0 for cell in cells.values())
    assert figures(run, "get 100 decoded")["Manager().dict()"].skipped == "unsupported"
    assert figures(run, "get raw")["Manager().dict()"].server_cpu_ns > 0
    assert figures(run, "get raw")["shmstore"].server_cpu_ns < 1_000


def test_sharing_measures_all_numbers_of_processes():
    run = run_of(names=["dict", "shmstore"])
    sharing.measure(run)
    counts = {(c.rival, c.processes) for c in run.cells if c.workload == "get decoded"}
    assert counts == {(name, count) for name in ("dict", "shmstore") for count in (1, 2)}
    beside = [cell for cell in run.cells if cell.workload == sharing.BUSY]
    assert all(cell.rival == "shmstore" and cell.rate for cell in beside)


@pytest.mark.skipif(sqlite3.sqlite_version_info < SQLITE_NEEDED, reason="SQLite is too old")
def test_writing_measures_puts_batches_and_increments():
    run = run_of()
    reading.on_dataset(run, Dataset(50), writing.EVERY)
    writing.counting(run)
    assert figures(run, "put pipelined")["sqlite"].skipped == "unsupported"
    for name in AT_HAND:
        assert figures(run, "put")[name].ns > 0
        assert figures(run, "put in batches")[name].ns > 0
    assert {c.rival for c in run.cells if c.processes == 2 and c.ns} == set(AT_HAND[1:])


def test_listing_is_for_those_that_can():
    run = run_of()
    listing.measure(run)
    for workload in listing.EVERY:
        cells = figures(run, workload)
        assert cells["Manager().dict()"].skipped == "unsupported"
        assert all(cells[name].ns > 0 for name in ("dict", "shmstore", "sqlite"))


def test_memory_and_growth_give_figures():
    run = run_of(names=["shmstore"])
    memory.measure(run)
    growing.measure(run)
    assert figures(run, memory.PER_READER)["shmstore"].bytes is not None
    grown = figures(run, growing.GROW)["shmstore"]
    assert grown.skipped is None
    assert grown.highest >= grown.p50 > 0


def test_a_dataset_that_takes_too_long_to_load_is_skipped():
    run = run_of(names=["dict"])
    run.load_rates["dict", "160 B", False] = 1.0
    reading.on_dataset(run, Dataset(50), ("get raw",))
    assert figures(run, "get raw")["dict"].skipped == "skipped: loading would take about 50 s"


def test_one_workload_can_be_chosen():
    run = run_of(only="get missing", names=["dict"])
    reading.on_dataset(run, Dataset(50), tuple(OPERATIONS)[:5])
    assert {cell.workload for cell in run.cells} == {"get missing"}
    options = parsed(["--only", "get missing/dict", "--quick"])
    assert options.only == "get missing/dict"


# Results


def cells_of_a_run() -> list[Cell]:
    return [
        Cell("get raw", "dict", 1000, "160 B", ns=30.0, rate=3e7, p50=60, p99=80, p999=100),
        Cell("get raw", "shmstore", 1000, "160 B", ns=80.0, rate=1e7, p50=110, p99=130, p999=150),
        Cell("get raw", "lmdb", 1000, "160 B", skipped="unsupported"),
        Cell("get raw", "sqlite", 1000, "160 B", skipped="skipped: would take about 5 minutes"),
    ]


@pytest.fixture
def folder(tmp_path):
    said = dict.fromkeys(["dict", "shmstore", "lmdb", "sqlite"], "1.0")
    header = header_of("reading", said, quick=True)
    results.save(tmp_path / "reading.json", header, cells_of_a_run())
    return tmp_path


def test_results_come_back_as_they_were(folder):
    header, cells = results.load(folder / "reading.json")
    assert cells == cells_of_a_run()
    assert header["versions"]["engine"] in ("pure", "native")
    assert header["machine"]["cores"] >= 1
    assert header["clock"]["overhead_ns"] > 0
    assert header["made"]["seed"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "format 2"),
        ({"machine": None}, "machine is missing"),
        ({"cells": [{"workload": "x", "rival": "dict", "records": 1, "value": "16 B"}]}, "neither"),
        ({"cells": [{"workload": "x", "rival": "dict", "value": "16 B", "ns": 1}]}, "no 'records'"),
        ({"cells": [{"workload": "x", "rival": "who", "records": 1, "value": "", "ns": 1}]}, "who"),
        ({"cells": [{"workload": "x", "rival": "dict", "oops": 1}]}, "unknown 'oops'"),
    ],
)
def test_a_damaged_file_of_results_is_refused(folder, change, complaint):
    path = folder / "reading.json"
    document = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    with pytest.raises(ValueError, match=complaint):
        results.load(path)


def test_recorded_results_can_be_read():
    for path in results.FOLDER.glob("*.json"):
        if path.name != "bars.json":
            assert results.load(path)[1]


# Bars


@pytest.mark.parametrize(
    ("comparison", "limit", "figure", "holds"),
    [
        ("at most", 2.5, 25.0, True),
        ("at most", 2.5, 25.1, False),
        ("at least", 4, 40.0, True),
        ("at least", 4, 39.9, False),
        ("under", 3, 30.0, False),
        ("under", 3, 29.9, True),
    ],
)
def test_a_bar_holds_or_not(comparison, limit, figure, holds):
    bar = Bar("what", "a", "b", comparison, limit)
    verdict = judge(bar, {"a": figure, "b": 10.0})
    assert verdict.ratio == pytest.approx(figure / 10)
    assert verdict.holds is holds
    assert ("holds" if holds else "MISSED") in str(verdict)


def test_a_bar_without_its_figures_is_not_said_to_hold():
    assert judge(Bar("what", "a", "b", "at most", 1), {"a": 1.0}).holds is None
    assert judge(Bar("what", "a", None, "at most", 1), {}).holds is None
    assert judge(Bar("what", "a", None, "at most", 1), {"a": 0.5}).holds is True


def test_each_bar_stands_once_and_names_two_figures():
    assert len({bar.what for bar in BARS}) == len(BARS)
    assert all(bar.figure != bar.against for bar in BARS)


# Pages and plots


def test_tables_are_rewritten_between_their_marks_only(folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- table: reading/get raw -->\nold\n<!-- end -->\nAfter.\n")
    assert tables.fill_in(folder, page) == 0
    first = page.read_text()
    assert first.startswith("Before.\n<!-- table: reading/get raw -->\n\n| ")
    assert first.endswith("<!-- end -->\nAfter.\n")
    assert "old" not in first
    assert "| dict | 30 ns |" in first
    assert "| **shmstore** | 80 ns |" in first
    assert "Cannot do this: lmdb." in first
    tables.fill_in(folder, page)
    assert page.read_text() == first


def test_a_table_without_results_says_so(folder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- table: writing/put as rate -->\n<!-- end -->\n<!-- table: bars -->\n<!-- end -->\n"
    )
    tables.fill_in(folder, page)
    assert page.read_text().count("Not measured yet.") == 2


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(31.4, "31.4 ns"), (1_500, "1.5 µs"), (2e6, "2 ms"), (3e9, "3 s")]
)
def test_times_are_shown_in_their_unit(nanoseconds, text):
    assert tables.shown_time(nanoseconds) == text


def test_plots_are_drawn_from_results_alone(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is for drawing plots only")
    assert plots.draw_all(folder, tmp_path / "img") == 0
    first = (tmp_path / "img" / "reading.svg").read_bytes()
    assert b"shmstore" in first
    plots.draw_all(folder, tmp_path / "img")
    assert (tmp_path / "img" / "reading.svg").read_bytes() == first
