"""Who comes near a store, and what readers may do to its memory.

The writer's check of credentials, and that of a client, are in tests/test_loop.py and
tests/test_pipe.py with another user pretended; here another user is real where the tests run as
root, and pretended where they do not. See tests/test_runtime.py for all rules of the directory.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import fcntl
import mmap
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import shmstore
from shmstore import InvalidArgument, ShmstoreError, StoreNotFound, runtime, segment
from shmstore.server import Server
from shmstore.writer.peer import Peer

SOURCES = Path(shmstore.__file__).parent
NOBODY = 65534
IS_ROOT = os.geteuid() == 0
PAGE = mmap.PAGESIZE
WRITABLE = mmap.PROT_READ | mmap.PROT_WRITE
UNPICKLING = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CHILDREN = {"multiprocess", "multiprocessing"}


def in_child(check: Callable[[], None], user: int | None = None) -> None:
    """Run ``check`` in a forked child, as another user if one is given; it must not fail."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            check()
            os.write(sender, b"done")
        except BaseException:
            os.write(sender, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as told:
        said = told.read()
    os.waitpid(pid, 0)
    assert said == b"done", said.decode()


def open_wide(path: str) -> None:
    """Let everybody come near the socket, as a careless user might."""
    os.chmod(path, 0o777)
    for folder in Path(path).parents:
        if folder == Path("/tmp") or os.stat(folder).st_uid != os.geteuid():
            return
        if not os.stat(folder).st_mode & 0o001:
            os.chmod(folder, 0o755)


# Other users


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else; see the next test")
def test_the_writer_hangs_up_on_a_process_of_another_user(server: Server) -> None:
    open_wide(server.address)
    with server.connect() as client:
        client.table("t")["k"] = 1

        def talk() -> None:
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect(server.address)
                stranger.settimeout(20)
                assert stranger.recv(100) == b""

        in_child(talk, NOBODY)
        assert client.table("t")["k"] == 1


def test_a_peer_is_of_the_user_whom_the_kernel_names() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        peer = Peer(ours)
        assert peer.uid == os.geteuid()
        assert peer.pid == os.getpid()
        peer.close()


@pytest.mark.skipif(
    not IS_ROOT, reason="only root can become somebody else; see tests/test_pipe.py"
)
def test_a_client_hangs_up_on_the_server_of_another_user(server: Server) -> None:
    open_wide(server.address)

    def connect() -> None:
        with pytest.raises(StoreNotFound, match="socket of user 0"):
            shmstore.connect(server.address, timeout=20).table("t").get("k")

    in_child(connect, NOBODY)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a path belong to somebody else: in truth as root, else by pretending to be another."""

    def give_away(path: Path) -> None:
        if IS_ROOT:
            os.lchown(path, NOBODY, NOBODY)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    return give_away


def refused(match: str) -> None:
    for use in (runtime.running, lambda: shmstore.start("x", capacity="1MiB")):
        with pytest.raises(InvalidArgument, match=match):
            use()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o702, 0o710, 0o701, 0o777, 0o1777])
def test_a_directory_that_others_may_enter_or_write_is_refused(
    runtime_dir: Path, mode: int
) -> None:
    runtime_dir.chmod(mode)
    refused("chmod 700")
    assert list(runtime_dir.iterdir()) == []


def test_a_directory_of_somebody_else_is_refused(
    runtime_dir: Path, stranger: Callable[[Path], None]
) -> None:
    stranger(runtime_dir)
    refused("belongs to user")


def test_a_link_that_somebody_else_made_is_refused(
    runtime_dir: Path,
    tmp_path: Path,
    stranger: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = tmp_path / "link"
    link.symlink_to(runtime_dir)
    stranger(link)
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(link))
    refused("belongs to user")


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a directory away")
def test_a_link_of_ones_own_to_the_directory_of_somebody_else_is_refused(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(tmp_path / "link"))
    refused(f"belongs to user {NOBODY}")


def test_a_link_of_ones_own_leads_to_what_it_leads_to(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(runtime_dir)
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(tmp_path / "link"))
    assert runtime.running() == []
    runtime_dir.chmod(0o750)
    refused("chmod 700")


@pytest.mark.parametrize("kind", ["file", "link to nothing", "link to itself", "pipe"])
def test_what_is_no_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "place"
    if kind == "file":
        path.touch(0o600)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to(path if kind == "link to itself" else tmp_path / "nowhere")
    monkeypatch.setenv("SHMSTORE_RUNTIME_DIR", str(path))
    with pytest.raises(InvalidArgument, match="SHMSTORE_RUNTIME_DIR"):
        shmstore.start("x", capacity="1MiB")


# The memory


@pytest.fixture
def handed_out(server: Server) -> Iterator[int]:
    """The descriptor that a client gets with its hello, as one that reads frames would see it."""
    from shmstore import protocol

    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(server.address)
        hello = [protocol.PROTOCOL_VERSION, b"c" * protocol.CLIENT_ID_BYTES]
        connected.sendall(protocol.frame_request(0, 0, "hello", hello))
        _, (fd,), _, _ = socket.recv_fds(connected, 1000, 1)
        yield fd
        os.close(fd)


def test_a_client_gets_no_way_to_write(handed_out: int) -> None:
    assert fcntl.fcntl(handed_out, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    for write in (
        lambda: os.write(handed_out, b"x"),
        lambda: os.pwrite(handed_out, b"x", 0),
        lambda: os.posix_fallocate(handed_out, 0, PAGE),
        lambda: os.ftruncate(handed_out, 0),
        lambda: mmap.mmap(handed_out, PAGE, mmap.MAP_SHARED, WRITABLE),
    ):
        with pytest.raises(OSError, match=r"Bad file|denied|Invalid|not permitted"):
            write()
    with closing(mmap.mmap(handed_out, PAGE, mmap.MAP_SHARED, mmap.PROT_READ)) as memory:
        with pytest.raises(TypeError):
            memory[0] = 1
        with pytest.raises(OSError, match=r"denied|Invalid|not permitted"):
            memory.madvise(mmap.MADV_REMOVE)


def test_a_clients_mapping_stays_read_only(handed_out: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, PAGE, mmap.PROT_READ, mmap.MAP_SHARED, handed_out, 0)
    for protection in (WRITABLE, mmap.PROT_WRITE, WRITABLE | mmap.PROT_EXEC):
        assert libc.mprotect(address, PAGE, protection) == -1
        assert ctypes.get_errno() == errno.EACCES
    libc.munmap(address, PAGE)


def test_a_store_at_an_address_of_a_reader_kills_the_reader_and_changes_nothing(
    server: Server,
) -> None:
    with server.connect() as client:
        client.table("t")["k"] = "as it was"
        code = (
            "import ctypes, sys\n"
            "import shmstore\n"
            f"client = shmstore.connect({server.address!r})\n"
            "assert client.table('t')['k'] == 'as it was'\n"
            "line = next(l for l in open('/proc/self/maps') if 'shmstore' in l and 'memfd' in l)\n"
            "assert ' r--s ' in line, line\n"
            "ctypes.memset(int(line.split('-')[0], 16), 255, 4096)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=SOURCES.parent, check=False)
        assert done.returncode == -11
        assert client.table("t")["k"] == "as it was"
        assert client.check() == []


def test_the_way_by_proc_is_closed_by_the_mode_of_the_file() -> None:
    """Against accidents: who owns the file can open it again once he has changed its mode."""

    def open_again() -> None:
        fd = segment.create(1 << 20)
        reader_fd = segment.open_readonly(fd)
        for again in (fd, reader_fd):
            with pytest.raises(PermissionError):
                os.open(f"/proc/self/fd/{again}", os.O_RDWR)

    in_child(open_again, NOBODY if IS_ROOT else None)


# Nothing is unpickled


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return {name.split(".")[0] for name in names}


def called(path: Path) -> set[str]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    return names | {node.func.attr for node in calls if isinstance(node.func, ast.Attribute)}


def test_no_module_can_unpickle() -> None:
    """Beside the demo, which talks with its own children by way of ``multiprocess``, and the plugin
    of pytest, which pickles what fixtures return, and unpickles it, in the processes of tests."""
    modules = sorted(SOURCES.rglob("*.py"))
    assert len(modules) > 80
    for path in modules:
        if "pytest" not in path.relative_to(SOURCES).parts:
            assert imported(path) & UNPICKLING == set(), path
        assert called(path) & {"eval", "exec", "__import__", "Unpickler"} == set(), path
        if "demo" not in path.relative_to(SOURCES).parts:
            assert imported(path) & CHILDREN == set(), path
    for path in (SOURCES / "native").iterdir():
        assert "pickle" not in path.read_text().replace("__reduce__", ""), path


def test_a_store_works_where_unpickling_is_an_error(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the client, and in the writer: a module at the head of its path forbids it there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import pickle, marshal, _pickle\n"
        "def refuse(*arguments, **named):\n"
        "    raise RuntimeError('something is unpickled')\n"
        "pickle.loads = pickle.load = pickle.Unpickler = refuse\n"
        "_pickle.loads = _pickle.load = _pickle.Unpickler = refuse\n"
        f"open({str(tmp_path / 'seen')!r}, 'a').write('!')\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{SOURCES.parent}")

    def refuse(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("something is unpickled")

    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    with shmstore.start(capacity="8MiB") as server, server.connect() as client:
        table = client.table("t")
        evil = pickle.dumps(ShmstoreError("a pickle"))
        table["k"] = {"pickle": evil, "list": [1, 2.5, None]}
        assert table["k"]["pickle"] == evil
        assert table.pop("k")["list"] == [1, 2.5, None]
        table.increment("n")
        assert dict(table.items()) == {"n": 1}
        table["text"] = "no number"
        with pytest.raises(shmstore.InvalidRecord):
            table.increment("text")
        assert client.check() == []
    assert (tmp_path / "seen").read_text() != ""
