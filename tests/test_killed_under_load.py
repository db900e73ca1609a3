"""Processes of a busy store are killed and stopped at random; the long form is torture/load."""

from __future__ import annotations

import random
from pathlib import Path

from torture.load.rounds import play
from torture.load.starter import NAME
from torture.load.trial import begun_report

SECONDS = 4.0
WRITER_KILLS = 4


def test_a_busy_store_survives_kills_and_stops(runtime_dir: Path) -> None:
    """Nothing acknowledged is lost or applied twice, nothing is torn or stale, nothing hangs."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    report = begun_report()
    play(report, random.Random(seed), f"seed {seed}", SECONDS, WRITER_KILLS)
    print(report.counts)
    # Nobody removes it if writer and starter are killed together while there is no spare.
    (runtime_dir / f"{NAME}.sock").unlink(missing_ok=True)
    assert report.findings == []
    assert report.counts["writers killed"] >= WRITER_KILLS
    assert report.counts["supervisors killed"] == 1
    assert report.counts["processes stopped"] > 0
    assert report.counts["acknowledged mutations"] > 0
    assert report.counts["reads"] > 0
