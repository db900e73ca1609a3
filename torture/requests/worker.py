"""The process in which a writer is fuzzed: ``python -m torture.requests.worker``.

It may be killed by what it tries; the events of the present life are in a file beforehand.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

from . import answers
from .arcs import Arcs
from .bench import Bench, resident_bytes
from .streams import Streams
from .talker import Broken
from .twins import Twins

LIFE_EVENTS = 150
FOLLOWED = 4
"""One event in so many is followed, which takes several times as long."""
FINDINGS_MAX = 10
HEX_MAX = 1_200
LIFE = "life"
"""The file of the events of the present life."""


def main() -> int:
    """Do what the command line says; the last line of what is printed is the result."""
    parser = argparse.ArgumentParser(prog="python -m torture.requests.worker")
    parser.add_argument("--folder", type=Path, help="for findings", default=Path())
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", action="store_true", help="fuzz clients, not a writer")
    parser.add_argument("--twins", action="store_true", help="a writer with each engine")
    parser.add_argument("--again", type=Path, metavar="FILE", help="the events of a finding")
    options = parser.parse_args()
    make = Twins if options.twins else Bench
    if options.again:
        events = list(msgpack.Unpacker(options.again.open("rb")))
        problem = tried(events, make)
        print(problem or "nothing broke")
        return 1 if problem else 0
    rng = random.Random(options.seed)
    if options.clients:
        result = answers.fuzz(rng, options.seconds)
    else:
        result = Fuzzing(options.folder, rng, make).run(options.seconds)
    print(json.dumps(result))
    return 0


def tried(events: list[Any], make: Callable[[], Bench | Twins] = Bench) -> str | None:
    """Do the events on a new store; return what broke."""
    bench = make()
    try:
        for event in events:
            bench.do(event)
        bench.end()
    except Exception as error:
        return _told(error)
    finally:
        bench.close()
    return None


def _told(error: Exception) -> str:
    if isinstance(error, Broken):
        return str(error)
    return "".join(traceback.format_exception(error)[-3:])


class Fuzzing:
    """Many lives of stores, one after another."""

    def __init__(self, folder: Path, rng: random.Random, make: Callable[[], Bench | Twins]) -> None:
        self._make = make
        self._folder = folder
        self._streams = Streams(rng)
        self._arcs = Arcs()
        self._events = 0
        self._answers = 0
        self._lives = 0
        self._longest = 0.0
        self._findings: list[str] = []

    def run(self, seconds: float) -> dict[str, Any]:
        """Fuzz for so long, and one life at least; return counts and findings."""
        end = time.monotonic() + seconds
        while not self._lives or time.monotonic() < end:
            self._live(end)
            if len(self._findings) >= FINDINGS_MAX:
                break
        counts = {
            "executions on the writer in process": self._answers,
            "conversations of hostile clients": self._events,
            "lives of stores that hostile clients shared": self._lives,
            "arcs of the writer's code that were taken": len(self._arcs),
            "MiB of memory at the end of the fuzzed writers": resident_bytes() >> 20,
        }
        return {"counts": counts, "findings": self._findings, "longest": self._longest}

    def _live(self, end: float) -> None:
        events: list[Any] = []
        bench = self._make()
        self._lives += 1
        try:
            with (self._folder / LIFE).open("wb", buffering=0) as life:
                for number in range(LIFE_EVENTS):
                    event = self._streams.event()
                    events.append(event)
                    life.write(msgpack.packb(event))
                    self._do(bench, event, followed=number % FOLLOWED == 0)
                    if bench.full or time.monotonic() > end:
                        break
            bench.end()
        except Exception as error:
            self._note(error, events)
        finally:
            self._answers += bench.answers
            self._longest = max(self._longest, bench.longest)
            bench.close()

    def _do(self, bench: Bench | Twins, event: list[Any], followed: bool) -> None:
        self._events += 1
        if not followed:
            bench.do(event)
            return
        before = len(self._arcs)
        self._arcs.start()
        try:
            bench.do(event)
        finally:
            self._arcs.stop()
        if len(self._arcs) > before and event[0] == "talk":
            self._streams.keep()

    def _note(self, error: Exception, events: list[Any]) -> None:
        """Keep what broke a promise: the last event alone if that is enough."""
        for needed in (events[-1:], events):
            if tried(needed, self._make) is not None:
                break
        packed = b"".join(map(msgpack.packb, needed))
        path = self._folder / f"finding-{len(self._findings)}"
        path.write_bytes(packed)
        shown = packed.hex() if len(packed) <= HEX_MAX else f"{len(packed)} bytes"
        self._findings.append(f"{_told(error)}; events in {path}: {shown}")


if __name__ == "__main__":
    sys.exit(main())
