"""``shmstore load`` and ``dump``: files into tables and back, and what is said of bad lines."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import pytest

import shmstore
from shmstore.cli import main
from shmstore.commands import loading
from shmstore.commands.progress import Progress

SAMPLE = Path(__file__).parent.parent / "benchmarks" / "data" / "packages.jsonl"


class Ran(NamedTuple):
    """What came of a command line."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch) -> Callable[..., Ran]:
    """Run a command line in this process."""

    def run_here(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return run_here


@pytest.fixture
def table(client) -> shmstore.Table:
    return client.table("t")


class TestJsonLines:
    def test_the_sample(self, run, server, table):
        assert run("load", server.name, "t", SAMPLE, "--key", "package") == (0, "", "")
        expected = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
        assert list(table) == [record["package"] for record in expected]
        assert list(table.values()) == expected

    def test_from_standard_input(self, run, server, table):
        ran = run("load", server.name, "t", "-", "--key", "id", stdin=b'{"id": "a"}\n{"id": "b"}')
        assert ran == (0, "", "")
        assert list(table) == ["a", "b"]

    def test_the_last_of_several_lines_with_one_key_wins(self, run, server, table):
        lines = b'{"id": "a", "n": 1}\n{"id": "a", "n": 2}\n'
        assert run("load", server.name, "t", "-", "--key", "id", stdin=lines).status == 0
        assert dict(table) == {"a": {"id": "a", "n": 2}}

    def test_a_whole_number_becomes_its_digits(self, run, server, table):
        assert run("load", server.name, "t", "-", "--key", "id", stdin=b'{"id": 7}').status == 0
        assert list(table) == ["7"]

    def test_blank_lines_and_a_byte_order_mark_are_nothing(self, run, server, table):
        lines = b'\xef\xbb\xbf{"id": "a"}\r\n\r\n  \n{"id": "b"}\n\n'
        assert run("load", server.name, "t", "-", "--key", "id", stdin=lines).status == 0
        assert list(table) == ["a", "b"]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b'{"id": "x"', "not JSON: .* \\(column 11\\)"),
            (b'{"id": "\xff"}', "not UTF-8 at byte 9"),
            (b"[1]", "not an object"),
            (b'{"name": "x"}', "no field 'id' to be the key"),
            (b'{"id": null}', "a key is text or a whole number, not None"),
            (b'{"id": true}', "a key is text or a whole number, not True"),
            (b'{"id": 1.5}', "a key is text or a whole number, not 1.5"),
            (b'{"id": "x", "n": 18446744073709551616}', ".*64 bits.*"),
            (b'{"id": "x", "s": "\\ud800"}', ".*surrogate.*"),
            (b'{"id": "\\ud800"}', ".*surrogate.*"),
            (b'{"id": "x", "b": {"$bytes": 1}}', "\\$bytes cannot be read: .*"),
            (b'{"id": "' + b"x" * 65537 + b'"}', "this key has 65537 bytes.*"),
        ],
    )
    def test_a_bad_line_is_named_and_the_others_are_stored(
        self, run, server, table, tmp_path, line, problem
    ):
        path = tmp_path / "in.jsonl"
        path.write_bytes(b'{"id": "a"}\n' + line + b'\n{"id": "b"}\n')
        status, out, err = run("load", server.name, "t", path, "--key", "id")
        assert (status, out) == (1, "")
        said, summary = err.splitlines()
        prefix = f"{path}:2: "
        assert said.startswith(prefix)
        assert re.fullmatch(problem, said[len(prefix) :])
        assert summary == "shmstore: 2 records stored, 1 lines failed"
        assert list(table) == ["a", "b"]

    def test_a_file_that_cannot_be_read_is_status_2(self, run, server, tmp_path):
        ran = run("load", server.name, "t", tmp_path / "missing", "--key", "id")
        assert (ran.status, ran.out) == (2, "")
        assert "No such file" in ran.err

    def test_records_of_a_store(self, run, server, client):
        line = b'{"id": "c1", "object": "customer", "created": 5, "email": "a@b"}\n'
        place = ("load", server.name, "customers", "-", "--key", "id", "--namespace", "test")
        assert run(*place, stdin=line).status == 0
        assert run(*place, stdin=b'{"id": "c2", "created": "noon"}').status == 1
        with shmstore.namespace("test"):
            assert Customers(client).find(email="a@b") == [json.loads(line)]


