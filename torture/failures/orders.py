"""Calls of the C library that fail to order, in this process or in one that it starts.

Only where native/failing.c is preloaded: the processes of environment().
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from pathlib import Path
from types import MappingProxyType

from ..building import BUILD, DEBUG, OWN, compile_c

VARIABLE = "SHMSTORE_FAILING"
CUT = -1
"""The outcome of a call that does a part of what it was asked for: one byte."""
FOR_EVER = 1 << 40

_ORDER = struct.Struct("<IIIiqqqq32s")
_PROCESS, _THREAD, _NEXT = range(3)
_SEEN = struct.Struct("<qq")
_SEEN_OFFSET = 32
_COUNT = struct.Struct("<24sq")
_COUNTS_OFFSET = 88
_COUNTS = 64
_BYTES = _COUNTS_OFFSET + _COUNTS * _COUNT.size

FAILURES = MappingProxyType(
    {
        "accept": (errno.EMFILE, errno.ENOMEM, errno.ECONNABORTED, errno.EINTR),
        "allocate": (errno.ENOMEM,),
        "bind": (errno.ENOMEM, errno.ENOSPC),
        "connect": (errno.ENOMEM, errno.EINTR),
        "core": (errno.ENOMEM,),
        "epoll_create": (errno.EMFILE, errno.ENOMEM),
        "epoll_ctl": (errno.ENOMEM, errno.ENOSPC),
        "epoll_wait": (errno.EINTR,),
        "execve": (errno.ENOMEM, errno.E2BIG),
        "fchmod": (errno.EIO,),
        "fcntl": (errno.EMFILE, errno.ENOMEM),
        "flock": (errno.ENOLCK, errno.EINTR),
        "fork": (errno.EAGAIN, errno.ENOMEM),
        "ftruncate": (errno.ENOSPC, errno.EINTR),
        "getcwd": (errno.ENOMEM,),
        "getrandom": (errno.EINTR,),
        "getsockopt": (errno.ENOBUFS,),
        "kill": (errno.EPERM,),
        "listen": (errno.ENOMEM,),
        "madvise": (errno.ENOMEM,),
        "memfd_create": (errno.EMFILE, errno.ENOMEM),
        "mkdir": (errno.ENOSPC, errno.ENOMEM),
        "mmap": (errno.ENOMEM,),
        "open": (errno.EMFILE, errno.ENOMEM, errno.EINTR),
        "opendir": (errno.EMFILE,),
        "pipe": (errno.EMFILE, errno.ENFILE),
        "poll": (errno.ENOMEM, errno.EINTR),
        "posix_fallocate": (errno.ENOSPC, errno.ENOMEM, errno.EINTR),
        "pthread_create": (errno.EAGAIN,),
        "read": (errno.EIO, errno.EINTR, CUT),
        "recv": (errno.ENOMEM, errno.EINTR, CUT),
        "recvmsg": (errno.ENOMEM, errno.EMFILE, errno.EINTR, CUT),
        "send": (errno.ENOMEM, errno.EINTR, CUT),
        "sendmsg": (errno.ENOMEM, errno.EINTR, CUT),
        "setsockopt": (errno.ENOMEM,),
        "socket": (errno.EMFILE, errno.ENOMEM),
        "socketpair": (errno.EMFILE, errno.ENFILE),
        "stat": (errno.ENOMEM,),
        "unlink": (errno.ENOMEM,),
        "waitpid": (errno.EINTR,),
        "write": (errno.EIO, errno.EINTR, CUT),
    }
)
"""The functions, and how each may fail: with an errno, or CUT.

"core" is what the native engine asks of malloc, "allocate" what anybody does. What no kernel
answers about pipes, sockets and memory is not here: close() and munmap() do not fail on them.
"""
UNSEEN = frozenset({errno.EINTR, CUT})
"""Outcomes that nobody may notice."""


def name_of(outcome: int) -> str:
    """Return the outcome as text."""
    return "cut short" if outcome == CUT else errno.errorcode[outcome]


def environment(file: Path, *, every_allocation: bool) -> dict[str, str]:
    """Return the environment of a process whose calls, and whose children's, can be made to fail.

    ``file`` is made, and holds the orders. ``every_allocation`` has Python ask the C library for
    each of its objects, and not for large pieces of which it makes them.
    """
    library = compile_c(
        BUILD / "failing.so", OWN / "failing.c", (*DEBUG, "-shared", "-fPIC", "-Wall", "-Wextra")
    )
    file.write_bytes(bytes(_BYTES))
    added = {"LD_PRELOAD": str(library), VARIABLE: str(file)}
    if every_allocation:
        added["PYTHONMALLOC"] = "malloc"
    # The tool that measures coverage would have its own allocations denied.
    own = {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE_")}
    return {**own, **added}


class Order:
    """Which call is to fail; for a process in the environment above. One stands at a time."""

    def __init__(self) -> None:
        with open(os.environ[VARIABLE], "r+b") as file:
            self._page = mmap.mmap(file.fileno(), _BYTES)
        self._words = memoryview(self._page).cast("B")[:12].cast("I")

    def give(
        self, function: str, outcome: int, first: int, count: int = 1, *, thread: int = 0
    ) -> None:
        """Let ``count`` calls of ``function`` fail from the one numbered ``first`` on, once
        begin() or catch_next() says where; with ``thread`` only those of this native thread."""
        _ORDER.pack_into(
            self._page, 0, 0, thread, 0, outcome, first, count, 0, 0, function.encode()
        )

    def begin(self, process: int) -> None:
        """Let it take effect in a process, and in what it forks. Allocates nothing."""
        self._words[_PROCESS] = process

    def catch_next(self) -> None:
        """Let it take effect in the next process that is started, from its start on."""
        self._words[_NEXT] = 1

    def end(self) -> None:
        """Let nothing fail any more. Allocates nothing."""
        self._words[_PROCESS] = 0
        self._words[_NEXT] = 0

    def count(self, *, thread: int = 0) -> None:
        """Let nothing fail, but count the calls of all functions, as give() does of one."""
        self.give("*", 0, 0, 0, thread=thread)
        self._page[_COUNTS_OFFSET:] = bytes(_BYTES - _COUNTS_OFFSET)

    def counted(self) -> dict[str, int]:
        """Return how often each function was called since count()."""
        counts = _COUNT.iter_unpack(self._page[_COUNTS_OFFSET:])
        return {name.rstrip(b"\0").decode(): calls for name, calls in counts if calls}

    def seen(self) -> tuple[int, int]:
        """Return how many calls there were since the order, and how many of them failed."""
        seen, made = _SEEN.unpack_from(self._page, _SEEN_OFFSET)
        return seen, made
