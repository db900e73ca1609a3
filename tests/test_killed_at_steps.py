"""The native engine, stepped by instructions and killed between two: a short form of the trial."""

from __future__ import annotations

import errno
from types import ModuleType
from typing import Any

import pytest

from shmstore.engine import load_native
from torture import steps, tracing
from torture.steps import STEPPED, step
from torture.steps.judge import STATES, STATES_UNDONE
from torture.tracing import Refused
from torture.trial import Budget, Report


@pytest.fixture
def native() -> ModuleType:
    try:
        return load_native()
    except ImportError as error:
        pytest.skip(f"no native engine here: {error}")


@pytest.mark.parametrize("seed", [4, 8])
def test_a_writer_killed_between_any_two_instructions_leaves_all_or_nothing(
    native: ModuleType, seed: int
) -> None:
    report, budget, least = Report(), Budget(0, seed), 0
    # How many instructions that takes depends on the compiler.
    while not report.counts.get(STATES_UNDONE) and not report.findings:
        least += 30_000
        try:
            step(native, budget, report, least)
        except Refused as refused:
            pytest.skip(str(refused))
    assert report.findings == []
    assert report.counts[STEPPED] >= least
    assert report.counts[STATES] > report.counts[STATES_UNDONE]


def test_a_machine_that_refuses_ptrace_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, native: ModuleType
) -> None:
    class Refusing:
        """The stepper, where a process may not be traced."""

        def __init__(self) -> None:
            self._library = tracing._library()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._library, name)

        def watch_me(self) -> int:
            return errno.EPERM

    refusing = Refusing()
    monkeypatch.setattr(tracing, "_library", lambda: refusing)
    monkeypatch.setattr(steps, "shipped", lambda: native)
    assert steps.run(Budget(0, 1), 1).findings == [
        "nothing could be stepped on this machine: ptrace is refused: Operation not permitted"
    ]
