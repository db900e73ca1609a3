"""The memory of a segment: made, sealed, mapped, filled in and given back. Knows no records.

A segment is one anonymous file in memory, sparse, sealed against shrinking and growing so that
no mapping of it can ever meet SIGBUS. Its extents become real before they are used; what the
machine or a cgroup of this process leaves is looked at first, because the kernel would rather
kill a process of the cgroup than refuse it a page.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import suppress

from . import layout
from .errors import InvalidArgument

MARGIN_BYTES = 32 << 20
"""Extents leave this much to the processes of the machine or the cgroup."""
ALLOWANCE_SHARE = 8
"""After a look at what is left, this part of it may be used before the next look."""

_UNITS: dict[str, int] = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_CAPACITY = re.compile(r"\s*(\d{1,40})(?:\.(\d{1,40}))?\s*([A-Za-z]+)?\s*", re.ASCII)
_ROOT = "/"
_OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def parse_capacity(capacity: int | str) -> int:
    """Return ``capacity`` in bytes, rounded up to whole pages.

    A number of bytes, or text such as "512MiB", "1.5GiB" or "2GB". InvalidArgument for anything
    else, and beyond what the format can address.
    """
    size = capacity if type(capacity) is int else _capacity_of_text(capacity)
    if not layout.CAPACITY_BYTES_MIN <= size <= layout.CAPACITY_BYTES_MAX:
        raise InvalidArgument(
            f"capacity {capacity!r}: from {layout.CAPACITY_BYTES_MIN} bytes (1MiB) "
            f"to {layout.CAPACITY_BYTES_MAX} (1TiB)",
            capacity=capacity,
        )
    return _round_up(size, mmap.PAGESIZE)


def _capacity_of_text(capacity: object) -> int:
    match = _CAPACITY.fullmatch(capacity) if isinstance(capacity, str) else None
    unit = (match[3] or "B").upper() if match else ""
    if match is None or unit not in _UNITS:
        raise InvalidArgument(
            f"capacity {capacity!r}: give bytes, or text such as '512MiB', '1.5GiB' or '2GB'",
            capacity=repr(capacity),
        )
    whole, fraction = match[1], match[2] or ""
    scale: int = 10 ** len(fraction)
    return int(whole + fraction) * _UNITS[unit] // scale


def create(capacity: int) -> int:
    """Return a descriptor of a new segment, all zero, that takes no memory yet.

    InvalidArgument if the machine, or a cgroup of this process, leaves less than ``capacity``.
    The descriptor is closed in programs that are executed.
    """
    available = available_bytes()
    if capacity > available:
        raise InvalidArgument(
            f"a capacity of {capacity} bytes was asked for, but the memory of this machine or the "
            f"limit of its cgroup leaves {available}: ask for less, or raise the limit",
            capacity=capacity,
            available=available,
        )
    if not hasattr(os, "memfd_create"):
        return _create_unlinked(capacity)
    fd = os.memfd_create("shmstore", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, capacity)
        os.fchmod(fd, 0o400)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _create_unlinked(capacity: int) -> int:
    """Where no anonymous file can be had: a temporary file, gone from its directory at once."""
    import tempfile  # which takes long to import, for what is never needed elsewhere

    fd, path = tempfile.mkstemp(prefix="shmstore-")
    try:
        os.unlink(path)
        os.ftruncate(fd, capacity)
        os.fchmod(fd, 0o400)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_readonly(fd: int) -> int:
    """Return a new descriptor of the segment through which nobody gets a writable mapping."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def map_writable(fd: int) -> mmap.mmap:
    """Map the whole segment for its writer."""
    return mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def map_readonly(fd: int) -> mmap.mmap:
    """Map the whole segment for a reader."""
    return mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, mmap.PROT_READ)


