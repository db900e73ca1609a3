"""Names, the runtime directory and sockets."""

from __future__ import annotations

import fcntl
import math
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from shmstore import InvalidArgument, NameInUse, RequestTimeout, runtime


@pytest.fixture
def bind():
    """Bind servers of some names; their sockets are closed in the end."""
    bounds = []

    def bind_name(name: str) -> runtime.Bound:
        bounds.append(runtime.bind(name, time.monotonic() + 10))
        return bounds[-1]

    yield bind_name
    for bound in bounds:
        runtime.unlink(bound)
        bound.listener.close()


@pytest.mark.parametrize("name", ["a", "A-z_0.9", "x" * 64, "-", ".."])
def test_a_name_is_a_file_in_the_runtime_directory(name, runtime_dir):
    assert runtime.address_of(name) == f"{runtime_dir}/{name}.sock"


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "ä", "a\n", "a\0", None, 7, b"a"])
def test_what_cannot_be_a_name_is_refused_with_what_can(name):
    with pytest.raises(InvalidArgument, match="A-Z a-z 0-9"):
        runtime.address_of(name)


def test_what_holds_a_slash_is_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runtime.address_of("/a/b") == "/a/b"
    assert runtime.address_of("./b.sock") == f"{tmp_path}/b.sock"


def test_the_directory_is_the_one_that_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", "here")
    assert runtime.directory() == f"{tmp_path}/here"


def test_without_a_name_the_directory_is_in_that_of_the_session(monkeypatch, tmp_path):
    monkeypatch.delenv("SHMSTORE_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime.directory() == f"{tmp_path}/shmstore"


@pytest.mark.parametrize("session", [None, "", "relative", "/nonexistent", "/dev/null"])
def test_without_a_session_the_directory_is_a_temporary_one(monkeypatch, session, tmp_path):
    monkeypatch.delenv("SHMSTORE_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if session is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    assert runtime.directory() == f"{tmp_path}/shmstore-{os.geteuid()}"


def test_the_session_of_another_user_is_not_used(monkeypatch, tmp_path):
    monkeypatch.delenv("SHMSTORE_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert runtime.directory() != f"{tmp_path}/shmstore"


def test_the_directory_is_made_for_its_user_alone(monkeypatch, tmp_path, bind):
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(tmp_path / "a" / "b"))
    assert runtime.running() == []
    bind("x")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_enter_is_refused(runtime_dir, bind):
    runtime_dir.chmod(0o750)
    for use in (runtime.running, lambda: bind("x")):
        with pytest.raises(InvalidArgument, match="chmod 700"):
            use()


def test_a_directory_of_another_user_is_refused(monkeypatch, bind):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InvalidArgument, match="belongs to user"):
        bind("x")


def test_a_file_in_the_place_of_the_directory_is_refused(monkeypatch, tmp_path, bind):
    (tmp_path / "file").touch(0o600)
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(InvalidArgument, match=r"cannot be made.*SHMSTORE_RUNTIME_DIR"):
        bind("x")
    with pytest.raises(InvalidArgument, match="not a directory"):
        runtime.running()


def test_a_name_is_bound_once(bind):
    bind("x")
    with pytest.raises(NameInUse, match=r"connect\('x'\)"):
        bind("x")
    bind("y")


def test_the_socket_of_a_dead_server_is_replaced(bind):
    bind("x").listener.close()
    assert not runtime.is_listening(runtime.address_of("x"))
    bind("x")
    assert runtime.is_listening(runtime.address_of("x"))


def test_a_file_that_is_no_socket_is_left_alone(runtime_dir, bind):
    (runtime_dir / "x.sock").write_text("precious")
    with pytest.raises(InvalidArgument, match="in the way"):
        bind("x")
    assert (runtime_dir / "x.sock").read_text() == "precious"


def test_of_many_that_bind_a_name_at_once_one_succeeds(bind):
    outcomes = []

    def attempt() -> None:
        try:
            outcomes.append(bind("x"))
        except NameInUse:
            outcomes.append(None)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert sum(outcome is not None for outcome in outcomes) == 1


def test_binding_waits_for_the_lock_of_the_directory_and_not_for_ever(runtime_dir):
    descriptor = os.open(runtime_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(RequestTimeout, match="holds the lock"):
        runtime.bind("x", time.monotonic())
    os.close(descriptor)


def test_only_the_own_socket_is_removed(bind):
    bound = bind("x")
    os.unlink(bound.address)
    other = bind("x")
    runtime.unlink(bound)
    assert runtime.is_listening(other.address)
    runtime.unlink(other)
    assert not os.path.exists(other.address)
    runtime.unlink(other)


def test_running_servers_are_listed_and_do_not_notice(bind, runtime_dir):
    for name in ("b", "a", "dead"):
        bind(name)
    bind("gone").listener.close()
    (runtime_dir / "file.sock").touch()
    (runtime_dir / "not allowed.sock").touch()
    (runtime_dir / "other").touch()
    listener = bind("c").listener
    assert runtime.running() == ["a", "b", "c", "dead"]
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_missing_server_is_reported_with_those_there_are(bind):
    assert "no server is running" in str(runtime.not_found(runtime.address_of("x"), "why"))
    bind("a")
    bind("b")
    error = runtime.not_found(runtime.address_of("x"), "why")
    assert "'x': why" in str(error)
    assert "a, b" in str(error)
    assert error.details["running"] == ["a", "b"]
    assert "'/else/x.sock'" in str(runtime.not_found("/else/x.sock", "why"))


def test_a_missing_server_is_reported_where_the_directory_cannot_be_used(runtime_dir):
    runtime_dir.chmod(0o755)
    assert "no server is running" in str(runtime.not_found(runtime.address_of("x"), "why"))


def test_paths_may_be_longer_than_the_kernel_allows(monkeypatch, runtime_dir, bind):
    long = runtime_dir / ("d" * 100) / ("e" * 100)
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(long))
    bound = bind("x" * 64)
    assert Path(bound.address).is_socket()
    with runtime.connect(bound.address, 5.0) as connected:
        accepted, _ = bound.listener.accept()
        accepted.close()
        assert connected.recv(1) == b""
    with pytest.raises(NameInUse):
        bind("x" * 64)
    assert runtime.running() == ["x" * 64]
    runtime.unlink(bound)
    assert not Path(bound.address).exists()


def test_connecting_reports_what_the_kernel_says(bind, tmp_path):
    with pytest.raises(FileNotFoundError):
        runtime.connect(runtime.address_of("x"), 1.0)
    with pytest.raises(FileNotFoundError):
        runtime.connect(f"{tmp_path}/{'d' * 200}/x.sock", 1.0)
    bound = bind("x")
    bound.listener.close()
    with pytest.raises(ConnectionRefusedError):
        runtime.connect(bound.address, 1.0)


def test_connecting_to_a_full_queue_takes_no_longer_than_allowed(bind):
    bound = bind("x")
    bound.listener.listen(0)
    with runtime.connect(bound.address, 1.0), pytest.raises(TimeoutError, match="queue"):
        runtime.connect(bound.address, 0.01)


@pytest.mark.parametrize(
    ("seconds", "whole", "micro"),
    [(math.inf, 0, 0), (1e-9, 0, 1), (1.5, 1, 500_000), (1e30, 1 << 30, 1)],
)
def test_time_limits_are_what_the_kernel_takes(seconds, whole, micro):
    limit = runtime.time_limit(seconds)
    assert limit == runtime._TIMEVAL.pack(whole, micro)
    with socket.socket() as any_socket:
        any_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
