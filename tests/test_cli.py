"""The command line: what each command prints, where, and with which exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from typing import NamedTuple

import pytest

import shmstore
from shmstore import cli
from shmstore.cli import main
from shmstore.writer.soundness import INVARIANTS

COMMANDS = ["serve", "ls", "get", "put", "delete", "load", "dump", "stats", "check", "demo"]


class Ran(NamedTuple):
    """What came of a command line."""

    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys, monkeypatch) -> Run:
    """Run a command line in this process."""

    def run_here(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return run_here


def python(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run ``python -m shmstore`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "shmstore", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )


class TestGeneral:
    def test_help_names_every_command_and_the_exit_statuses(self, run):
        ran = run("--help")
        assert ran.status == 0
        assert ran.err == ""
        assert all(f"\n    {command} " in ran.out for command in COMMANDS)
        assert "exit status:" in ran.out

    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_explains_itself_with_an_example(self, run, command):
        ran = run(command, "--help")
        assert ran.status == 0
        assert f"usage: shmstore {command}" in ran.out
        assert f"shmstore {command}" in ran.out.split("example")[1]
        assert max(map(len, ran.out.splitlines())) <= 100

    def test_version(self, run, monkeypatch):
        assert run("--version").out.startswith("shmstore")

        def missing(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(cli, "version", missing)
        assert run("--version") == (0, "shmstore, not installed\n", "")

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["nonsense"],
            ["get", "one"],
            ["ls", "--nonsense"],
            ["demo", "--readers", "0"],
            ["load", "a", "b", "c", "--from-line", "0"],
            ["load", "a", "-", "c", "--key", "id"],
            ["load", "a", "b", "c.csv"],
        ],
    )
    def test_a_wrong_command_line_is_status_2(self, run, arguments):
        ran = run(*arguments)
        assert ran.status == 2
        assert ran.out == ""
        assert "shmstore" in ran.err

    def test_no_such_server_is_status_3_and_says_which_there_are(self, run, server):
        ran = run("get", "nowhere", "table", "key")
        assert ran.status == 3
        assert "'nowhere'" in ran.err
        assert server.name in ran.err
        assert ran.err.count("\n") == 1

    def test_an_address_will_do_for_a_name(self, run, server):
        assert run("stats", server.address).status == 0

    def test_a_process_of_its_own(self, server):
        ran = python("put", server.name, "t", "key", '"\u00e9t\u00e9"')
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        ran = python(
            "get", server.name, "t", "key", env={**os.environ, "PYTHONIOENCODING": "ascii"}
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, '"\u00e9t\u00e9"\n', "")
        ran = python("get", server.name, "t", "other")
        assert ran.returncode == 1
        assert ran.stderr == "shmstore: no record 'other' in table 't'\n"

    def test_a_reader_that_goes_away_is_no_error_of_ours(self, server, client):
        client.table("t").put_many((str(number), "x" * 1000) for number in range(500))
        with subprocess.Popen(
            [sys.executable, "-m", "shmstore", "dump", server.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["key"] == "0"
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 141

    def test_a_writer_that_does_not_answer_is_status_3(self, run, server, monkeypatch):
        def stalled(self, *arguments):
            raise shmstore.RequestTimeout("no answer in 1 s")

        monkeypatch.setattr(shmstore.Client, "call", stalled)
        ran = run("put", server.name, "t", "key", "1", "--timeout", "1")
        assert (ran.status, ran.err) == (3, "shmstore: no answer in 1 s\n")


class TestRecords:
    def test_put_get_delete(self, run, server, client):
        assert run("put", server.name, "t", "key", '{"a": [1, null]}') == (0, "", "")
        assert client.table("t")["key"] == {"a": [1, None]}
        assert run("get", server.name, "t", "key") == (0, '{"a":[1,null]}\n', "")
        assert run("delete", server.name, "t", "key") == (0, "", "")
        assert "key" not in client.table("t")

    def test_a_record_from_standard_input(self, run, server, client):
        assert run("put", server.name, "t", "key", "-", stdin=b'{"a":\n 1}\n').status == 0
        assert client.table("t")["key"] == {"a": 1}

    def test_a_key_of_bytes(self, run, server, client):
        assert run("put", server.name, "t", "00ff", "1", "--hex").status == 0
        assert dict(client.table("t")) == {b"\x00\xff": 1}
        assert run("get", server.name, "t", "00ff", "--hex").out == "1\n"
        assert run("delete", server.name, "t", "00ff", "--hex").status == 0
        assert run("get", server.name, "t", "00f", "--hex").status == 2

    def test_what_json_cannot_say(self, run, server, client):
        assert run("put", server.name, "t", "key", '{"$bytes": "AAE="}').status == 0
        assert client.table("t")["key"] == b"\x00\x01"
        assert run("get", server.name, "t", "key").out == '{"$bytes":"AAE="}\n'

    @pytest.mark.parametrize(
        ("text", "message"),
        [("{", "not JSON"), (str(2**64), "64 bits"), ('"\\ud800"', "surrogate")],
    )
    def test_a_record_that_cannot_be_is_status_2(self, run, server, client, text, message):
        ran = run("put", server.name, "t", "key", text)
        assert ran.status == 2
        assert message in ran.err
        assert "key" not in client.table("t")

    def test_delete_removes_what_is_there_and_names_what_is_not(self, run, server, client):
        client.table("t").update(a=1, b=2)
        ran = run("delete", server.name, "t", "a", "other", "b")
        assert ran == (1, "", "shmstore: no record 'other' in table 't'\n")
        assert len(client.table("t")) == 0

    def test_the_records_of_a_store_have_a_namespace(self, run, server):
        record = '{"id":"c1","object":"customer","created":1,"name":"Ada"}'
        place = (server.name, "customers", "c1", "--namespace", "test")
        assert run("put", *place[:3], record, *place[3:]).status == 0
        assert run("get", *place).out == record + "\n"
        assert run("get", *place[:3]).status == 1
        assert run("delete", *place).status == 0

    def test_a_terminal_gets_it_laid_out(self, run, server, client, monkeypatch):
        client.table("t")["key"] = {"a": 1}
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert run("get", server.name, "t", "key").out == '{\n  "a": 1\n}\n'


class TestInspection:
    def test_ls(self, run, server):
        assert run("ls") == (0, f"{server.name}  {server.address}\n", "")
        assert json.loads(run("ls", "--json").out) == [
            {"name": server.name, "address": server.address}
        ]

    def test_ls_of_nothing_is_quiet_unless_a_person_looks(self, run, monkeypatch):
        assert run("ls") == (0, "", "")
        assert run("ls", "--json") == (0, "[]\n", "")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert run("ls") == (0, "", "shmstore: no server is running\n")

    def test_stats(self, run, server, client):
        client.table("users").update(a=1, b=2)
        client.table("other")["x"] = 1
        out = run("stats", server.name).out
        assert f"{8 << 20:,}\n" in out
        assert "\nusers  2\n" in out
        figures = json.loads(run("stats", server.name, "--json").out)
        assert figures["capacity"] == 8 << 20
        assert figures["pid"] == server.writer_pid
        assert figures["tables"] == {"users": 2, "other": 1}

    def test_stats_of_an_empty_server(self, run, server):
        ran = run("stats", server.name)
        assert ran.status == 0
        assert "records per table" not in ran.out

    def test_check_states_the_invariants(self, run, server, client):
        client.table("users")["a"] = 1
        ran = run("check", server.name)
        assert ran.status == 0
        assert all(invariant in ran.out for invariant in INVARIANTS)
        assert ran.out.endswith("nothing is wrong\n")
        assert json.loads(run("check", server.name, "--json").out) == {
            "invariants": list(INVARIANTS),
            "problems": [],
        }

    def test_check_says_what_is_wrong(self, run, server, monkeypatch):
        monkeypatch.setattr(shmstore.Client, "check", lambda self: ["two blocks overlap"])
        ran = run("check", server.name)
        assert ran.status == 1
        assert "wrong: two blocks overlap\n" in ran.out
        assert run("check", server.name, "--json").status == 1
