"""Where a run took place, and with what: everything that a figure depends on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("shmstore", "msgpack", "matplotlib")
PROCESS_CLOCK = 2
"""The kernel's name for the processor time of a process, in the low bits of a clock's number."""


def describe_machine() -> dict[str, Any]:
    """Return the processor, memory and kernel of this machine."""
    return {
        "processor": _line_of("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "system": _line_of("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "load_before": round(os.getloadavg()[0], 2),
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of the interpreter, of shmstore and its engine, and of msgpack."""
    from shmstore import engine

    versions = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "engine": engine.NAME,
        "commit": _commit(),
    }
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _commit() -> str:
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return "unknown"


def _line_of(path: str, name: str, separator: str = ":") -> str:
    with suppress(OSError):
        for line in Path(path).read_text().splitlines():
            label, _, value = line.partition(separator)
            if label.strip() == name:
                return value.strip()
    return ""


def cpu_ns_of(pid: int) -> int:
    """Return the processor time that a process has used, in nanoseconds; 0 if it is gone."""
    with suppress(OSError):
        # The clock of another process: its inverted id above three bits that say which clock.
        return time.clock_gettime_ns(~pid << 3 | PROCESS_CLOCK)
    return 0


def private_bytes_of(pid: int | str = "self") -> dict[str, int]:
    """Return the memory that only this process has, the part of it that is no file's (a page of a
    shared file counts as private while nobody else looks at it), and the size of its page tables.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        "private": _kilobytes(rollup, "Private_Clean:") + _kilobytes(rollup, "Private_Dirty:"),
        "anonymous": _kilobytes(rollup, "Anonymous:"),
        "page_tables": _kilobytes(status, "VmPTE:"),
    }


def available_bytes() -> int:
    """Return the memory that the machine has left for everybody."""
    return _kilobytes(Path("/proc/meminfo").read_text(), "MemAvailable:")


def _kilobytes(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def command_line() -> str:
    """Return the command that made this run, as it would be typed."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])