class TestCsv:
    def test_rows_of_text(self, run, server, table, tmp_path):
        path = tmp_path / "in.CSV"
        path.write_bytes('\ufeffid,name\n1,"Ada, Countess"\n2,"two\nlines"\n\n3,\n'.encode())
        assert run("load", server.name, "t", path, "--key", "id") == (0, "", "")
        assert dict(table) == {
            "1": {"id": "1", "name": "Ada, Countess"},
            "2": {"id": "2", "name": "two\nlines"},
            "3": {"id": "3", "name": ""},
        }

    def test_bad_rows_are_named_by_the_line_they_start_on(self, run, server, table):
        lines = b'id,name\n1,"a\nb"\n2\n3,\xff\n4,d,e\n5,f\n'
        ran = run("load", server.name, "t", "-", "--format", "csv", "--key", "id", stdin=lines)
        assert ran.status == 1
        said = ran.err.splitlines()
        assert said[:2] == [
            "stdin:4: 1 fields, where the header has 2",
            "stdin:6: 3 fields, where the header has 2",
        ]
        assert said[2].startswith("stdin:5: ")
        assert "surrogate" in said[2]
        assert list(table) == ["1", "5"]

    def test_what_is_no_csv_is_named_and_the_rest_is_stored(self, run, server, table):
        wide = b"x" * 200_000
        lines = b"id,name\n1,a\n2," + wide + b"\n3,c\n"
        ran = run("load", server.name, "t", "-", "--format", "csv", "--key", "id", stdin=lines)
        assert ran.status == 1
        assert ran.err.startswith("stdin:3: not CSV: ")
        assert list(table) == ["1", "3"]

    def test_a_header_that_cannot_name_the_columns_is_status_2(self, run, server):
        ran = run("load", server.name, "t", "-", "--format", "csv", "--key", "a", stdin=b"a,a\n")
        assert ran == (2, "", "shmstore: line 1: two columns have the same name\n")

    def test_from_line_keeps_the_header(self, run, server, table):
        lines = b'id,name\n1,"a\nb"\n2,c\n'
        arguments = ("load", server.name, "t", "-", "--format", "csv", "--key", "id")
        assert run(*arguments, "--from-line", "3", stdin=lines).status == 0
        assert list(table) == ["2"]


