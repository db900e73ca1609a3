"""The memory itself: its size, its seals, who may write to it, and what it takes of the machine."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shmstore import layout, segment
from shmstore.errors import InvalidArgument

MIB = 1 << 20


@pytest.fixture
def fd() -> Iterator[int]:
    """A segment of 4 MiB."""
    descriptor = segment.create(4 * MIB)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def reader_fd(fd: int) -> Iterator[int]:
    descriptor = segment.open_readonly(fd)
    yield descriptor
    os.close(descriptor)


def memory_taken(descriptor: int) -> int:
    return os.fstat(descriptor).st_blocks * 512


# How large


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * MIB),
        ("1GiB", 1 << 30),
        ("1TiB", 1 << 40),
        ("2048kib", 2 * MIB),
        (" 4 MiB ", 4 * MIB),
        ("1.5MiB", 3 * MIB // 2),
        ("1048576", MIB),
        ("1048576B", MIB),
        (4 * MIB, 4 * MIB),
    ],
)
def test_a_capacity_is_a_number_or_text_with_a_unit(text: int | str, size: int) -> None:
    assert segment.parse_capacity(text) == size


@pytest.mark.parametrize("text", ["2MB", "1.1MiB", 2_000_000])
def test_a_capacity_is_rounded_up_to_whole_pages(text: int | str) -> None:
    size = segment.parse_capacity(text)
    assert size % mmap.PAGESIZE == 0
    assert 0 <= size - {"2MB": 2_000_000, "1.1MiB": 1_153_434}.get(str(text), 2_000_000) < 4096 * 16


@pytest.mark.parametrize(
    "capacity",
    [
        "",
        "much",
        "512M",
        "1 KiB 2",
        "-1MiB",
        "1e9",
        "0x100000",
        "\uff11MiB",
        "MiB",
        "9" * 5000 + "GiB",
        True,
        None,
        1.5e9,
        b"1MiB",
    ],
)
def test_what_is_no_capacity_is_refused_by_name(capacity) -> None:
    with pytest.raises(InvalidArgument, match="512MiB") as refused:
        segment.parse_capacity(capacity)
    assert repr(capacity)[:40] in str(refused.value)


@pytest.mark.parametrize("capacity", [0, -1, MIB - 1, "1023KiB", (1 << 40) + 1, "2TiB", "9" * 40])
def test_a_capacity_beyond_the_format_is_refused(capacity: int | str) -> None:
    with pytest.raises(InvalidArgument, match="1MiB"):
        segment.parse_capacity(capacity)


def test_a_capacity_that_the_machine_does_not_leave_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segment, "available_bytes", lambda: 2 * MIB)
    with pytest.raises(InvalidArgument, match="ask for less") as refused:
        segment.create(4 * MIB)
    assert refused.value.details == {"capacity": 4 * MIB, "available": 2 * MIB}


# Made and sealed


def test_a_new_segment_is_zero_and_takes_no_memory(fd: int) -> None:
    assert os.fstat(fd).st_size == 4 * MIB
    assert memory_taken(fd) == 0
    with closing(segment.map_readonly(fd)) as memory:
        assert memory[:8192] == bytes(8192)


def test_nobody_can_resize_or_unseal_it(fd: int) -> None:
    for resize in (MIB, 8 * MIB):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, resize)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_it_is_closed_in_executed_programs_and_read_only_to_its_owner(fd: int) -> None:
    assert not os.get_inheritable(fd)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o400


def test_without_memfd_a_temporary_file_serves_and_leaves_no_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fd = segment.create(MIB)
    try:
        assert list(tmp_path.iterdir()) == []
        with closing(segment.map_writable(fd)) as memory:
            memory[:5] = b"hello"
            reader_fd = segment.open_readonly(fd)
            with closing(segment.map_readonly(reader_fd)) as seen:
                assert seen[:5] == b"hello"
            os.close(reader_fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("step", ["ftruncate", "fchmod"])
@pytest.mark.parametrize("anonymous", [True, False])
def test_a_failure_half_way_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, step: str, anonymous: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "as asked")

    if not anonymous:
        monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="as asked"):
        segment.create(MIB)


# Who may write


def test_readers_see_what_the_writer_stores(fd: int, reader_fd: int) -> None:
    with (
        closing(segment.map_writable(fd)) as memory,
        closing(segment.map_readonly(reader_fd)) as seen,
    ):
        memory[100:104] = b"news"
        assert seen[100:104] == b"news"


def test_a_readers_descriptor_gives_no_writable_mapping(reader_fd: int) -> None:
    with pytest.raises(PermissionError):
        segment.map_writable(reader_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(reader_fd, b"x")


def test_a_readers_mapping_cannot_be_made_writable(reader_fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    address = libc.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, reader_fd, 0)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    refused = libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), protection)
    number = ctypes.get_errno()
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE))
    assert (refused, number) == (-1, errno.EACCES)


def test_a_readers_python_mapping_refuses_assignment(reader_fd: int) -> None:
    with closing(segment.map_readonly(reader_fd)) as memory, pytest.raises(TypeError):
        memory[0] = 1


# Extents


@pytest.fixture
def extents(fd: int) -> Iterator[segment.Extents]:
    with closing(segment.map_writable(fd)) as memory:
        yield segment.Extents(fd, memory)


def test_an_extent_becomes_real_and_is_given_back(fd: int, extents: segment.Extents) -> None:
    extents.extend(MIB, MIB)
    assert memory_taken(fd) == MIB
    extents.release(MIB, MIB)
    assert memory_taken(fd) == 0


def test_making_real_twice_keeps_the_content(fd: int) -> None:
    with closing(segment.map_writable(fd)) as memory:
        extents = segment.Extents(fd, memory)
        extents.extend(0, MIB)
        memory[:3] = b"yes"
        extents.extend(0, 2 * MIB)
        assert memory[:3] == b"yes"
        assert memory_taken(fd) == 2 * MIB


def test_only_whole_pages_within_are_given_back(fd: int) -> None:
    page = mmap.PAGESIZE
    with closing(segment.map_writable(fd)) as memory:
        extents = segment.Extents(fd, memory)
        extents.extend(0, 4 * page)
        memory[: 4 * page] = b"x" * (4 * page)
        extents.release(page - 1, page + 2)
        extents.release(2 * page + 1, page - 1)
        assert memory_taken(fd) == 3 * page
        assert memory[: 4 * page] == b"x" * page + bytes(page) + b"x" * (2 * page)


def test_memory_that_the_system_does_not_take_back_stays(fd: int) -> None:
    class Kept(bytearray):
        def madvise(self, *arguments: int) -> None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    memory = Kept(b"x" * MIB)
    segment.Extents(fd, memory).release(0, MIB)  # type: ignore[arg-type]
    assert bytes(memory) == b"x" * MIB


def test_a_limit_that_cannot_be_read_now_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        segment.available_bytes()


def test_an_extent_that_the_machine_does_not_leave_is_refused(
    fd: int, extents: segment.Extents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "available_bytes", lambda: segment.MARGIN_BYTES + MIB - 1)
    with pytest.raises(OSError, match="leaves no") as refused:
        extents.extend(0, MIB)
    assert refused.value.errno == errno.ENOSPC
    assert memory_taken(fd) == 0


def test_the_machine_is_looked_at_again_before_its_share_is_used_up(
    extents: segment.Extents, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def available() -> int:
        looks.append(1)
        return segment.MARGIN_BYTES + 2 * MIB * segment.ALLOWANCE_SHARE

    monkeypatch.setattr(segment, "available_bytes", available)
    for number in range(4):
        extents.extend(number * MIB, MIB)
    assert len(looks) == 2


# What is left


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 1000 kB\nMemAvailable:    5000 kB\n"}
V2 = {
    **MEMINFO,
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
}
V1 = {
    **MEMINFO,
    "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/docker/one\n1:name=systemd:/\n0::/\n",
    "proc/self/mountinfo": (
        "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 /docker/one /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    ),
}


def group(path: str, limit: str, usage: int, stat_lines: str = "") -> dict[str, str]:
    at = f"sys/fs/cgroup{path}/memory."
    return {f"{at}max": f"{limit}\n", f"{at}current": f"{usage}\n", f"{at}stat": stat_lines}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 5_120_000),
        (group("/a/b", "max", 4000), 5_120_000),
        (group("/a/b", "10000", 4000), 6000),
        (group("/a/b", "10000", 4000) | group("/a", "5000", 4500), 500),
        (group("/a/b", "max", 4000) | group("/a", "5000", 4500), 500),
        (group("", "3000", 1000), 2000),
        (group("/a/b", "10000", 9000, "anon 1\ninactive_file 4000\nactive_file 500\n"), 5500),
        (group("/a/b", "10000", 12000), 0),
        (group("/elsewhere", "100", 50), 5_120_000),
    ],
)
def test_each_cgroup_above_counts(tmp_path: Path, files: dict[str, str], left: int) -> None:
    assert segment.available_bytes(tree(tmp_path, V2 | files)) == left


def test_a_cgroup_of_the_first_kind_counts(tmp_path: Path) -> None:
    at = "sys/fs/cgroup/memory/memory."
    files = {f"{at}limit_in_bytes": "70000\n", f"{at}usage_in_bytes": "30000\n"}
    files[f"{at}stat"] = "inactive_file 7\ntotal_inactive_file 1000\ntotal_active_file 100\n"
    assert segment.available_bytes(tree(tmp_path, V1 | files)) == 41_100


def test_a_path_of_another_cgroup_namespace_is_the_mounted_one(tmp_path: Path) -> None:
    files = V2 | {"proc/self/cgroup": "0::/../other\n"} | group("", "3000", 1000)
    assert segment.available_bytes(tree(tmp_path, files)) == 2000


def test_without_any_of_these_files_the_machines_memory_counts(tmp_path: Path) -> None:
    pages: Callable[[str], int] = os.sysconf
    assert segment.available_bytes(tmp_path) == pages("SC_PHYS_PAGES") * pages("SC_PAGE_SIZE")


def test_an_old_kernels_free_memory_counts(tmp_path: Path) -> None:
    files = {"proc/meminfo": "MemTotal: 9000 kB\nMemFree: 1000 kB\n"}
    assert segment.available_bytes(tree(tmp_path, files)) == 1_024_000


def test_this_machine_leaves_something() -> None:
    assert layout.CAPACITY_BYTES_MIN < segment.available_bytes() <= layout.CAPACITY_BYTES_MAX
