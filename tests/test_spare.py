"""The spare: a second writer process that has imported everything, and waits for its turn."""

from __future__ import annotations

import os
import signal
import struct
import sys
from pathlib import Path

import pytest

import shmstore
from shmstore import WriterUnavailable, layout, runtime
from shmstore.server import supervisor
from tests.test_server import is_alive, python_that
from tests.waiting import eventually, writer_of

CAPACITY = "1MiB"


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """Have spares made as soon as a writer serves."""
    monkeypatch.setattr(supervisor, "SPARE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "SPARE_AGAIN_SECONDS", 0.0)


def spare_of(server: shmstore.Server) -> int:
    pid = eventually(lambda: server._supervisor.spare_pid)
    assert pid is not None
    return pid


def maps_the_segment(pid: int) -> bool:
    return "memfd:shmstore" in Path(f"/proc/{pid}/maps").read_text()


def stands_by(pid: int) -> bool:
    """Tell whether it has imported everything: then it ignores Ctrl-C."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (ignored,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:")]
    return bool(ignored >> (signal.SIGINT - 1) & 1)


def test_the_spare_becomes_the_writer_and_gets_a_spare_of_its_own():
    with shmstore.start(capacity=CAPACITY) as server:
        table = server.table("t")
        for number in range(3):
            table[str(number)] = number
            old, spare = writer_of(server), spare_of(server)
            assert spare not in (old, os.getpid())
            os.kill(old, signal.SIGKILL)
            table["after"] = number
            assert server.writer_pid == server.client.stats()["pid"] == spare
        assert server.client.check() == []
        assert [table[str(number)] for number in range(3)] == [0, 1, 2]


def test_it_does_not_touch_the_segment_before_it_is_told():
    with shmstore.start(capacity=CAPACITY) as server:
        old, spare = writer_of(server), spare_of(server)
        eventually(lambda: stands_by(spare))
        assert maps_the_segment(old)
        assert not maps_the_segment(spare)
        os.kill(old, signal.SIGKILL)
        server.client.ping()
        assert maps_the_segment(spare)


def test_the_end_of_a_server_is_that_of_its_spare(runtime_dir):
    with shmstore.start(capacity=CAPACITY) as server:
        spare = spare_of(server)
    assert not is_alive(spare)
    assert server._supervisor.spare_pid is None
    assert list(runtime_dir.iterdir()) == []


def test_one_that_was_killed_is_replaced():
    with shmstore.start(capacity=CAPACITY) as server:
        writer, spare = writer_of(server), spare_of(server)
        os.kill(spare, signal.SIGKILL)
        eventually(lambda: server._supervisor.spare_pid not in (None, spare))
        assert not is_alive(spare)
        assert server.client.stats()["pid"] == writer


def test_writer_and_spare_may_be_killed_together():
    with shmstore.start(capacity=CAPACITY) as server:
        table = server.table("t")
        table["k"] = 1
        writer, spare = writer_of(server), spare_of(server)
        os.kill(spare, signal.SIGKILL)
        os.kill(writer, signal.SIGKILL)
        table["k"] = 2
        assert server.client.stats()["pid"] not in (writer, spare)
        assert table["k"] == 2


def test_one_that_was_stopped_takes_over_all_the_same():
    with shmstore.start(capacity=CAPACITY) as server:
        spare = spare_of(server)
        eventually(lambda: stands_by(spare))
        os.kill(spare, signal.SIGSTOP)
        os.kill(writer_of(server), signal.SIGKILL)
        server.table("t")["k"] = 1
        assert server.client.stats()["pid"] == spare


def test_one_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "ANSWER_SECONDS", 0.05)
    with shmstore.start(capacity=CAPACITY) as server:
        hearing = spare_of(server)
        with monkeypatch.context() as patch:
            python_that(tmp_path, patch, "import time; time.sleep(100)")
            os.kill(hearing, signal.SIGKILL)
            eventually(lambda: server._supervisor.spare_pid not in (None, hearing))
            deaf = spare_of(server)
        os.kill(writer_of(server), signal.SIGKILL)
        server.table("t")["k"] = 1
        assert server.client.stats()["pid"] != deaf
        assert not is_alive(deaf)


def test_a_server_that_cannot_have_one_goes_without(monkeypatch):
    with shmstore.start(capacity=CAPACITY) as server:
        with monkeypatch.context() as patch:
            spare = spare_of(server)
            patch.setattr(sys, "executable", "/nonexistent")
            os.kill(spare, signal.SIGKILL)
            eventually(lambda: server._supervisor._spare_deaths > 1)
            assert server._supervisor.spare_pid is None
            server.client.ping()
        os.kill(writer_of(server), signal.SIGKILL)
        server.table("t")["k"] = 1


def test_a_segment_that_no_writer_can_serve_ends_the_spare_as_well():
    with shmstore.start("mine", capacity=CAPACITY) as server, server.connect() as client:
        spare_of(server)
        os.kill(writer_of(server), signal.SIGSTOP)
        version = struct.pack("<Q", 99)
        os.pwrite(server._supervisor._memory_fd, version, layout.VERSION_WORD * layout.WORD_BYTES)
        os.kill(writer_of(server), signal.SIGKILL)
        with pytest.raises(WriterUnavailable):
            client.table("t")["k"] = 2
        assert server._supervisor.spare_pid is None
        assert runtime.running() == []


def test_a_forked_child_leaves_it_alone():
    with shmstore.start(capacity=CAPACITY) as server:
        spare = spare_of(server)
        child = os.fork()
        if child == 0:
            server.close()
            os._exit(server._supervisor.spare_pid is not None)
        assert os.waitpid(child, 0) == (child, 0)
        assert server._supervisor.spare_pid == spare
        os.kill(writer_of(server), signal.SIGKILL)
        server.table("t")["k"] = 1
        assert server.client.stats()["pid"] == spare
