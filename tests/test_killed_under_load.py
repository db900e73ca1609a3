"""Processes of a busy store are killed and stopped at random; the long form is torture/load."""

from __future__ import annotations

import random

from torture.load.rounds import play
from torture.load.trial import begun_report

SECONDS = 4.0
WRITER_KILLS = 4


def test_a_busy_store_survives_kills_and_stops() -> None:
    """Nothing acknowledged is lost or applied twice, nothing is torn or stale, nothing hangs."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    report = begun_report()
    play(report, random.Random(seed), f"seed {seed}", SECONDS, WRITER_KILLS)
    print(report.counts)
    assert report.findings == []
    assert report.counts["writers killed"] >= WRITER_KILLS
    assert report.counts["supervisors killed"] == 1
    assert report.counts["processes stopped"] > 0
    assert report.counts["acknowledged mutations"] > 0
    assert report.counts["reads"] > 0
