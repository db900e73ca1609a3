"""Calls and allocations that fail, and small machines: the short form of ``torture.failures``."""

from __future__ import annotations

from types import ModuleType

import pytest

from torture.building import compiler, has
from torture.failures import Part, machines, run_part

OF_CALLERS = {
    "a client's own shortage is not the server's end": Part(
        "caller", "connect", 1, only=("connect", "socket")
    ),
    "a descriptor that finds no place is named": Part("caller", "connect", 1, only=("recvmsg",)),
    "what the kernel has no memory for is sent or received again": Part(
        "caller", "call", 1, only=("send", "recv")
    ),
    "half a message is followed by the rest": Part(
        "caller", "pipeline", 2, only=("send", "sendmsg")
    ),
    "a message is not sent twice for want of memory": Part(
        "caller", "transaction", 5, every_allocation=True
    ),
    "a thread that finds no memory is not waited for": Part(
        "caller", "pipeline", 9, only=("allocate",)
    ),
    "a child that cannot connect says so": Part("caller", "fork", 1, only=("socket", "recvmsg")),
    "a view that cannot be mapped is told from a bad answer": Part(
        "caller", "view", 1, only=("mmap",)
    ),
    "a writer that was started by half is ended": Part(
        "caller", "restart", 1, only=("fork", "read")
    ),
    "a start that fails removes its socket and threads": Part(
        "caller", "start", 1, only=("listen", "write", "pthread_create")
    ),
    "a start for which there are no files": Part("caller", "start", 2, only=("open",)),
}
OF_WRITERS = {
    "a client that the kernel refuses disturbs nobody": Part(
        "writer", "connect", 1, only=("accept", "epoll_ctl", "sendmsg")
    ),
    "what the kernel has no memory for does not end a connection": Part(
        "writer", "call", 1, only=("recv", "send")
    ),
    "a writer that cannot look at a process says so": Part("writer", "tie", 1, only=("open",)),
    "no more memory is a full store": Part("writer", "growth", 1, only=("posix_fallocate",)),
    "a core without memory says so": Part("writer", "transaction", 6, only=("core",)),
    "a writer without memory says so": Part("writer", "transaction", 2, every_allocation=True),
    "a writer that cannot say it is ready ends": Part("next writer", "restart", 1, only=("write",)),
    "a writer that cannot start says why": Part(
        "next writer", "start", 1, only=("write", "epoll_ctl", "posix_fallocate")
    ),
    "who waits for a writer hears why there is none": Part(
        "next writer", "lazy start", 1, only=("epoll_ctl",)
    ),
}


def hold(part: Part) -> None:
    if not has(compiler()):
        pytest.skip("no C compiler for the library that lets calls fail")
    found = run_part(part, seed=1)
    assert found.findings == []
    assert found.trials > 0 or part.only == ("core",)  # of which the pure engine has none


@pytest.mark.parametrize("part", OF_CALLERS.values(), ids=OF_CALLERS)
def test_what_fails_in_a_client_or_starter_has_a_name_and_costs_nothing(part: Part) -> None:
    hold(part)


@pytest.mark.parametrize("part", OF_WRITERS.values(), ids=OF_WRITERS)
def test_what_fails_in_a_writer_has_a_name_and_costs_nothing(
    part: Part, engine: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHMSTORE_ENGINE", engine.__name__.rpartition(".")[2].lstrip("_"))
    hold(part)


@pytest.mark.parametrize("name", machines.MACHINES)
def test_a_small_machine(name: str) -> None:
    try:
        assert machines.machine(name) == []
    except machines.NotHere as why:
        pytest.skip(str(why))