class TestBreakingOff:
    def test_from_line_leaves_out_what_is_before(self, run, server, table):
        lines = b'{"id": "a"}\nnonsense\n{"id": "b"}\n{"id": "c"}\n'
        arguments = ("load", server.name, "t", "-", "--key", "id", "--from-line", "3")
        assert run(*arguments, stdin=lines) == (0, "", "")
        assert list(table) == ["b", "c"]

    def test_too_many_bad_lines(self, run, server, table):
        lines = b'{"id": "a"}\n' + b"nonsense\n" * 9 + b'{"id": "b"}\n'
        arguments = ("load", server.name, "t", "-", "--key", "id", "--max-errors", "3")
        ran = run(*arguments, stdin=lines)
        assert ran.status == 1
        assert ran.err.count("not JSON") == 3
        assert ran.err.endswith("shmstore: 0 records stored; to go on: --from-line 1\n")

    def test_a_full_store_says_where_to_go_on(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr(loading, "BATCH_RECORDS", 10)
        path = tmp_path / "in.jsonl"
        lines = [json.dumps({"id": f"k{number}", "x": "x" * 20_000}) for number in range(200)]
        path.write_text("\n".join(lines))
        with shmstore.start(capacity="2MiB") as server:
            ran = run("load", server.name, "t", path, "--key", "id")
            assert ran.status == 3
            hint, error = ran.err.splitlines()
            stored = len(server.table("t"))
            assert 0 < stored < 200
            assert stored % 10 == 0
            assert hint == f"shmstore: {stored} records stored; to go on: --from-line {stored + 1}"
            assert "full" in error
            server.table("t").clear()
            again = ("load", server.name, "t", "-", "--key", "id", "--from-line", stored + 1)
            ran = run(*again, stdin="\n".join(lines[: stored + 20]).encode())
            assert (ran.status, ran.err) == (0, "")
            assert list(server.table("t")) == [f"k{stored + n}" for n in range(20)]

    def test_ctrl_c_says_where_to_go_on(self, server, table):
        command = ["load", server.name, "t", "-", "--key", "id"]
        with subprocess.Popen(
            [sys.executable, "-m", "shmstore", *command],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            count = loading.BATCH_RECORDS
            lines = [json.dumps({"id": str(number)}) for number in range(count)]
            process.stdin.write("\n".join([*lines, "nonsense\n"]).encode())
            process.stdin.flush()
            # What it says of the bad line shows that the batch before it is done with.
            assert process.stderr.readline().startswith(f"stdin:{count + 1}: ".encode())
            process.send_signal(signal.SIGINT)
            hint = f"shmstore: {count} records stored; to go on: --from-line {count + 2}\n"
            assert process.stderr.read().decode() == hint
            assert process.wait() == 130
        assert len(table) == count


class Customers(shmstore.Store):
    table, resource, prefix = "customers", "customer", "cus"
    indexes = ("email",)


class TestDump:
    def test_lines_of_one_table_come_back(self, run, server, client):
        records = {
            "text": {"a": [1, -0.0, None, True, "é\n"]},
            b"bytes \xff": b"\x00\xff",
            "time": datetime(2026, 7, 11, 10, tzinfo=timezone.utc),
            "floats": [float("inf"), 2**64 - 1, -(2**63)],
            "map": {1: 2, None: {b"x": "y"}},
            "$": {"$bytes": "no bytes"},
            "": "",
        }
        client.table("old").update(records)
        client.table("other")["x"] = 1
        dumped = run("dump", server.name, "old")
        assert (dumped.status, dumped.err) == (0, "")
        assert dumped.out.startswith('{"table":"old","key":"text","value":{"a":[1,')
        assert run("load", server.name, "new", "-", stdin=dumped.out.encode()).status == 0
        assert list(client.table("new").items()) == list(records.items())

    def test_everything_comes_back_in_its_place(self, run, server, client):
        client.table("plain").update(a=1, b=2)
        customers = Customers(client)
        for place in ("one", "two"):
            with shmstore.namespace(place):
                customers.insert_many([{"id": f"{place}{n}", "email": "a@b"} for n in range(3)])
        dumped = run("dump", server.name)
        assert dumped.status == 0
        assert '{"table":"customers","indexes":["email"]}\n' in dumped.out
        with shmstore.start(capacity="8MiB") as other:
            assert run("load", other.name, "-", "-", stdin=dumped.out.encode()).status == 0
            assert sorted(run("dump", other.name).out.splitlines()) == sorted(
                dumped.out.splitlines()
            )
            with other.connect() as there, shmstore.namespace("two"):
                copies = Customers(there)
                assert copies.find(email="a@b") == customers.find(email="a@b")
                assert list(copies.list()) == list(customers.list())

    def test_one_namespace(self, run, server, client):
        customers = Customers(client)
        for place in ("one", "two"):
            with shmstore.namespace(place):
                customers.insert({"id": place})
        out = run("dump", server.name, "customers", "--namespace", "two").out
        assert [line.get("key") for line in map(json.loads, out.splitlines())] == [None, "two"]

    def test_what_has_no_form_in_json_is_named_and_the_rest_is_printed(self, run, server, client):
        client.table("t")["a"] = 1
        extension = b"\xd4\x05\x00"  # msgpack that we never write, and a foreign client might
        client.call("put", ["t", "", "b", extension])
        client.table("t")["c"] = 3
        ran = run("dump", server.name)
        assert ran.status == 1
        assert [json.loads(line)["key"] for line in ran.out.splitlines()] == ["a", "c"]
        assert ran.err.startswith("shmstore: table 't', key 'b': ")
        assert ran.err.count("\n") == 1

    def test_a_table_that_is_not_there_is_status_1(self, run, server):
        assert run("dump", server.name, "t") == (1, "", "shmstore: no table 't'\n")
        assert run("dump", server.name) == (0, "", "")

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b'{"id": "a"}', 'not a line of a dump, with "key" and "value"; or give --key FIELD'),
            (b'{"key": "a", "value": 1}', 'the line names no "table"; give one in place of -'),
            (b'{"table": "", "key": "a", "value": 1}', 'the line names no "table"; give one in'),
            (b'{"table": "t", "namespace": 1, "key": "a", "value": 1}', "the line names no"),
            (b'{"table": "t", "indexes": [1]}', '"indexes" is not a list of field names'),
            (b'{"table": "t", "indexes": 1}', '"indexes" is not a list of field names'),
        ],
    )
    def test_lines_that_are_of_no_dump(self, run, server, line, problem):
        ran = run("load", server.name, "-", "-", stdin=line)
        assert ran.status == 1
        assert ran.err.startswith(f"stdin:1: {problem}")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    def test_a_bar_on_a_terminal(self, monkeypatch):
        screen = Terminal()
        progress = Progress(200, screen)
        monkeypatch.setattr(time, "monotonic", lambda: 1e9)
        progress.show(100, 7)
        assert "[###############...............]  50%  7 records, " in screen.getvalue()
        progress.clear()
        assert screen.getvalue().endswith("\r\x1b[K")

    def test_no_bar_where_the_total_is_not_known(self, monkeypatch):
        screen = Terminal()
        progress = Progress(None, screen)
        monkeypatch.setattr(time, "monotonic", lambda: 1e9)
        progress.show(100, 7)
        assert "[" not in screen.getvalue().replace("\x1b[K", "")

    def test_it_is_not_drawn_more_often_than_one_can_see(self, monkeypatch):
        screen = Terminal()
        monkeypatch.setattr(time, "monotonic", lambda: 1e9)
        progress = Progress(200, screen)
        progress.show(1, 1)
        progress.show(2, 2)
        assert screen.getvalue().count("records") == 1

    def test_nothing_elsewhere(self):
        screen = io.StringIO()
        progress = Progress(200, screen)
        progress.show(100, 7)
        progress.clear()
        assert screen.getvalue() == ""

    def test_a_person_is_told_what_was_done(self, server):
        ours, theirs = os.openpty()
        try:
            command = ["load", server.name, "t", str(SAMPLE), "--key", "package"]
            subprocess.run([sys.executable, "-m", "shmstore", *command], stderr=theirs, check=True)
            assert b"shmstore: 3000 records stored, 0 lines failed" in os.read(ours, 1 << 16)
        finally:
            os.close(ours)
            os.close(theirs)
