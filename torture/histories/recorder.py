"""Short histories of real processes: what each of them did, when, and what it was answered."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import zip_longest
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeAlias

import shmstore

from ..wing_gong import Operation
from .crew import Post, Words
from .plans import CLIENT_KILLED, READS, WRITER_KILLED, Plan
from .table_model import perform

KEYS = ["a", "b", "c"]
SPINS = 100
NAP_SECONDS = 0.0001


class Call(NamedTuple):
    """What a process is about to do."""

    name: str
    arguments: tuple[Any, ...]
    at: int


class Answer(NamedTuple):
    """What came of its last call."""

    at: int
    result: Any


Note: TypeAlias = Call | Answer | str
"""Text is how a child failed."""


class Recorder:
    """One of the processes; it takes part in those histories that have so many."""

    def __init__(self, client: shmstore.Client, words: Words, process: int, processes: int) -> None:
        self._client = client
        self._words = words
        self._process = process
        self._processes = processes

    def play(self, plan: Plan) -> list[Operation]:
        """Do this process's part; return what it did. All processes begin and end together."""
        takes_part = self._process < len(plan.turns)
        done: list[Operation] = []
        if self._process == 0 and plan.start:
            done += self._noted(plan, "put_many", plan.start)
        if takes_part and plan.does(CLIENT_KILLED, self._process):
            done += self._in_a_child(plan)
        else:
            notes: list[Note] = []
            self._take_part(plan, notes.append, takes_part)
            done += _operations(self._process, notes)
        self._meet(self._processes, plan.number)
        if self._process == 0:
            done += self._noted(plan, "copy", ())
        return done

    def _take_part(self, plan: Plan, note: Callable[[Note], None], takes_part: bool) -> None:
        kills = plan.does(WRITER_KILLED, self._process)
        writer = self._client.stats()["pid"] if kills and takes_part else None
        self._meet(0, plan.number)
        if not takes_part:
            return
        usual = self._client.timeout
        if plan.hasty == self._process:
            self._client.timeout = plan.timeout
        table = self._client.table(plan.table)
        versions: dict[int, int] = {}
        for at, turn in enumerate(plan.turns[self._process]):
            if writer is not None and at == plan.moment:
                _spin(plan.pause)
                os.kill(writer, signal.SIGKILL)
            _spin(turn.pause)
            name, arguments = turn.name, turn.arguments
            if name == "swap":
                arguments = arguments[0], versions.get(arguments[0], 0), arguments[2]
            note(Call(name, arguments, time.monotonic_ns()))
            try:
                result = perform(self._client, table, KEYS[: plan.keys], name, arguments)
            except shmstore.RequestTimeout:
                continue
            note(Answer(time.monotonic_ns(), result))
            if name in ("put", "get_versioned"):
                versions[arguments[0]] = result if name == "put" else result[0]
        self._client.timeout = usual

    def _in_a_child(self, plan: Plan) -> list[Operation]:
        """Have a child do this process's part, and kill it in the midst of it."""
        receiver, sender = get_context("fork").Pipe(duplex=False)
        child = os.fork()
        if not child:
            try:
                self._take_part(plan, sender.send, True)
            except BaseException:
                sender.send(traceback.format_exc())
            finally:
                os._exit(0)
        sender.close()
        notes: list[Note] = []
        try:
            while len(notes) <= 2 * plan.moment:
                notes.append(receiver.recv())
            _spin(plan.pause)
            os.kill(child, signal.SIGKILL)
            while True:
                notes.append(receiver.recv())
        except EOFError:
            pass
        os.waitpid(child, 0)
        receiver.close()
        return list(_operations(self._process, notes))

    def _noted(self, plan: Plan, name: str, arguments: tuple[Any, ...]) -> list[Operation]:
        table = self._client.table(plan.table)
        called = time.monotonic_ns()
        result = perform(self._client, table, KEYS[: plan.keys], name, arguments)
        return [Operation(self._process, name, arguments, called, time.monotonic_ns(), result)]

    def _meet(self, place: int, number: int) -> None:
        """Wait until all processes are here."""
        words = self._words[place : place + self._processes]
        words[self._process] = number + 1
        spins = 0
        while min(words) <= number:
            spins += 1
            if spins < SPINS:
                os.sched_yield()
            else:
                time.sleep(NAP_SECONDS)


def record(post: Post, client: shmstore.Client, words: Words, process: int, processes: int) -> None:
    """The job of a process: plays the plans it is sent, until there is none."""
    recorder = Recorder(client, words, process, processes)
    while plans := post.receive():
        post.send([recorder.play(plan) for plan in plans])
    post.send([])


def _spin(nanoseconds: int) -> None:
    end = time.monotonic_ns() + nanoseconds
    while time.monotonic_ns() < end:
        pass


def _operations(process: int, notes: list[Note]) -> Iterator[Operation]:
    """Put calls and answers together. Reads without an answer are left out: they change nothing."""
    for note, following in zip_longest(notes, notes[1:]):
        if isinstance(note, str):
            raise RuntimeError(f"a child failed:\n{note}")
        if isinstance(note, Call):
            if isinstance(following, Answer):
                yield Operation(process, *note, *following)
            elif note.name not in READS:
                yield Operation(process, *note)
