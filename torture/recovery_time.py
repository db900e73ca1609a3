"""How long until mutations flow again after the writer was killed.

``python -m torture.recovery_time --records 10000 --kills 50``: a process that is neither the
supervisor's nor the writer's kills the writer with SIGKILL and puts a record; the time is that from
before the kill to the answer of the next writer. A few more kills are watched from the supervisor's
process, to tell where the time goes.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from multiprocess import get_context

import shmstore
from shmstore.engine import NAME

SHAPES = ("table", "store")
RECORD_BYTES = 160
LOADED_AT_ONCE = 10_000
BYTES_PER_RECORD = 400
CAPACITY_BYTES = 32 << 20
LIVED_SECONDS = 1.0
"""A writer that lived shorter may have no spare yet, and be followed by the next one after a pause
only."""
TIMEOUT_SECONDS = 60.0
WATCHED_KILLS_MAX = 10
GLANCE_SECONDS = 0.0002


class Things(shmstore.Store):
    """Records with one index."""

    table, resource, prefix = "things", "thing", "th"
    indexes = ("status",)


class Kill(NamedTuple):
    """One kill, as the process saw it that did it."""

    writer: int
    at: float
    clock: int
    """The free clock at the kill."""
    milliseconds: float
    """After which its next put was acknowledged."""
    answered_by: int
    """The writer after that."""


@dataclass
class Times:
    """Milliseconds from the kill on, one item per kill."""

    acknowledged: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    """Of the kills that were watched."""

    @property
    def median(self) -> float:
        """The median until the first acknowledged mutation."""
        return statistics.median(self.acknowledged)

    @property
    def high(self) -> float:
        """The 99th percentile, of fewer than 100 the largest."""
        rank = math.ceil(0.99 * len(self.acknowledged))
        return sorted(self.acknowledged)[rank - 1]


def measure(
    records: int, kills: int, shape: str, engine: str, seed: int = 1, watched: int = 0
) -> Times:
    """Kill the writer of a store of so many records; return what was measured.

    Records are loaded with the native engine if there is one. So many further kills are watched,
    which takes time from those who restart.
    """
    ours, theirs = get_context("fork").Pipe()
    killer = get_context("fork").Process(target=_kill, args=(theirs,))
    killer.start()
    theirs.close()
    try:
        capacity = max(CAPACITY_BYTES, records * BYTES_PER_RECORD)
        with _environment("SHMSTORE_ENGINE", None), shmstore.start(capacity=capacity) as server:
            _load(server.client, shape, records, random.Random(seed))
            with _environment("SHMSTORE_ENGINE", engine):
                return _measured(server, ours, kills, engine, watched)
    finally:
        ours.send(None)
        killer.join()
        killer.close()
        ours.close()


def _measured(server: shmstore.Server, killer: Any, kills: int, engine: str, watched: int) -> Times:
    times = Times()
    killer.send(server.address)
    # The first writers may run the other engine.
    while server.client.stats()["engine"] != engine:
        _one_kill(server, killer)
    for _ in range(kills):
        times.acknowledged.append(_one_kill(server, killer).milliseconds)
    for _ in range(watched):
        for stage, at in _watched_kill(server, killer):
            times.stages.setdefault(stage, []).append(at)
    return times


def _one_kill(server: shmstore.Server, killer: Any) -> Kill:
    threading.Event().wait(LIVED_SECONDS)
    while True:
        killer.send(server.client.stats()["pid"])
        kill = Kill(*killer.recv())
        if kill.writer != kill.answered_by:
            return kill


def _watched_kill(server: shmstore.Server, killer: Any) -> Iterator[tuple[str, float]]:
    """Kill once; yield when each stage of the restart was reached, in milliseconds."""
    glances: list[tuple[float, int | None, int]] = []
    ended = threading.Event()

    def watch() -> None:
        reader = server.client.reader
        while not ended.wait(GLANCE_SECONDS):
            glances.append((time.monotonic(), server.writer_pid, reader.info()["free_clock"]))

    watching = threading.Thread(target=watch)
    watching.start()
    kill = _one_kill(server, killer)
    ended.set()
    watching.join()
    # By then at the latest: a thread may be late to look.
    answered = kill.at + kill.milliseconds / 1000
    glances.append((answered, server.writer_pid, server.client.reader.info()["free_clock"]))
    stages: dict[str, Callable[[int | None, int], bool]] = {
        "next process is there": lambda pid, clock: pid not in (None, kill.writer),
        # The clock advances at the start of a takeover, at its end, then with each commit.
        "takeover begins": lambda pid, clock: clock > kill.clock,
        "takeover is done": lambda pid, clock: clock > kill.clock + 1,
    }
    for stage, is_reached in stages.items():
        at = next(at for at, pid, clock in glances if at > kill.at and is_reached(pid, clock))
        yield stage, (at - kill.at) * 1000
    yield "first acknowledgement", kill.milliseconds


def _load(client: shmstore.Client, shape: str, records: int, rng: random.Random) -> None:
    filler = rng.randbytes(RECORD_BYTES)
    for first in range(0, records, LOADED_AT_ONCE):
        numbers = range(first, min(first + LOADED_AT_ONCE, records))
        if shape == "table":
            # Three bytes of msgpack tell the length.
            pairs = {f"key-{number}": filler[: RECORD_BYTES - 3] for number in numbers}
            client.table("t").put_many(pairs)
        else:
            Things(client).insert_many(
                {"id": f"th_{number}", "created": number, "status": number % 100, "x": filler[:100]}
                for number in numbers
            )


def _kill(judge: Any) -> None:
    """The process that kills, and puts: a client which waits when the writer dies."""
    address = judge.recv()
    if address is None:
        return
    with shmstore.connect(address, TIMEOUT_SECONDS) as client:
        table = client.table("killed")
        while (writer := judge.recv()) is not None:
            table["key"] = 0
            clock, killed = client.reader.info()["free_clock"], time.monotonic()
            os.kill(writer, signal.SIGKILL)
            table["key"] = 1
            milliseconds = (time.monotonic() - killed) * 1000
            judge.send((writer, killed, clock, milliseconds, client.stats()["pid"]))


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(
        prog="python -m torture.recovery_time",
        description="Measures how long mutations pause when the writer is killed.",
    )
    parser.add_argument("--engine", choices=("native", "pure"), default=NAME)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--shape", choices=SHAPES, default="table")
    options = parser.parse_args()
    watched = min(options.kills, WATCHED_KILLS_MAX)
    times = measure(options.records, options.kills, options.shape, options.engine, watched=watched)
    print(f"{options.engine} engine, {options.records:,} records in a {options.shape}")
    print(
        f"from the kill to the next acknowledged put, {options.kills} kills: "
        f"median {times.median:.1f} ms, p99 {times.high:.1f} ms, "
        f"least {min(times.acknowledged):.1f} ms"
    )
    for stage, values in times.stages.items():
        print(f"  {stage:24} {statistics.median(values):8.1f} ms after the kill, median")


if __name__ == "__main__":
    main()
