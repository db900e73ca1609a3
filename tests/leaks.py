"""What a test may leave behind: nothing. Looks at this process and those it started, by /proc.

A process counts as started here when it descends from this one, or when its environment names the
runtime directory of the test: a grandchild whose parent was killed has no other link to us.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTLE_SECONDS_MAX = 5.0
POLL_SECONDS = 0.005
PACKAGES = ("multiprocessing", "multiprocess")
"""Both keep a fork server and a resource tracker for the life of the interpreter."""


@dataclass
class Traces:
    """Everything of ours that a leak would add to; each field maps an identity to its name."""

    descriptor: dict[Any, str]
    process: dict[Any, str]
    memory: dict[Any, str]
    socket: dict[Any, str]
    thread: dict[Any, str]

    @classmethod
    def now(cls, runtime_dir: Path) -> Traces:
        """Look now, without waiting or collecting garbage."""
        return cls(
            _descriptors(), _processes(runtime_dir), _memory(), _sockets(runtime_dir), _threads()
        )

    def since(self, before: Traces) -> list[str]:
        """Name what is here and was not there before."""
        return [
            f"{kind}: {name}"
            for kind, traces in vars(self).items()
            for identity, name in traces.items()
            if identity not in getattr(before, kind)
        ]


def wait_until_gone(before: Traces, runtime_dir: Path) -> Traces:
    """Return the traces once nothing is left, or as they are when the time for that is over."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    after = Traces.now(runtime_dir)
    while after.since(before):
        gc.collect()
        after = Traces.now(runtime_dir)
        if not after.since(before) or time.monotonic() > deadline:
            break
        threading.Event().wait(POLL_SECONDS)
    return after


def kill_new_processes(before: Traces, after: Traces) -> None:
    """Kill what leaked, so that it cannot disturb the tests that follow."""
    for pid, started in set(after.process) - set(before.process):
        with suppress(OSError):
            if _stat(pid)[1] == started:
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            os.waitpid(pid, 0)


def stop_fork_servers() -> None:
    """End the fork servers: the next one is to inherit the environment of its own test."""
    for package in PACKAGES:
        module = sys.modules.get(f"{package}.forkserver")
        if module is not None:
            module._forkserver._stop()


def _helpers() -> tuple[set[Any], set[Any]]:
    """The process ids and descriptors of the helpers that the interpreter keeps; None if not."""
    pids, descriptors = set(), set()
    for package in PACKAGES:
        for module, name, fields in (
            ("resource_tracker", "_resource_tracker", ("_pid", "_fd")),
            ("forkserver", "_forkserver", ("_forkserver_pid", "_forkserver_alive_fd")),
        ):
            helper = getattr(sys.modules.get(f"{package}.{module}"), name, None)
            pid, descriptor = (getattr(helper, name, None) for name in fields)
            pids.add(pid)
            descriptors.add(descriptor)
    return pids, descriptors


def _descriptors() -> dict[Any, str]:
    kept = _helpers()[1]
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        descriptor = int(entry)
        with suppress(OSError):  # the listing's own, closed by now
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            # coverage keeps its data files open from the first fork or subprocess on
            if descriptor not in kept and "/.coverage" not in target:
                found[descriptor, target] = f"{descriptor} -> {target}"
    return found


def _stat(pid: int) -> tuple[int, int]:
    """The parent's id and the start time; the name in parentheses may hold anything."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


def _processes(runtime_dir: Path) -> dict[Any, str]:
    stats = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                stats[int(entry)] = _stat(int(entry))
    helpers = _helpers()[0]
    mark = f"SHMSTORE_RUNTIME_DIR={runtime_dir}\0".encode()
    return {
        (pid, started): _describe(pid)
        for pid, (_, started) in stats.items()
        if pid != os.getpid()
        and pid not in helpers
        and (_descends(pid, stats) or _environment_has(pid, mark))
    }


def _descends(pid: int, stats: dict[int, tuple[int, int]]) -> bool:
    while pid in stats:
        pid = stats[pid][0]
        if pid == os.getpid():
            return True
    return False


def _environment_has(pid: int, mark: bytes) -> bool:
    with suppress(OSError):
        return mark in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def _describe(pid: int) -> str:
    with suppress(OSError):
        words = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
        return f"{pid} {words[:120].strip() or '(a zombie: nobody waited for it)'}"
    return f"{pid} (gone)"


def _memory() -> dict[Any, str]:
    found = {}
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/memfd:"):
            found[fields[0], fields[4]] = f"{fields[5]} at {fields[0]}"
    return found


def _sockets(runtime_dir: Path) -> dict[Any, str]:
    return {str(path): str(path) for path in runtime_dir.rglob("*") if path.is_socket()}


def _threads() -> dict[Any, str]:
    return {thread: thread.name for thread in threading.enumerate()}
