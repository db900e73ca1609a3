"""Calls and allocations that fail, and small machines: the short form of ``torture.failures``."""

from __future__ import annotations

from types import ModuleType

import pytest

from torture.building import compiler, has
from torture.failures import Part, machines, run_part

OF_CALLERS = [
    Part("caller", "connect", 1, only=("connect", "send", "recvmsg", "recv", "socket")),
    Part("caller", "pipeline", 2, only=("send", "sendmsg")),
    Part("caller", "transaction", 5, every_allocation=True),
    Part("caller", "restart", 1, only=("fork", "read")),
    Part("caller", "start", 1, only=("listen", "write", "pthread_create")),
]
OF_WRITERS = [
    Part("writer", "connect", 1, only=("accept", "epoll_ctl", "sendmsg")),
    Part("writer", "growth", 1, only=("posix_fallocate",)),
    Part("writer", "transaction", 6, only=("core",)),
    Part("writer", "transaction", 2, every_allocation=True),
]


def hold(part: Part) -> None:
    if not has(compiler()):
        pytest.skip("no C compiler for the library that lets calls fail")
    found = run_part(part, seed=1)
    assert found.findings == []
    assert found.trials > 0 or part.only == ("core",)  # of which the pure engine has none


@pytest.mark.parametrize("part", OF_CALLERS, ids=str)
def test_what_fails_in_a_client_or_starter_has_a_name_and_costs_nothing(part: Part) -> None:
    hold(part)


@pytest.mark.parametrize("part", OF_WRITERS, ids=str)
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
