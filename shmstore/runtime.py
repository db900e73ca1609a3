"""Where servers are found: the runtime directory, their names and their sockets.

A server NAME listens on the Unix socket ``<runtime directory>/NAME.sock``; that path is its
address. The directory is the user's alone: only processes of the same user come near a socket.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from .errors import InvalidArgument, NameInUse, RequestTimeout, StoreNotFound

DIRECTORY_VARIABLE = "SHMSTORE_RUNTIME_DIR"
SUFFIX = ".sock"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
SOCKET_PATH_BYTES_MAX = 100
"""Longest path given to the kernel as it is; its own limit is 107."""
BACKLOG = 512
LOCK_POLL_SECONDS = 0.01
LIMIT_SECONDS_MAX = 1 << 30
OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What the kernel refuses this process: it says nothing about a server."""
_TIMEVAL = struct.Struct("@ll")


class Bound(NamedTuple):
    """A listening socket with the file it is bound to."""

    listener: socket.socket
    address: str
    identity: tuple[int, int]


def directory() -> str:
    """Return the path of the runtime directory, which need not exist.

    It is $SHMSTORE_RUNTIME_DIR, else ``shmstore`` in $XDG_RUNTIME_DIR where that is a directory of
    this user, else ``shmstore-<uid>`` in the temporary directory.
    """
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return os.path.abspath(chosen)
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session) and _is_own_directory(session):
        return os.path.join(session, "shmstore")
    import tempfile  # which takes long to import

    return os.path.join(os.path.abspath(tempfile.gettempdir()), f"shmstore-{os.geteuid()}")


def check_name(name: object) -> str:
    """Return ``name`` if a server can bear it; InvalidArgument says what a name is."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return str(name)
    raise InvalidArgument(
        f"{name!r} cannot be the name of a server: use 1 to 64 of the characters A-Z a-z 0-9 . _ -",
        name=repr(name),
    )


def address_of(address_or_name: str) -> str:
    """Return the address that is meant: what holds a slash is one, anything else is a name."""
    if isinstance(address_or_name, str) and "/" in address_or_name:
        return os.path.abspath(address_or_name)
    return os.path.join(directory(), check_name(address_or_name) + SUFFIX)


def running() -> list[str]:
    """Return the names of the servers that listen in the runtime directory, sorted.

    No server notices. Sockets of dead servers are left out. InvalidArgument if the directory is not
    safe to use.
    """
    try:
        path = _checked_directory()
    except FileNotFoundError:
        return []
    names = [file[: -len(SUFFIX)] for file in os.listdir(path) if file.endswith(SUFFIX)]
    return sorted(
        name for name in names if NAME.fullmatch(name) and is_listening(f"{path}/{name}{SUFFIX}")
    )


def not_found(address: str, reason: str) -> StoreNotFound:
    """Return the error that says which server is missing, and which ones there are."""
    folder, file = os.path.split(address)
    name = file.removesuffix(SUFFIX) if folder == directory() else address
    try:
        names = running()
    except (InvalidArgument, OSError):
        names = []
    others = f"running there: {', '.join(names)}" if names else "no server is running there"
    return StoreNotFound(
        f"no server {name!r}: {reason}; the runtime directory is {directory()}, {others}",
        address=address,
        running=names,
    )


def is_listening(address: str) -> bool:
    """Tell whether a process listens on this socket, without its noticing.

    A datagram socket cannot connect to a stream socket: the kernel refuses with one error while
    somebody listens, and with another when only the file is left.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, _short(address) as path:
        return probe.connect_ex(path) == errno.EPROTOTYPE


def bind(name: str, deadline: float) -> Bound:
    """Return a listening socket for the server ``name``; a dead server's socket is replaced.

    NameInUse if a server of this name is running, InvalidArgument if the runtime directory cannot
    be used. ``deadline`` (monotonic) bounds the wait for a process that is binding just now.
    """
    file = check_name(name) + SUFFIX
    _make_directory()
    path = _checked_directory()
    address = os.path.join(path, file)
    with locked(path, deadline):
        if is_listening(address):
            raise NameInUse(
                f"a server {name!r} is already running: use it with shmstore.connect({name!r}), "
                f"or start this one under another name",
                name=name,
            )
        _remove_stale(address)
        return _listen(address)


