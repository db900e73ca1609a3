"""The native engine, stepped by instructions and killed between two: a short form of the trial."""

from __future__ import annotations

import pytest

from shmstore.engine import load_native
from torture.steps import STEPPED, step
from torture.steps.judge import STATES, STATES_UNDONE
from torture.tracing import Refused
from torture.trial import Budget, Report


@pytest.mark.parametrize("seed", [8, 10])
def test_a_writer_killed_between_any_two_instructions_leaves_all_or_nothing(seed: int) -> None:
    try:
        native = load_native()
    except ImportError as error:
        pytest.skip(f"no native engine here: {error}")
    report = Report()
    try:
        step(native, Budget(0, seed), report, 30_000)
    except Refused as refused:
        pytest.skip(str(refused))
    assert report.findings == []
    assert report.counts[STEPPED] >= 30_000
    assert report.counts[STATES] > report.counts[STATES_UNDONE] > 0