class Extents:
    """Makes parts of the segment real memory, and gives them back. For the writer process."""

    def __init__(self, fd: int, memory: mmap.mmap) -> None:
        self._fd = fd
        self._memory = memory
        self._allowance = 0

    def extend(self, offset: int, length: int) -> None:
        """Make ``length`` bytes at ``offset`` real: writing there cannot fail any more.

        OSError(ENOSPC) if the machine or a cgroup does not leave them and ``MARGIN_BYTES``.
        What was real already keeps its content, what was not is zero.
        """
        if length > self._allowance:
            left = available_bytes() - MARGIN_BYTES
            if length > left:
                raise OSError(
                    errno.ENOSPC, f"the machine or its cgroup leaves no {length} bytes of memory"
                )
            self._allowance = max(length, left // ALLOWANCE_SHARE)
        os.posix_fallocate(self._fd, offset, length)
        self._allowance -= length

    def release(self, offset: int, length: int) -> None:
        """Give the whole pages within these bytes back to the system, if it takes them."""
        start = _round_up(offset, mmap.PAGESIZE)
        end = (offset + length) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            with suppress(OSError):  # then they stay, and what is free may hold anything
                self._memory.madvise(mmap.MADV_REMOVE, start, end - start)


def available_bytes(root: str | os.PathLike[str] = _ROOT) -> int:
    """Return what the machine and every cgroup above this process leave, in bytes.

    The kernel's page cache counts as left: it gives way. ``root`` is where /proc and /sys are.
    """
    top = os.fspath(root)
    left = [_machine_available(top)]
    for directory, names in _memory_cgroups(top):
        left += _cgroup_available(directory, *names)
    return max(0, min(left))


_V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))


def _machine_available(root: str) -> int:
    fields = _fields(f"{root}/proc/meminfo")
    kibibytes = fields.get("MemAvailable:", fields.get("MemFree:"))
    if kibibytes is not None:
        return kibibytes * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _memory_cgroups(root: str) -> list[tuple[str, tuple[str, str, tuple[str, str]]]]:
    """Return the directories of this process's memory cgroups, each up to its hierarchy's root."""
    mounts = _cgroup_mounts(root)
    found = []
    for line in _lines(f"{root}/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        kind = "memory" if "memory" in controllers.split(",") else controllers
        names = {"memory": _V1, "": _V2}.get(kind)
        if names is None or kind not in mounts:
            continue
        mounted, top = mounts[kind]
        inside = os.path.relpath(path, mounted)
        if not path.startswith(mounted.rstrip("/") + "/"):
            inside = "."  # the path is another cgroup namespace's: the mount shows our own
        found += [(each, names) for each in _upwards(top, inside)]
    return found


def _upwards(top: str, inside: str) -> Iterator[str]:
    """Return the directory ``inside`` of ``top`` and all above it, up to ``top``."""
    directory = os.path.normpath(os.path.join(top, inside))
    while directory != top:
        yield directory
        directory = os.path.dirname(directory)
    yield top


def _cgroup_mounts(root: str) -> dict[str, tuple[str, str]]:
    """Return {"memory" for v1 or "" for v2: (the cgroup that is mounted, where)}."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in _lines(f"{root}/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        here, there = left.split(), right.split()
        if there[0] == "cgroup2":
            kind = ""
        elif there[0] == "cgroup" and "memory" in there[-1].split(","):
            kind = "memory"
        else:
            continue
        mounts.setdefault(kind, (here[3], os.path.normpath(f"{root}/{here[4]}")))
    return mounts


def _cgroup_available(directory: str, limit: str, usage: str, caches: tuple[str, str]) -> list[int]:
    """Return what one cgroup leaves, or nothing if it sets no limit."""
    most, used = _number(f"{directory}/{limit}"), _number(f"{directory}/{usage}")
    if most is None or used is None:
        return []
    fields = _fields(f"{directory}/memory.stat")
    return [most - used + sum(fields.get(name, 0) for name in caches)]


def _fields(path: str) -> dict[str, int]:
    """Return the first two columns of a file of names and numbers."""
    columns = [line.split() for line in _lines(path)]
    return {each[0]: int(each[1]) for each in columns if len(each) > 1 and each[1].isdigit()}


def _number(path: str) -> int | None:
    """Return the number that a file holds; None if it holds "max", or is not there."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: str) -> list[str]:
    """Return the lines of a file, none if there is no such file; OSError if it cannot be looked at
    just now, as nothing is known then."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError as error:
        if error.errno in _OWN_TROUBLE:
            raise
        return []


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
