"""Calls of the native engine, repeated: what succeeds and what fails, neither keeps memory.

In a process of its own whose every allocation is the C library's, which knows what is in use.
``python -m tests.test_native_leaks 100000`` makes that many calls of each instead of a few.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shmstore.engine import load_native
from shmstore.errors import InvalidKey
from tests.native_calls import ALL, Call, Segments, nothing

ROOT = Path(__file__).parent.parent
NO_CACHE = "glibc.malloc.tcache_count=0"
"""What is freed into the cache of a thread would count as in use."""
REPEATS = 100
ROUNDS_MAX = 5
LONGER = 4
"""Times as many calls as in the round before: what a leak keeps grows with them, noise does not."""
LEAK_BYTES_MIN = 15
"""Of each call, on average of a round: less is what caches and maps need to grow."""


def test_no_call_keeps_memory() -> None:
    try:
        load_native()
    except ImportError as error:
        if os.environ.get("SHMSTORE_ENGINE") == "native":
            raise
        pytest.skip(f"no native engine here: {error}")
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("this C library does not say how much memory is in use")
    # What measures coverage there would take memory of its own.
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    environment = {**inherited, "PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": NO_CACHE}
    found = subprocess.run(
        [sys.executable, "-m", "tests.test_native_leaks", str(REPEATS)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    last = found.stdout.splitlines()[-1]
    assert last.startswith("looked at "), found.stdout
    assert found.stdout == f"{last}\n", found.stdout


# What follows runs in that process


class Used(ctypes.Structure):
    """What mallinfo2() returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def bytes_in_use() -> int:
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Used
    used = mallinfo()
    return int(used.uordblks + used.hblkhd)


def watched(segments: Segments) -> list[Any]:
    """Objects that live on: a reference too many costs no memory."""
    native = segments.native
    types = [native.Reader, native.Owner, native.View, type(native.record_of(b"\x80"))]
    types += [type(native.record_of(b"\x90")), InvalidKey]
    return [None, True, False, ..., b"", *types, segments.reader, segments.memory, nothing]


def repeat(call: Call, times: int) -> None:
    for _ in range(times):
        with suppress(Exception):
            call()


def grows(call: Call, times: int, objects: list[Any]) -> str:
    """Say what there is more of after each of some ever longer rounds of calls; "" if not."""
    why = ""
    repeat(call, times)
    for _ in range(ROUNDS_MAX):
        gc.collect()
        counts, before = [sys.getrefcount(one) for one in objects], bytes_in_use()
        repeat(call, times)
        gc.collect()
        grown = bytes_in_use() - before
        more = [
            f"{one!r:.60}"
            for one, count in zip(objects, counts, strict=True)
            if sys.getrefcount(one) - count > times // 2
        ]
        why = f"{grown / times:.1f} bytes a call" if grown > LEAK_BYTES_MIN * times else ""
        why = f"references to {', '.join(more)}" if more else why
        if not why:
            return ""
        times *= LONGER
    return why


def main(times: int) -> None:
    segments = Segments(load_native())
    objects, count = watched(segments), 0
    gc.freeze()  # so that collecting takes no time
    for kind in ALL:
        for name, call in kind(segments):
            count += 1
            if why := grows(call, times, objects):
                print(f"{name}: {why}", flush=True)
    print(f"looked at {count} calls")


if __name__ == "__main__":
    main(int(sys.argv[1]))
