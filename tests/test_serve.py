"""``shmstore serve``: a server of its own, from its first line to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import shmstore

Serve = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers in sessions of their own, as at a terminal; all have ended after the test."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "shmstore", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(serve, runtime_dir, number):
    process = serve("mine", "--capacity", "2MiB")
    address = first_line(process)
    assert address == f"{runtime_dir}/mine.sock"
    with shmstore.connect("mine") as client:
        client.table("t")["key"] = "value"
        assert client.stats()["capacity"] == 2 << 20
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")
        assert client.table("t")["key"] == "value"
    assert not os.path.exists(address)


def test_a_capacity_in_bytes(serve):
    first_line(serve("mine", "--capacity", str(3 << 20)))
    with shmstore.connect("mine") as client:
        assert client.stats()["capacity"] == 3 << 20


def test_a_name_that_is_taken_is_status_2(serve, server):
    process = serve(server.name)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert "already running" in err


@pytest.mark.parametrize("arguments", [["a/b"], ["ok", "--capacity", "lots"]])
def test_what_cannot_be_served_is_status_2(serve, arguments):
    process = serve(*arguments)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (2, "")
    assert err.startswith("shmstore: ")
    assert err.count("\n") == 1


def test_a_server_that_nobody_can_reach_any_more_ends(serve):
    process = serve("mine")
    os.unlink(first_line(process))
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "has ended" in err
