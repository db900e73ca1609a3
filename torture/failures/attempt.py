"""One play while something fails, and the judgement of what came of it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator

import shmstore
from shmstore import (
    InvalidArgument,
    LimitReached,
    RequestTimeout,
    ShmstoreError,
    StoreFull,
    WriterUnavailable,
)

from .orders import UNSEEN, Order, name_of
from .scenes import PLAYS, TABLE, Play, emptied, stored
from .stage import Stage, eventually

PLAY_SECONDS_MAX = 5.0 + 3.0
"""The time limit of the clients, and what a slow machine needs beyond it."""
BURSTS = (1, 3, 30)
"""So many allocations in a row are denied."""
OF_MEMORY = ("allocate", "core", "mmap")


class Wrong(Exception):
    """An answer that is not the right one."""


def perform(play: Play, progress: list[int]) -> None:
    """Play all steps; ``progress`` holds how many have succeeded. Raises the error of the next."""
    for step in play.steps:
        result = step.call()
        if result != step.expected and step.expected != result:
            raise Wrong(f"{result!r:.200} instead of {step.expected!r:.200}")
        progress[0] += 1


class Attempt:
    """One play during which certain calls fail."""

    def __init__(
        self, target: str, name: str, function: str, outcome: int, first: int, count: int
    ) -> None:
        self.target, self.name, self.function = target, name, function
        self.outcome, self.first, self.count = outcome, first, count
        self.error: BaseException | None = None
        self.done = 0
        self.made = 0

    def __str__(self) -> str:
        which = f"call {self.first}" + (f" and {self.count - 1} more" if self.count > 1 else "")
        return f"{self.name}, {self.target}: {self.function} {name_of(self.outcome)}, {which}"

    def run(self, stage: Stage, number: int) -> list[str]:
        """Play it; return what is wrong."""
        order, server = stage.order, stage.server
        play = PLAYS[self.name](server, number)
        order.give(self.function, self.outcome, self.first, self.count, thread=self.thread(stage))
        started = time.monotonic()
        progress = [0]
        try:
            self.begin(stage)
            perform(play, progress)
        except Exception as error:
            self.error = error
        while not _ended(order):
            pass
        self.done = progress[0]
        seconds = time.monotonic() - started
        self.made = order.seen()[1]
        play.clean_up()
        if stage.supervisor.failure is not None:
            raise RuntimeError(f"{self}: {self.error!r}") from stage.supervisor.failure
        complaints = list(self._judged(stage, play, number))
        if seconds > PLAY_SECONDS_MAX:
            complaints.append(f"it took {seconds:.1f} s")
        return complaints

    def begin(self, stage: Stage) -> None:
        """Let it happen in who is meant."""
        if self.target == "next writer":
            stage.order.catch_next()
        elif self.target == "spare":
            eventually(lambda: stage.supervisor.spare_pid is not None)
            stage.order.begin(stage.supervisor.spare_pid or 0)
        else:
            stage.order.begin(
                (stage.server.writer_pid or 0) if self.target == "writer" else os.getpid()
            )

    def thread(self, stage: Stage) -> int:
        """In a thread that has just begun, and after a fork, Python itself survives no lack of
        memory."""
        if self.target == "supervisor":
            return stage.supervisor._thread.native_id or 0
        of_memory = self.target == "caller" and self.function in OF_MEMORY
        return threading.get_native_id() if of_memory else 0

    def _judged(self, stage: Stage, play: Play, number: int) -> Iterator[str]:
        if self.error is not None and (why := self._objection(self.error)):
            yield f"step {self.done}: {why}"
        error, self.error = self.error, None if self.error is None else _bare(self.error)
        del error
        keys = list(next(play.states(0, failed=False)))
        if keys:
            found = stored(stage.witness, keys)
            if not play.may_hold(found, self.done, failed=self.error is not None):
                yield f"after {self.done} steps and {self.error!r} there is {found!r:.300}"
        if play.client is not None:
            yield from _goes_on(play.client, number)
            play.client.close()
        stage.settled()
        emptied(stage.witness)
        yield from stage.witness.check()
        # What cannot be looked at or unlinked now, the next start removes.
        files = self.function not in ("stat", "unlink")
        yield from stage.left_behind(files=files, forgetful=self.function == "allocate")

    def _objection(self, error: BaseException) -> str:
        """Say why this error is not one that may come out; "" if it may."""
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, Wrong):
            return str(error)
        if self.outcome in UNSEEN:
            return f"nobody should notice, but {text}"
        accepted = self.outcome in (errno.ENOMEM, errno.ENOSPC) and isinstance(error, StoreFull)
        if self.name in ("view", "tie") and isinstance(error, LimitReached):
            return ""  # of mappings, or of what the writer needs to look at a process
        if self.target == "supervisor" and self.count == max(BURSTS):
            accepted = accepted or isinstance(error, RequestTimeout)  # each new writer comes later
        if self.target != "caller" and self.name not in ("start", "lazy start"):
            return "" if accepted else text
        no_lock = isinstance(error, RuntimeError) and "can't allocate" in text  # Python's words
        if self.outcome == errno.ENOMEM and (type(error) is MemoryError or no_lock):
            return ""
        if isinstance(error, ShmstoreError):
            if self.function == "stat" and isinstance(error, InvalidArgument):
                return ""  # what cannot be looked at cannot be used
            starts = self.name.endswith("start") and isinstance(error, WriterUnavailable)
            return "" if starts or accepted else f"that is not what happened: {text}"
        named = isinstance(error, OSError) and error.errno == self.outcome
        return "" if named else f"no named error: {text}"


def _ended(order: Order) -> bool:
    try:
        order.end()
    except MemoryError:
        return False
    return True


def _bare(error: BaseException) -> BaseException:
    """Return the error without what its traceback and its causes keep alive."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def _goes_on(client: shmstore.Client, number: int) -> Iterator[str]:
    if client.closed:
        return
    table = client.table(TABLE)
    try:
        client.timeout = 10.0
        table.put("again", number)
        if table["again"] != number:
            yield f"the client went on, and read {table['again']!r}"
    except Exception as error:
        yield f"the client does not go on: {type(error).__name__}: {error}"
