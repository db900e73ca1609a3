"""What is left of a server when any of its processes were killed: nothing. The short form."""

from __future__ import annotations

import random

from tests.waiting import SECONDS_MAX
from torture.remains import ORDERS, SETS, play
from torture.trial import Budget

SEED = 20


def test_any_set_of_processes_may_be_killed_in_any_order():
    orders = random.Random(SEED).sample(ORDERS, 10)
    report = play(Budget(0, SEED), orders, (), 0, SECONDS_MAX)
    assert report.findings == []
    assert report.counts["servers"] == len(orders) + 1


def test_any_set_may_be_ended_or_stopped():
    sets = random.Random(SEED).sample(SETS, 4)
    report = play(Budget(0, SEED), (), sets, 0, SECONDS_MAX)
    assert report.findings == []
    assert report.counts["servers"] == 2 * len(sets) + 1


def test_it_may_happen_at_any_moment():
    report = play(Budget(0, SEED), (), (), 10, SECONDS_MAX)
    assert report.findings == []
    assert report.counts["servers"] == 10 + 1
