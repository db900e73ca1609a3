"""Starting and supervising: names, lazy start, death and restart of the writer, closing."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import sys
import threading
from functools import partial

import pytest

import shmstore
from shmstore import (
    FormatMismatch,
    InvalidArgument,
    NameInUse,
    RequestTimeout,
    ShmstoreError,
    WriterUnavailable,
    layout,
    runtime,
)
from shmstore.server import child, supervisor
from tests.waiting import eventually, writer_of

CAPACITY = "1MiB"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill_writer(server: shmstore.Server) -> int:
    """Kill the writer and wait until the next one serves; return the process id of the old."""
    old = writer_of(server)
    os.kill(old, signal.SIGKILL)
    eventually(lambda: server.writer_pid not in (None, old))
    server.client.ping()
    return old


def no_spares(monkeypatch) -> None:
    """Have each writer started when the one before is gone; to be said before the server starts."""
    monkeypatch.setattr(supervisor, "SPARE_AFTER_SECONDS", 1e6)
    monkeypatch.setattr(supervisor, "SPARE_AGAIN_SECONDS", 1e6)


def python_that(directory, monkeypatch, text: str) -> None:
    """Have writers run this text in place of the writer."""
    script = directory / "writer.py"
    script.write_text(text + "\n")
    program = directory / "python"
    # Not named behind "#!": a path with a space in it cannot stand there.
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_server_has_a_name_an_address_and_a_writer(runtime_dir):
    with shmstore.start("mine", capacity=CAPACITY) as server:
        assert server.name == "mine"
        assert server.address == f"{runtime_dir}/mine.sock"
        assert is_alive(writer_of(server))
        assert server.writer_pid == server.client.stats()["pid"] != os.getpid()
        assert runtime.running() == ["mine"]
        assert repr(server) == f"<shmstore.Server 'mine', writer {server.writer_pid}>"


def test_after_the_end_nothing_is_left(runtime_dir):
    server = shmstore.start(capacity=CAPACITY)
    pid = writer_of(server)
    server.table("t")["k"] = 1
    server.close()
    server.close()
    assert server.writer_pid is None
    assert not is_alive(pid)
    assert list(runtime_dir.iterdir()) == []
    with pytest.raises(WriterUnavailable, match="closed"):
        server.table("t")["k"] = 2


def test_servers_without_a_name_do_not_meet():
    with (
        shmstore.start(capacity=CAPACITY) as one,
        shmstore.start(capacity=CAPACITY) as other,
    ):
        one.table("t")["k"] = 1
        other.table("t")["k"] = 2
        assert (one.table("t")["k"], other.table("t")["k"]) == (1, 2)


def test_a_name_that_is_in_use_is_refused_and_the_first_server_undisturbed():
    with shmstore.start("mine", capacity=CAPACITY) as server:
        with pytest.raises(NameInUse, match="already running") as caught:
            shmstore.start("mine", capacity=CAPACITY)
        assert isinstance(caught.value, FileExistsError)
        server.table("t")["k"] = 1
        with shmstore.connect("mine") as client:
            assert client.table("t")["k"] == 1


def test_the_socket_of_a_server_that_died_is_no_obstacle(runtime_dir):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{runtime_dir}/mine.sock")
    with shmstore.start("mine", capacity=CAPACITY) as server:
        server.table("t")["k"] = 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"name": "a b"}, "A-Z a-z"),
        ({"capacity": "much"}, "512MiB"),
        ({"capacity": 1}, "1MiB"),
        ({"capacity": "512TiB"}, "1TiB"),
        ({"timeout": 0}, "positive"),
    ],
)
def test_bad_arguments_say_what_to_do_and_leave_nothing(arguments, hint, runtime_dir):
    with pytest.raises(InvalidArgument, match=hint):
        shmstore.start(**arguments)
    assert runtime.running() == []


def test_a_capacity_the_machine_does_not_have_is_refused_and_nothing_left(monkeypatch):
    monkeypatch.setattr("shmstore.segment.available_bytes", lambda: 1 << 20)
    with pytest.raises(InvalidArgument, match="leaves 1048576"):
        shmstore.start("mine", capacity="2MiB")
    assert runtime.running() == []


def test_a_runtime_directory_that_others_may_enter_is_refused(runtime_dir):
    runtime_dir.chmod(0o755)
    with pytest.raises(InvalidArgument, match="chmod 700"):
        shmstore.start(capacity=CAPACITY)


def test_a_very_long_runtime_directory_will_do(monkeypatch, runtime_dir):
    long = runtime_dir / ("d" * 120) / ("e" * 120)
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(long))
    with shmstore.start("mine", capacity=CAPACITY) as server:
        server.table("t")["k"] = 1
        kill_writer(server)
        with shmstore.connect("mine") as by_name, shmstore.connect(server.address) as by_address:
            assert by_name.table("t")["k"] == by_address.table("t")["k"] == 1
    assert list(long.iterdir()) == []


def test_a_lazy_server_starts_its_writer_when_somebody_connects():
    with shmstore.start("mine", capacity=CAPACITY, lazy=True) as server:
        assert server.writer_pid is None
        assert runtime.running() == ["mine"]
        with pytest.raises(NameInUse):
            shmstore.start("mine", capacity=CAPACITY)
        assert server.writer_pid is None
        with shmstore.connect("mine") as client:
            client.table("t")["k"] = 1
            assert is_alive(writer_of(server))
        kill_writer(server)
        assert server.table("t")["k"] == 1


def test_a_lazy_server_that_nobody_used_ends():
    with shmstore.start(capacity=CAPACITY, lazy=True) as server:
        table = server.table("t")
    with pytest.raises(WriterUnavailable, match="closed"):
        table["k"] = 1


def test_a_table_of_a_lazy_server_can_be_pickled(runtime_dir):
    with shmstore.start(capacity=CAPACITY, lazy=True) as server:
        table = pickle.loads(pickle.dumps(server.table("t")))
        table["k"] = 1
        assert server.table("t")["k"] == 1


def test_a_killed_writer_is_replaced_and_nothing_lost():
    with shmstore.start(capacity=CAPACITY) as server:
        table = server.table("t")
        for number in range(3):
            table[str(number)] = number
            old = kill_writer(server)
            assert not is_alive(old)
            assert dict(table) == {str(each): each for each in range(number + 1)}
        assert server.client.check() == []


def test_reads_go_on_while_there_is_no_writer(tmp_path, monkeypatch):
    no_spares(monkeypatch)
    with shmstore.start(capacity=CAPACITY) as server:
        table = server.table("t")
        table["k"] = 1
        with monkeypatch.context() as patch:
            python_that(tmp_path, patch, "import time; time.sleep(100)")
            old = writer_of(server)
            os.kill(old, signal.SIGKILL)
            eventually(lambda: server.writer_pid not in (None, old))
            assert table["k"] == 1
            assert dict(table) == {"k": 1}
            with pytest.raises(RequestTimeout):
                server.client.call("ping", [], timeout=0.05)
        os.kill(writer_of(server), signal.SIGKILL)
        table["k"] = 2
        assert table["k"] == 2


def test_increments_are_applied_once_however_often_the_writer_is_killed():
    with shmstore.start(capacity=CAPACITY) as server:
        results: list[int] = []

        def more_than(seen):
            return server.table("t").get("n", 0) > seen or len(results) == 240

        def work() -> None:
            table = server.table("t")
            results.extend(table.increment("n") for _ in range(60))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            seen = server.table("t").get("n", 0)
            eventually(partial(more_than, seen))
            kill_writer(server)
        for thread in threads:
            thread.join()
        assert sorted(results) == list(range(1, 241))
        assert server.table("t")["n"] == 240


def test_a_pipeline_survives_the_death_of_the_writer():
    with shmstore.start(capacity=CAPACITY) as server, server.client.pipeline() as pipeline:
        table = pipeline.table("t")
        for number in range(400):
            table.increment("n")
            if number % 150 == 100:
                os.kill(writer_of(server), signal.SIGKILL)
        assert table.increment("n").result() == 401


def test_a_stopped_writer_lets_reads_go_on_and_mutations_time_out():
    with shmstore.start(capacity=CAPACITY) as server:
        table = server.table("t")
        table["k"] = 1
        os.kill(writer_of(server), signal.SIGSTOP)
        server.client.timeout = 0.05
        with pytest.raises(RequestTimeout, match="once or not at all") as caught:
            table["k"] = 2
        assert isinstance(caught.value, TimeoutError)
        assert table["k"] == 1
        assert "k" in table
        os.kill(writer_of(server), signal.SIGCONT)
        server.client.timeout = 30.0
        assert table.put("k", 3) > 2
        assert table["k"] == 3


def test_a_stopped_writer_that_is_killed_is_replaced():
    with shmstore.start(capacity=CAPACITY) as server:
        os.kill(writer_of(server), signal.SIGSTOP)
        kill_writer(server)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_server_ends_whatever_its_writer_does(number):
    with shmstore.start(capacity=CAPACITY) as server:
        pid = writer_of(server)
        os.kill(pid, number)
    assert not is_alive(pid)


DEAF = r"""
import os, re, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
status = int(re.findall(r"[0-9]+", sys.argv[2].split("arguments")[1])[3])
os.write(status, b"ready\n")
time.sleep(100)
"""


def test_a_writer_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "TERM_SECONDS", 0.05)
    python_that(tmp_path, monkeypatch, DEAF)
    with shmstore.start(capacity=CAPACITY) as server:
        pid = writer_of(server)
    assert not is_alive(pid)


def test_the_exit_status_may_be_collected_by_somebody_else():
    def collect(number, frame):
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return

    before = signal.signal(signal.SIGCHLD, collect)
    try:
        with shmstore.start(capacity=CAPACITY) as server:
            server.table("t")["k"] = 1
            kill_writer(server)
            assert server.table("t")["k"] == 1
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_children_may_be_ignored():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with shmstore.start(capacity=CAPACITY) as server:
            kill_writer(server)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_python_that_cannot_run_the_writer_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WriterUnavailable, match="status 1"):
        shmstore.start("mine", capacity=CAPACITY)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(WriterUnavailable, match="no writer process"):
        shmstore.start("mine", capacity=CAPACITY)
    assert runtime.running() == []


def test_a_lazy_server_whose_writer_cannot_run_turns_clients_away(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        shmstore.start("mine", capacity=CAPACITY, lazy=True),
        pytest.raises(WriterUnavailable, match="status 1"),
    ):
        shmstore.connect("mine")


@pytest.mark.parametrize("broken", ["os.pipe", "threading.Thread.start"])
def test_a_start_that_fails_leaves_nothing(broken, monkeypatch, runtime_dir):
    def fail(*arguments):
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises((RuntimeError, WriterUnavailable), match="broken"):
            shmstore.start(capacity=CAPACITY)
    assert list(runtime_dir.iterdir()) == []


def test_a_writer_that_never_becomes_ready_is_given_up(tmp_path, monkeypatch):
    python_that(tmp_path, monkeypatch, "import time; time.sleep(100)")
    with pytest.raises(RequestTimeout, match="not ready in time"):
        shmstore.start("mine", capacity=CAPACITY, timeout=0.2)
    assert runtime.running() == []


def test_a_segment_that_no_writer_can_serve_ends_the_server(runtime_dir):
    with shmstore.start("mine", capacity=CAPACITY) as server, server.connect() as client:
        client.table("t")["k"] = 1
        os.kill(writer_of(server), signal.SIGSTOP)
        version = struct.pack("<Q", 99)
        place = layout.VERSION_WORD * layout.WORD_BYTES
        os.pwrite(server._supervisor._memory_fd, version, place)
        os.kill(writer_of(server), signal.SIGKILL)
        with pytest.raises(WriterUnavailable):
            client.table("t")["k"] = 2
        assert runtime.running() == []
        assert isinstance(server._supervisor.failure, FormatMismatch)


def test_writers_that_die_at_once_are_not_restarted_in_a_storm(tmp_path, monkeypatch):
    no_spares(monkeypatch)
    monkeypatch.setattr(supervisor, "QUICK_DEATH_SECONDS", 1000.0)
    count = tmp_path / "count"
    count.touch()
    with shmstore.start(capacity=CAPACITY) as server:
        server.table("t")["k"] = 1
        with monkeypatch.context() as patch:
            patch.setattr(supervisor, "PAUSE_SECONDS", 100.0)
            patch.setattr(supervisor, "PAUSE_SECONDS_MAX", 100.0)
            python_that(tmp_path, patch, f"open({str(count)!r}, 'a').write('x')")
            os.kill(writer_of(server), signal.SIGKILL)
            eventually(lambda: count.stat().st_size > supervisor.QUICK_DEATHS_FREE - 1)
            eventually(lambda: server.writer_pid is None)
            with pytest.raises(RequestTimeout):
                server.client.call("ping", [], timeout=0.1)
            assert count.stat().st_size == supervisor.QUICK_DEATHS_FREE
            assert server.table("t")["k"] == 1


def test_a_server_can_be_started_in_any_thread():
    servers = []
    threads = [
        threading.Thread(target=lambda: servers.append(shmstore.start(capacity=CAPACITY)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in servers:
        server.table("t")["k"] = server.name
    assert all(server.table("t")["k"] == server.name for server in servers)
    for server in servers:
        server.close()


def test_a_relative_path_of_modules_and_a_lost_working_directory_do_not_matter(
    tmp_path, monkeypatch
):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with shmstore.start(capacity=CAPACITY) as server:
        server.table("t")["k"] = 1


def test_the_writer_finds_the_package_where_its_starter_found_it(monkeypatch):
    def holds_it(entry: str) -> bool:
        return os.path.exists(os.path.join(entry, "shmstore", "__init__.py"))

    # As where an import hook finds it, or a directory that is not in the path any more.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not holds_it(entry)])
    with shmstore.start(capacity=CAPACITY) as server:
        server.table("t")["k"] = 1


def test_a_server_cannot_be_pickled_and_says_what_can():
    with shmstore.start(capacity=CAPACITY, lazy=True) as server:
        with pytest.raises(ShmstoreError, match=r"server\.address"):
            pickle.dumps(server)


def test_its_clients_have_its_timeout_unless_told_otherwise():
    with shmstore.start(capacity=CAPACITY, timeout=20.0) as server:
        with server.connect() as same, server.connect(timeout=5.0) as other:
            assert (server.client.timeout, same.timeout, other.timeout) == (20.0, 20.0, 5.0)


def test_interrupting_the_terminal_does_not_end_the_writer():
    with shmstore.start(capacity=CAPACITY) as server:
        assert os.getsid(writer_of(server)) != os.getsid(0)
        os.kill(writer_of(server), signal.SIGINT)
        server.client.ping()
        assert is_alive(writer_of(server))


def test_starting_may_take_for_ever_if_that_is_wanted():
    with shmstore.start(capacity=CAPACITY, timeout=None) as server:
        assert server.client.timeout is None
        server.client.ping()
