"""The demo: that it runs, that its figures are those counted, and that it would show a failure."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import Pipe
from typing import Any

import pytest

from shmstore.cli import main
from shmstore.demo import sample, scene, screen, workers
from shmstore.demo.sample import SampleMissing, certified, find_sample, is_whole, load_sample
from shmstore.demo.scene import DemoFailed, Scene, Worker
from shmstore.demo.verdict import Death, answered_between, judge, revival
from shmstore.demo.workers import Lookups, Mutations

PROMISES = (
    "torn reads",
    "acknowledged mutations lost",
    "mutations applied twice",
    "records not found though never deleted",
    "lookups that found an older revision than before",
    "broken invariants of the segment",
)
DEATH = Death(pid=1, moment=10.0, committed=100)
REVIVED = Mutations(acknowledged=[(10.5, 101)])
"""What a client has to tell at least after a death that the store survived."""


def figures_of(printed: str) -> dict[str, str]:
    """Return the final table by name."""
    rows = (re.split(r"\s{2,}", line, maxsplit=1) for line in printed.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2 and row[0]}


class TestRun:
    def test_it_keeps_the_promises_and_says_what_it_counted(self):
        ran = subprocess.run(
            [sys.executable, "-m", "shmstore", "demo", "--seconds", "1"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "\x1b" not in ran.stdout
        assert re.search(r"loaded 3,000 records; the writer is process \d+\n", ran.stdout)
        killed = re.search(r"killed the writer, process (\d+), with SIGKILL\n", ran.stdout)
        successor = re.search(r"the writer is process (\d+) now\n", ran.stdout)
        assert killed
        assert successor
        assert killed[1] != successor[1]
        figures = figures_of(ran.stdout)
        assert {figures[name] for name in PROMISES} == {"0"}
        assert int(figures["lookups"].replace(",", "")) > 0
        assert int(figures["acknowledged mutations"].replace(",", "")) > 0
        assert len(figures["lookups per second, each reader"].split(", ")) == 2
        assert figures["lookups answered in that time"].replace(",", "").isdecimal()

    def test_ctrl_c_ends_it_and_all_its_processes(self):
        with subprocess.Popen(
            [sys.executable, "-m", "shmstore", "demo", "--seconds", "600"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                if "mutations acknowledged" in line:
                    break
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr.read() == ""
            assert process.wait() == 130

    def test_a_process_that_does_not_do_its_part_fails_it(self, capsys, monkeypatch):
        monkeypatch.setattr(workers, "read", leave)
        assert main(["demo", "--seconds", "1", "--readers", "1", "--clients", "1"]) == 1
        assert capsys.readouterr().err == "shmstore: reader 1 has ended before its time\n"


class NoWriter:
    """A server whose writer is gone and stays so."""

    writer_pid = None


class TestFailures:
    @pytest.fixture
    def play(self):
        nobody: Any = NoWriter()
        return Scene(screen.Screen(io.StringIO()), nobody, nobody, [], [])

    def test_a_writer_that_does_not_come_back(self, play, monkeypatch):
        monkeypatch.setattr(scene, "RESTART_SECONDS_MAX", -1.0)
        with pytest.raises(DemoFailed, match="no other writer has taken over"):
            play._watch(time.monotonic(), killed=1)

    def test_a_writer_that_is_gone_before_it_is_killed(self, play):
        with pytest.raises(DemoFailed, match="the writer had ended already"):
            play._kill_writer()

    def test_a_process_that_is_gone_when_it_is_told_something(self):
        ours, theirs = Pipe()
        theirs.close()
        with ours, pytest.raises(DemoFailed, match="client 1 has ended before its time"):
            Worker("client 1", ours).tell(workers.STOP)


def leave(*arguments: object) -> None:
    """Stand in for a reader that ends at once."""


class TestSample:
    def test_the_records_are_there_and_whole(self):
        records = load_sample()
        assert len(records) == 3000
        assert all(is_whole(record) for record in records.values())
        assert {record["revision"] for record in records.values()} == {0}

    def test_any_change_breaks_the_certificate(self):
        record = certified({"a": 1, "b": [2]}, 7)
        assert is_whole(record)
        assert record["revision"] == 7
        assert is_whole(certified(record, 8))
        for changed in (
            {**record, "a": 2},
            {**record, "revision": 8},
            {**record, "c": 3},
            {**record, "digest": bytes(16)},
            {name: value for name, value in record.items() if name != "b"},
            {name: value for name, value in record.items() if name != "digest"},
        ):
            assert not is_whole(changed)

    def test_where_the_installation_put_it(self, monkeypatch, tmp_path):
        class Installed:
            name = sample.FILE

            def locate(self):
                return find_sample_in_tree

        find_sample_in_tree = find_sample()
        monkeypatch.setattr(sample, "__file__", str(tmp_path / "a" / "b" / "c.py"))
        monkeypatch.setattr(sample, "files", lambda name: [Installed()])
        assert find_sample() == find_sample_in_tree

    def test_what_to_do_without_it(self, monkeypatch, capsys):
        monkeypatch.setattr(sample, "FILE", "missing.jsonl")
        with pytest.raises(SampleMissing, match="run it from a clone of the repository, or inst"):
            find_sample()
        assert main(["demo"]) == 2
        assert "missing.jsonl" in capsys.readouterr().err


class Script:
    """A connection whose other side says go, then lets the worker take some turns."""

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self.sent: list[object] = []

    def send(self, said: object) -> None:
        self.sent.append(said)

    def recv(self) -> str:
        assert self.sent == [workers.READY]
        return workers.GO

    def poll(self) -> bool:
        self._turns -= 1
        return self._turns < 0


@pytest.fixture
def no_signals(monkeypatch):
    """Keep the workers from changing how this process takes signals."""
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)


@pytest.mark.usefixtures("no_signals")
class TestWorkers:
    def play(self, work, server, keys, turns):
        script = Script(turns)
        work(script, server.address, keys, 1)
        return script.sent[-1]

    def test_a_reader_counts_what_it_looked_up(self, server, client):
        client.table("packages")["a"] = certified({}, 1)
        account = self.play(workers.read, server, ["a"], 3)
        assert account.lookups == 3 * workers.LOOKUPS_PER_MOMENT
        assert (account.torn, account.missing, account.reversed) == (0, 0, 0)
        assert [count for _, count in account.moments] == [
            turn * workers.LOOKUPS_PER_MOMENT for turn in range(3)
        ]

    def test_a_reader_sees_what_is_torn_missing_or_older(self):
        account = Lookups()
        account.judge("a", certified({}, 2))
        account.judge("a", {**certified({}, 3), "revision": 4})
        account.judge("a", None)
        account.judge("a", certified({}, 1))
        account.judge("a", certified({}, 1))
        counts = account.lookups, account.torn, account.missing, account.reversed
        assert counts == (5, 1, 1, 1)

    def test_a_client_remembers_what_was_acknowledged(self, server, client):
        table = client.table("packages")
        table["a"] = certified({"x": 1}, 0)
        account = self.play(workers.change, server, ["a"], workers.MUTATIONS_PER_INCREMENT + 1)
        assert account.mutations == workers.MUTATIONS_PER_INCREMENT + 1
        assert account.increments == client.table("totals")["increments"] == 2
        assert account.revisions == {"a": table["a"]["revision"]} == {"a": 7}
        assert account.acknowledged[-1][1] == table.version("a")
        assert is_whole(table["a"])
        assert account.slowest > 0

    def test_a_client_counts_what_failed(self, server, client):
        client.table("totals")["increments"] = "not a number"
        account = self.play(workers.change, server, ["missing"], 3)
        # The first turn increments, and goes on doing so as long as nothing is acknowledged.
        counts = account.failed, account.increments_unknown, account.mutations
        assert counts == (3, 3, 0)
        client.table("totals").clear()
        account = self.play(workers.change, server, ["missing"], 3)
        assert (account.failed, account.increments_unknown, account.mutations) == (2, 0, 1)


class TestVerdict:
    @pytest.fixture(autouse=True)
    def records(self, client):
        client.table("packages").update(a=certified({}, 5), b=certified({}, 2))
        client.table("totals")["increments"] = 10
        return client.table("packages")

    def judge(self, client, readers, clients):
        found = judge(client, readers, clients, DEATH)
        return found.is_good, dict(found.rows)

    def test_all_is_well(self, client):
        reader = Lookups(2.0, 100, moments=[(10.1, 16), (10.2, 32), (10.4, 64), (10.6, 80)])
        mutator = replace(
            REVIVED, seconds=2.0, mutations=40, increments=10, slowest=0.5, revisions={"a": 5}
        )
        good, rows = self.judge(client, [reader, reader], [mutator])
        assert good
        assert {rows[name] for name in PROMISES} == {"0"}
        assert rows["lookups"] == "200"
        assert rows["lookups per second, each reader"] == "50, 50"
        assert rows["mutations per second, each client"] == "20"
        assert rows["longest wait for an acknowledgement"] == "500 ms"
        assert rows["from the writer's death to the next acknowledgement"] == "500 ms"
        assert rows["lookups answered in that time"] == "96"

    @pytest.mark.parametrize(
        ("promise", "reader", "mutator", "count"),
        [
            ("torn reads", Lookups(torn=2), Mutations(increments=10), "2"),
            (PROMISES[3], Lookups(missing=3), Mutations(increments=10), "3"),
            (PROMISES[4], Lookups(reversed=4), Mutations(increments=10), "4"),
            (PROMISES[1], Lookups(), Mutations(increments=10, revisions={"a": 6, "b": 4}), "3"),
            (PROMISES[1], Lookups(), Mutations(increments=10, revisions={"gone": 1}), "1"),
            (PROMISES[1], Lookups(), Mutations(increments=12), "2"),
            (PROMISES[2], Lookups(), Mutations(increments=6, increments_unknown=3), "1"),
        ],
    )
    def test_a_broken_promise_shows(self, client, promise, reader, mutator, count):
        good, rows = self.judge(client, [reader], [mutator, REVIVED])
        assert not good
        assert {name: rows[name] for name in PROMISES if rows[name] != "0"} == {promise: count}

    def test_a_record_torn_in_the_store_shows(self, client, records):
        records["a"] = {**certified({}, 5), "revision": 6}
        good, rows = self.judge(client, [], [REVIVED, Mutations(increments=10)])
        assert not good
        assert rows["torn reads"] == "1"

    def test_a_writer_that_never_came_back_shows(self, client):
        mutator = Mutations(increments=10, acknowledged=[(9.9, 99), (10.1, 100)])
        good, rows = self.judge(client, [Lookups()], [mutator])
        assert not good
        assert rows["lookups answered in that time"] == "not counted"

    def test_an_acknowledgement_of_the_dead_writer_is_no_revival(self):
        mutators = [
            Mutations(acknowledged=[(9.9, 99), (10.1, 100), (10.7, 102)]),
            Mutations(acknowledged=[(10.6, 101)]),
        ]
        assert revival(mutators, DEATH) == 10.6

    def test_only_lookups_between_the_two_times_count(self):
        account = Lookups(moments=[(1.0, 10), (2.0, 20), (3.0, 30), (4.0, 40)])
        assert answered_between(account, 1.5, 3.5) == 10
        assert answered_between(account, 2.5, 3.5) == 0
        assert answered_between(account, 5.0, 6.0) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestScreen:
    @pytest.fixture
    def clock(self, monkeypatch):
        """A clock that the test sets."""
        now = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        return now

    def test_lines_now_and_then_where_nobody_looks(self, clock):
        out = io.StringIO()
        shown = screen.Screen(out)
        for clock[0] in (100.1, 100.9, 101.5, 101.6, 102.6):
            shown.show(f"at {clock[0]}")
        shown.say("done")
        assert out.getvalue() == ("  1.5 s  at 101.5\n  2.6 s  at 102.6\n  2.6 s  done\n")

    def test_one_line_that_lives_on_a_terminal(self, clock):
        out = Terminal()
        shown = screen.Screen(out)
        for clock[0] in (100.1, 100.3, 100.4, 100.6):
            shown.show(f"at {clock[0]}")
        shown.say("done")
        assert out.getvalue() == (
            "\r\x1b[K  0.3 s  at 100.3\r\x1b[K  0.6 s  at 100.6\r\x1b[K  0.6 s  done\n"
        )

    def test_the_table_is_aligned(self):
        out = io.StringIO()
        screen.Screen(out).table([("a", "1"), ("long name", "2")])
        assert out.getvalue() == "\na          1\nlong name  2\n"
