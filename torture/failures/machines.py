"""Machines that are short of something: each in a process of its own that is limited so.

``python -m torture.failures.machines NAME`` prints what is wrong; with exit status 77 why there can
be no such machine here.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import shmstore
from shmstore import InvalidArgument, RequestTimeout, Server, StoreFull
from shmstore.segment import available_bytes

from ..building import ROOT

MIB = 1 << 20
NOT_HERE = 77
SECONDS_MAX = 120
SHARED_BYTES = 64 * MIB
RECORDS = 128
GROUP_BYTES = 96 * MIB
MARGIN = 4 * MIB
"""What start() itself takes."""
WAIT_SECONDS_MAX = 20.0


class NotHere(Exception):
    """Why there can be no such machine here."""


def machine(name: str) -> list[str]:
    """Try one machine; return what is wrong. Raises NotHere."""
    with tempfile.TemporaryDirectory(prefix="shm-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "torture.failures.machines", name],
            cwd=ROOT,
            env={**os.environ, "SHMSTORE_RUNTIME_DIR": folder},
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        left = os.listdir(folder)
    findings = done.stdout.splitlines()
    if done.returncode == NOT_HERE:
        raise NotHere(findings[0])
    if done.returncode:
        findings.append(f"exit status {done.returncode}: {done.stderr}")
    return findings + [f"left behind: {name}" for name in left]


# Memory


def little_shared_memory() -> Iterator[str]:
    """64 MiB of /dev/shm, and a store of twice that: it lies elsewhere."""
    if os.environ.get("SHMSTORE_OWN_MOUNTS") is None:
        _again_with_own_mounts()
    if os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize != SHARED_BYTES:
        yield "/dev/shm is not of the size it was made with"
    with shmstore.start(capacity="1GiB") as server:
        table = server.table("t")
        for i in range(RECORDS):
            table[f"k{i}"] = bytes([i]) * MIB
        wrong = [i for i in range(RECORDS) if table[f"k{i}"] != bytes([i]) * MIB]
        if wrong:
            yield f"records that are not as they were put: {wrong}"
        yield from server.client.check()


def _again_with_own_mounts() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise NotHere("mounts of its own need root and unshare")
    script = f"""
        mount --make-rprivate / && mount -t tmpfs -o size={SHARED_BYTES} tmpfs /dev/shm || exit 77
        exec "$@"
    """
    command = [sys.executable, "-m", "torture.failures.machines", "little shared memory"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *command],
        env={**os.environ, "SHMSTORE_OWN_MOUNTS": "1"},
        check=False,
    )
    if done.returncode == NOT_HERE:
        raise NotHere("nothing can be mounted")
    sys.exit(done.returncode)


def little_memory() -> Iterator[str]:
    """A cgroup of 96 MiB: a store that fits is full before anybody is killed."""
    with _memory_group() as group:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        try:
            shmstore.start(capacity="1GiB").close()
            yield "a capacity beyond the limit was accepted"
        except InvalidArgument as error:
            if not 0 < error.details["available"] < GROUP_BYTES:
                yield f"refused, but: {error}"
        with shmstore.start(capacity=available_bytes() // MIB * MIB - MARGIN) as server:
            yield from _fill_and_drain(server)
            if (kills := _kills(group)) != 0:
                yield f"the kernel killed {kills} processes of the group"


def _fill_and_drain(server: Server) -> Iterator[str]:
    table = server.table("t")
    writer, value, number = server.writer_pid, bytes(256 << 10), 0
    try:
        while number < 1000:
            table[f"k{number}"] = value
            number += 1
        yield "it is never full"
    except StoreFull as error:
        if "the system gives no more memory" not in str(error):
            yield f"full for another reason: {error}"
    if number < 8:
        yield f"full with {number} records"
    if [key for key in table if table[key] != value] or len(table) != number:
        yield "records are lost"
    for i in range(number // 2):
        del table[f"k{i}"]
    for i in range(number // 4):
        table[f"again{i}"] = value
    if server.writer_pid != writer:
        yield "the writer was replaced"
    yield from server.client.check()


@contextmanager
def _memory_group() -> Iterator[Path]:
    """A new cgroup below the own one, with a limit; v2 where that has the controller, or v1."""
    own = dict(line.split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    tops = [
        (Path("/sys/fs/cgroup"), own.get("", "/"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), own.get("memory", "/"), "memory.limit_in_bytes"),
    ]
    for top, path, limit in tops:
        parent = top / path.lstrip("/")
        for folder in (parent if parent.is_dir() else top, top):
            group = folder / f"shmstore-{os.getpid()}"
            if not _made(group, limit):
                continue
            try:
                yield group
            finally:
                (folder / "cgroup.procs").write_text(str(os.getpid()))
                _remove(group)
            return
    raise NotHere("no cgroup with a limit of memory can be made")


def _made(group: Path, limit: str) -> bool:
    if not (group.parent / "cgroup.procs").exists():
        return False
    try:
        group.mkdir()
    except OSError:
        return False
    try:
        with open(group / limit, "r+") as file:
            file.write(str(GROUP_BYTES))
    except OSError:
        group.rmdir()
        return False
    return True


def _remove(group: Path) -> None:
    end = time.monotonic() + WAIT_SECONDS_MAX
    while group.exists() and time.monotonic() < end:
        with suppress(OSError):  # who has just ended is still in it
            group.rmdir()
        time.sleep(0.01)


def _kills(group: Path) -> int | None:
    for name in ("memory.events", "memory.oom_control"):
        if (group / name).exists():
            fields = dict(line.split() for line in (group / name).read_text().splitlines())
            return int(fields["oom_kill"])
    return None


def few_addresses() -> Iterator[str]:
    """A client without addresses for the segment says so, and gets in when there are some."""
    with shmstore.start(capacity="256MiB") as server:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = _open_descriptors()
        with _limited(resource.RLIMIT_AS, used + 64 * MIB):
            yield from _refused(errno.ENOMEM, lambda: server.connect(2.0))
        if _open_descriptors() != before:
            yield f"descriptors: {_open_descriptors()}, not {before}"
        server.connect(5.0).close()


def small_files() -> Iterator[str]:
    """Files of 4 MiB at most, and the segment is one: no server, and nothing left of it."""
    with _limited(resource.RLIMIT_FSIZE, 4 * MIB):
        before = _open_descriptors()
        yield from _refused(errno.EFBIG, lambda: shmstore.start(capacity="64MiB"))
        if _open_descriptors() != before:
            yield f"descriptors: {_open_descriptors()}, not {before}"


# Descriptors

CLIENTS = 12


def writer_without_descriptors() -> Iterator[str]:
    """The writer can accept nobody: it serves who is there, idles, and accepts when it can."""
    with shmstore.start(capacity="8MiB") as server, ExitStack() as clients:
        server.connect().close()
        pid = server.writer_pid or 0
        table = server.table("t")
        table["a"] = 1
        highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 3, highest + 3))
        inside = []
        with suppress(RequestTimeout):
            for _ in range(CLIENTS):
                inside.append(clients.enter_context(server.connect(0.5)))
        if not 0 < len(inside) < CLIENTS:
            yield f"{len(inside)} clients got in"
        ticks, begun = _ticks(pid), time.monotonic()
        for number, client in enumerate(inside):
            client.table("t")["a"] = number
            if table["a"] != number:
                yield "a client that is connected is not served"
        yield from _refused(None, lambda: server.connect(1.5))
        spent = (_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK")
        if spent > (time.monotonic() - begun) / 4:
            yield f"it does not idle: {spent} s of processor time"
        inside[0].close()
        server.connect(WAIT_SECONDS_MAX).close()
        if server.writer_pid != pid:
            yield "the writer was replaced"


def client_without_descriptors() -> Iterator[str]:
    """A client for which there is no socket, or no descriptor of the memory; then there is."""
    with shmstore.start(capacity="8MiB") as server:
        table = server.table("t")
        table["a"] = 1
        before = _open_descriptors()
        for free in (0, 1):
            with _descriptors_left(free):
                yield from _refused(errno.EMFILE, lambda: server.connect(5.0))
                yield from _refused(errno.EMFILE, lambda: shmstore.connect(server.name, 5.0))
                table.increment("a")
        if _open_descriptors() != before:
            yield f"descriptors: {_open_descriptors()}, not {before}"
        if table["a"] != 3:
            yield f"increments: {table['a']}, not 3"
        server.connect().close()


def starter_without_descriptors() -> Iterator[str]:
    """No server can be started, nor a writer again until there are descriptors."""
    shmstore.start(capacity="8MiB").close()
    before = _open_descriptors()
    for free in range(14):
        with _descriptors_left(free):
            try:
                shmstore.start(capacity="8MiB").close()
            except shmstore.WriterUnavailable as error:
                if "Too many open files" not in str(error):
                    yield f"with {free} descriptors: {error}"
            except OSError as error:
                if error.errno != errno.EMFILE:
                    yield f"with {free} descriptors: {error!r}"
        if _open_descriptors() != before:
            yield f"with {free} descriptors {_open_descriptors()} are open, not {before}"
    with shmstore.start(capacity="8MiB") as server:
        table = server.table("t")
        table["a"] = 1
        with _descriptors_left(0):
            os.kill(server.writer_pid or 0, 9)
            yield from _refused(None, lambda: server.connect(1.0))
        if table.increment("a") != 2:
            yield "an increment is lost"


# Tools


@contextmanager
def _limited(what: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


@contextmanager
def _descriptors_left(free: int) -> Iterator[None]:
    """Leave so many descriptors, which are the lowest ones that are not in use."""
    with ExitStack() as stack:
        highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
        for _ in range(highest - len(os.listdir("/proc/self/fd")) + 1):
            stack.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        used = max(map(int, os.listdir("/proc/self/fd")))
        with _limited(resource.RLIMIT_NOFILE, used + free):
            yield


def _refused(number: int | None, call: Callable[[], object]) -> Iterator[str]:
    """``number``: the errno; None for a time limit, or an errno of descriptors."""
    try:
        call()
        yield "nothing was refused"
    except RequestTimeout as error:
        if number is not None:
            yield f"refused, but: {error!r}"
    except OSError as error:
        if error.errno != (number or errno.EMFILE):
            yield f"refused, but: {error!r}"


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


MACHINES: Mapping[str, Callable[[], Iterator[str]]] = MappingProxyType(
    {
        "little shared memory": little_shared_memory,
        "little memory": little_memory,
        "few addresses": few_addresses,
        "small files": small_files,
        "writer without descriptors": writer_without_descriptors,
        "client without descriptors": client_without_descriptors,
        "starter without descriptors": starter_without_descriptors,
    }
)


def main(name: str) -> int:
    """Try one machine in this process."""
    try:
        for finding in MACHINES[name]():
            print(finding)
    except NotHere as why:
        print(why)
        return NOT_HERE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
