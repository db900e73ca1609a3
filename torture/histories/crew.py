"""Forked processes that share words of memory: an order that does not go through the store."""

from __future__ import annotations

import mmap
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

import shmstore

Words: TypeAlias = memoryview
"""Words of 64 bits; a load or store of one is one move."""
Job: TypeAlias = Callable[["Post", shmstore.Client], None]

SECONDS_MAX = 120.0
"""What no single wait may take: longer than any client waits."""
_fork = get_context("fork")


def shared_words(count: int) -> Words:
    """Return words, all 0, for this process and those that are forked; gone with the last view."""
    return memoryview(mmap.mmap(-1, 8 * count)).cast("Q")


class Post:
    """One end of the pipe between a job and the process that started it."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._parent = os.getppid()

    def send(self, message: Any) -> None:
        """Send anything that can be pickled."""
        self._connection.send(message)

    def receive(self) -> Any:
        """Wait for a message. Ends the process when the one that started it is gone."""
        while not self._connection.poll(1.0):
            self.stay()
        return self._connection.recv()

    def stay(self) -> None:
        """End the process if nobody would wait for it."""
        if os.getppid() != self._parent:
            os._exit(1)


class Member:
    """A process that does a job: forked before the server starts, so that it inherits nothing."""

    def __init__(self, job: Job) -> None:
        self._connection, end = _fork.Pipe()
        self._process = _fork.Process(target=_work, args=(end, job), daemon=True)
        self._process.start()
        end.close()

    def send(self, message: Any) -> None:
        """Send anything that can be pickled."""
        self._connection.send(message)

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    @property
    def connection(self) -> Connection[Any, Any]:
        """What says when there is something to receive."""
        return self._connection

    def receive(self) -> Any:
        """Return what the job sends. Raises RuntimeError if it failed, died, or says nothing."""
        (message,) = gather([self])
        return message

    def _received(self) -> Any:
        try:
            failure, message = self._connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError("a process died without a word") from None
        if failure:
            raise RuntimeError(f"a process failed:\n{failure}")
        return message

    def close(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def gather(members: Sequence[Member]) -> list[Any]:
    """Return what each of them sends; raises as Member.receive(), for who fails first."""
    waited = {member.connection: member for member in members}
    received: dict[Member, Any] = {}
    while waited:
        ready = wait(list(waited), SECONDS_MAX)
        if not ready:
            raise RuntimeError(f"{len(waited)} processes said nothing for {SECONDS_MAX:.0f} s")
        for connection in ready:
            member = waited.pop(connection)  # type: ignore[call-overload]
            received[member] = member._received()
    return [received[member] for member in members]


class _JobPost(Post):
    def send(self, message: Any) -> None:
        super().send(("", message))


def _work(connection: Connection[Any, Any], job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    post = _JobPost(connection)
    try:
        with shmstore.connect(post.receive(), SECONDS_MAX / 2) as client:
            job(post, client)
    except BaseException:
        connection.send((traceback.format_exc(), None))


@contextmanager
def crew(
    jobs: Sequence[Job], capacity: str = "1MiB"
) -> Iterator[tuple[shmstore.Server, list[Member]]]:
    """A new server, and a process with a client of it per job; all gone afterwards."""
    members: list[Member] = []
    try:
        members.extend(map(Member, jobs))
        with shmstore.start(capacity=capacity) as server:
            for member in members:
                member.send(server.address)
            yield server, members
    finally:
        for member in members:
            member.close()


def kill_writer(server: shmstore.Server, but: int | None = None) -> int | None:
    """Kill the writer if there is one, and not ``but``; return its process id."""
    pid = server.writer_pid
    if pid is None or pid == but:
        return None
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for(condition: Callable[[], bool], seconds: float = SECONDS_MAX) -> bool:
    """Wait until the condition is true; False if it was not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True