def unlink(bound: Bound) -> None:
    """Remove the socket's file if it is still the one that was bound.

    To be called before the listener is closed, which keeps another file from being taken for it.
    """
    with suppress(OSError):
        if _identity(bound.address) == bound.identity:
            os.unlink(bound.address)


def connect(address: str, seconds: float) -> socket.socket:
    """Return a blocking socket connected to ``address``; the kernel's OSError if it refuses.

    TimeoutError if the server's queue of connections stayed full for so long.
    """
    deadline = time.monotonic() + seconds
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time_limit(seconds))
        with _short(address) as path:
            connected.connect(path)
            while not _is_connected(connected):
                if time.monotonic() > deadline:
                    raise BlockingIOError
                connected.connect(path)
    except BlockingIOError:
        connected.close()
        raise TimeoutError(errno.ETIMEDOUT, "the server's queue of connections is full") from None
    except BaseException:
        connected.close()
        raise
    return connected


def _is_connected(connecting: socket.socket) -> bool:
    """Tell whether connect() has done it: a signal during the wait for room in the server's queue
    makes Python believe so."""
    try:
        connecting.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    return True


def time_limit(seconds: float) -> bytes:
    """Return ``seconds`` as the kernel's options take it; infinity is no limit."""
    if seconds == math.inf:
        return _TIMEVAL.pack(0, 0)
    whole = min(int(seconds), LIMIT_SECONDS_MAX)
    return _TIMEVAL.pack(whole, max(1, int((seconds - int(seconds)) * 1e6)))


def _make_directory() -> None:
    path = directory()
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unusable(path, f"it cannot be made: {error.strerror}") from None


def _checked_directory() -> str:
    """Return the path of the runtime directory if it is this user's and closed to all others."""
    path = directory()
    link, status = os.lstat(path), os.stat(path)
    user = os.geteuid()
    for owner in (link.st_uid, status.st_uid):
        if owner != user:
            raise _unusable(path, f"it belongs to user {owner}, this process runs as {user}")
    if not stat.S_ISDIR(status.st_mode):
        raise _unusable(path, "it is not a directory")
    if status.st_mode & 0o077:
        raise _unusable(path, f"others may enter it: run chmod 700 {path}")
    return path


def _unusable(path: str, reason: str) -> InvalidArgument:
    return InvalidArgument(
        f"the runtime directory {path} cannot be used: {reason}; or name another directory in "
        f"{DIRECTORY_VARIABLE}",
        path=path,
    )


def _is_own_directory(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


@contextmanager
def locked(path: str, deadline: float) -> Iterator[None]:
    """Hold the lock of the directory, under which sockets are bound."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise RequestTimeout(
                    f"another process holds the lock of {path}: it is starting a server, or stopped"
                )
            time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _short(address: str) -> Iterator[str]:
    """Give a path to ``address`` that is short enough for the kernel, whatever its directory."""
    if len(os.fsencode(address)) <= SOCKET_PATH_BYTES_MAX:
        yield address
        return
    folder, file = os.path.split(address)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{file}"
    finally:
        os.close(descriptor)


def _remove_stale(address: str) -> None:
    try:
        mode = os.lstat(address).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidArgument(
            f"{address} is in the way and not a socket: move it, or use another name",
            path=address,
        )
    os.unlink(address)


def _listen(address: str) -> Bound:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(address) as path:
            listener.bind(path)
    except BaseException:
        listener.close()
        raise
    try:
        listener.listen(BACKLOG)
        return Bound(listener, address, _identity(address))
    except BaseException:
        os.unlink(address)  # ours: the directory is locked
        listener.close()
        raise


def _identity(address: str) -> tuple[int, int]:
    status = os.lstat(address)
    return status.st_dev, status.st_ino
