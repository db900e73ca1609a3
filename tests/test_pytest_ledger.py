"""What the processes of a run tell each other, where no order of events in a suite is certain."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmstore.pytest.declaring import Declaration
from shmstore.pytest.identity import Instance
from shmstore.pytest.ledger import CLOSING, DONE, LOST, READY, STARTING, Ledger
from shmstore.pytest.obtaining import Computed, Obtaining

INSTANCE = Instance("data-1", "data", "data", "conftest.py:1", Declaration(len))
RESULT = {"state": READY, "generation": 1, "closes": True}


@pytest.fixture
def owner(client) -> Ledger:
    """The ledger of the process that computed a value which is to be closed."""
    ledger = Ledger(client, "gw0")
    ledger.own("data-1")
    ledger.results["data-1"] = RESULT
    return ledger


def obtaining_of(ledger: Ledger) -> Obtaining:
    return Obtaining(ledger, set(), pytest.fail, is_shared=True, seconds_max=10.0, may_pickle=True)


def no_compute(key: str, finish: Callable[[Computed], None]) -> None:
    raise AssertionError(key)


def test_who_comes_just_too_late_computes_anew(owner, client, monkeypatch):
    ledger = Ledger(client, "gw1")
    use = ledger.use

    def use_too_late(key: str) -> None:
        owner.results.patch(key, state=CLOSING)
        use(key)
        owner.close(key)

    monkeypatch.setattr(ledger, "use", use_too_late)
    keys = []

    def compute(key: str, finish: Callable[[Computed], None]) -> None:
        keys.append(key)
        finish(Computed(3, False, lambda transaction: None))

    result, is_here = obtaining_of(ledger).obtain(INSTANCE, "test", compute)
    assert is_here
    assert keys == ["data-1.2"]
    assert (result["state"], result["generation"], result["bytes"]) == (READY, 2, 3)


def test_who_comes_in_time_is_a_user(owner, client):
    ledger = Ledger(client, "gw1")
    result, is_here = obtaining_of(ledger).obtain(INSTANCE, "test", no_compute)
    assert not is_here
    assert result == RESULT
    assert list(ledger.users) == ["data-1 gw1"]
    ledger.leave("data-1")
    assert list(ledger.users) == []


def test_a_replacement_stands_for_those_that_were_lost(client):
    ledger = Ledger(client, "")
    ledger.note_end("gw0", is_lost=False)
    ledger.note_end("gw1", is_lost=True)
    assert dict(ledger.workers) == {"gw0": DONE, "gw1": LOST}
    ledger.expect("gw2")
    assert dict(ledger.workers) == {"gw0": DONE, "gw1": DONE, "gw2": STARTING}
