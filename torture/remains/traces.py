"""What /proc shows of a server: its processes, who holds its memory, and what its starter made."""

from __future__ import annotations

import os
import select
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

from shmstore.runtime import DIRECTORY_VARIABLE

MEMORY = "/memfd:shmstore"
LISTENING = 0x10000
"""The flag of such sockets in /proc/net/unix."""


class Process:
    """A process, held by a descriptor: its id may become another's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still is there."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def gone(self, seconds: float = 0.0) -> bool:
        """Wait until it has ended, no longer than so; tell whether it has."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


def servants_of(directory: str) -> dict[int, str]:
    """Return the command lines of all processes that were executed for servers of this directory.

    Writers and spares are, forked programs are not.
    """
    mark = f"{DIRECTORY_VARIABLE}={directory}".encode()
    found = {}
    for pid in _processes():
        with suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[pid] = b" ".join(words).decode(errors="replace").strip()
    return found


def holders_of(inode: int) -> dict[int, str]:
    """Return the processes that map this memory, or hold a descriptor of it, and how."""
    found: dict[int, str] = {}
    for pid in _processes():
        with suppress(OSError):
            maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
            if MEMORY in maps and any(_maps(line, inode) for line in maps.splitlines()):
                found[pid] = "maps it"
            for entry in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    path = f"/proc/{pid}/fd/{entry}"
                    if os.readlink(path).startswith(MEMORY) and os.stat(path).st_ino == inode:
                        found[pid] = f"descriptor {entry}"
    return found


def listeners_at(address: str) -> dict[int, str]:
    """Return the sockets that listen under this path, or did before it was removed."""
    found = {}
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=7)
        if fields[7:] == [address] and int(fields[3], 16) & LISTENING:
            found[int(fields[6])] = address
    return found


def descriptors_of(pid: int) -> Counter[str]:
    """Return how many descriptors of each kind, or of each file, a process has."""
    found: Counter[str] = Counter()
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found[os.readlink(f"/proc/{pid}/fd/{entry}").partition(":[")[0]] += 1
    return found


def can_be_woken(pid: int) -> bool:
    """Tell whether the kernel has been told to wake this process when its starter is gone."""
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fdinfo"):
            with suppress(OSError):
                facts = Path(f"/proc/{pid}/fdinfo/{entry}").read_text().split()
                if int(facts[facts.index("flags:") + 1], 8) & os.O_ASYNC:
                    return True
    return False


def children_of(pid: int) -> list[int]:
    """Return the ids of the processes that any thread of this one has started."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                found += map(int, text.split())
    return found


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _maps(line: str, inode: int) -> bool:
    fields = line.split(maxsplit=5)
    return len(fields) == 6 and fields[4] == str(inode) and fields[5].startswith(MEMORY)
