"""The writer in this process, turn by turn, with hostile clients and one that must not suffer.

What is done to it is a list of plain values, an event, so that it can be kept and done again:
["talk", [[connection, bytes], ...]], ["time", seconds], ["take over"].
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import msgpack

from shmstore import protocol, segment
from shmstore.codec import pack
from shmstore.engine import Owner
from shmstore.writer import trouble
from shmstore.writer.loop import Loop

from .talker import LENGTH, Broken, Talker, judge_form, unpacked

CAPACITY = 4 << 20
STEP_SECONDS_MAX = 10.0
"""A turn that takes longer is a hang."""
TURNS_MAX = 300
"""Turns in which a request without further ado must be answered."""
MEMORY_BYTES_MAX = 1 << 30
FULL = 4
"""The code of the error that a store without room gives."""
VICTIM = b"the innocent one"


def resident_bytes() -> int:
    """Return how much memory this process takes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Bench:
    """One life of a store, whose writers may follow each other."""

    def __init__(self, owner_type: Any = Owner) -> None:
        self._cleanup = ExitStack()
        folder = self._cleanup.enter_context(TemporaryDirectory(prefix="shm-"))
        self.path = f"{folder}/socket"
        self.full = False
        self.answers = 0
        self.heard: list[list[Any]] = []
        """What each connection of the last event was answered, but for the statistics."""
        self.longest = 0.0
        """Seconds of the longest turn."""
        self._now = 1000.0
        self._owner_type = owner_type
        self._fd = segment.create(CAPACITY)
        self._cleanup.callback(os.close, self._fd)
        self._reader_fd = segment.open_readonly(self._fd)
        self._cleanup.callback(os.close, self._reader_fd)
        self._memory = segment.map_writable(self._fd)
        self._cleanup.callback(self._memory.close)
        extents = segment.Extents(self._fd, self._memory)
        self._real = extents.extend, extents.release
        self.owner = owner_type.create(self._memory, *self._real)
        self._listener = self._cleanup.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(self.path)
        self._listener.listen()
        self._logged: list[str] = []
        self.loop = self._new_loop()
        self._victim = Victim(self)

    def _new_loop(self) -> Loop:
        return Loop(self.owner, self._listener, self._reader_fd, lambda: self._now)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._victim.talker.socket.close()
        self.loop.close()
        self.owner.close()
        self._cleanup.close()

    def turn(self) -> None:
        """Have the writer do what there is to do."""
        started = time.perf_counter()
        self.loop.step()
        seconds = time.perf_counter() - started
        self.longest = max(self.longest, seconds)
        if seconds > STEP_SECONDS_MAX:
            raise Broken(f"a turn took {seconds:.1f} s")

    def do(self, event: list[Any]) -> None:
        """Let something happen; raise Broken if a promise does not hold."""
        kind, *rest = event
        self.heard = []
        with _log_of_writer(self._logged):
            if kind == "talk":
                self._talk(*rest)
            elif kind == "time":
                self._now += rest[0]
                self.turn()
            else:
                self._take_over()
            self._victim.visit()
        if self._logged:
            raise Broken(f"the writer says: {self._logged[0]:.300}")

    def _talk(self, pieces: list[tuple[int, bytes]]) -> None:
        talkers = [Talker(self.path) for _ in range(1 + max(number for number, _ in pieces))]
        for number, piece in pieces:
            talkers[number].send(piece, self.turn)
            self.turn()
        for _ in range(TURNS_MAX):
            if all([talker.is_answered() for talker in talkers]):
                break
            self.turn()
        for talker in talkers:
            self.answers += talker.judge(len(talkers) > 1)
            talker.socket.close()
        self.heard = [talker.comparable() for talker in talkers]
        self.turn()
        self.turn()

    def _take_over(self) -> None:
        self.loop.close()
        self.owner.close()
        self.owner = self._owner_type.take_over(self._memory, *self._real)
        self.loop = self._new_loop()
        self._victim.come_back()

    def end(self) -> None:
        """Raise Broken unless everything is sound in the end."""
        problems = self._victim.ask("check")
        if problems:
            raise Broken(f"check says {problems[:3]}")
        resident = resident_bytes()
        if resident > MEMORY_BYTES_MAX:
            raise Broken(f"the writer's process takes {resident >> 20} MiB of memory")


class Victim:
    """A client that behaves: what it wrote stays as it is, whatever the others do."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._next_id = 1
        self._last: tuple[int, str, list[Any], Any] | None = None
        self._total = 0
        self.talker = Talker(bench.path)
        self._hello()
        record = pack({"id": "i", "created": 7, "kind": "still"})
        self.ask("declare", "innocent store", "x", ["kind"])
        self.ask("upsert", "innocent store", "innocent", "i", record)
        self.ask("put", "innocent", "", b"i", record)
        self._record = record

    def _hello(self) -> None:
        self._send(0, "hello", [protocol.PROTOCOL_VERSION, VICTIM])
        if self._answer(0)[1] != 0:
            raise Broken("the innocent client is not welcome")

    def _send(self, request_id: int, operation: str, arguments: list[Any]) -> None:
        message = msgpack.packb([request_id, request_id, operation, arguments])
        self.talker.send(LENGTH.pack(len(message)) + message, self._bench.turn)

    def _answer(self, request_id: int) -> Any:
        for _ in range(TURNS_MAX):
            self._bench.turn()
            self.talker.listen()
            answers = self.talker.answers()
            if answers:
                self.talker.heard.clear()
                answer = unpacked(answers[0])
                judge_form(answer)
                if len(answers) != 1 or answer[0] != request_id:
                    raise Broken(f"the innocent client hears {answer!r:.300}")
                return answer
        raise Broken("the innocent client is not answered")

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Return the result; None if the store is full, which is noted."""
        request_id, self._next_id = self._next_id, self._next_id + 1
        self._send(request_id, operation, list(arguments))
        answer = self._answer(request_id)
        if answer[1] == FULL:
            self._bench.full = True
            return None
        if answer[1] != 0:
            raise Broken(f"the innocent client's {operation} fails: {answer!r:.300}")
        self._last = request_id, operation, list(arguments), answer[2]
        return answer[2]

    def visit(self) -> None:
        """Count, and see whether everything is as it was left."""
        total = self.ask("increment", "innocent", "", b"n", None, 1, 0, None, None, False)
        if total is not None:
            self._total += 1
            if total != self._total:
                raise Broken(f"the innocent client counted to {self._total} and finds {total}")
        reader = self._bench.owner.reader
        for place, key in ((("innocent", ""), b"i"), (("innocent store", "innocent"), "i")):
            if reader.get(reader.scope(*place), key) != self._record:
                raise Broken(f"a record of the innocent client was changed in {place}")
        if (reader.count("innocent", ""), reader.count("innocent store", "innocent")) != (2, 1):
            raise Broken("the innocent client's tables count differently")

    def come_back(self) -> None:
        """Connect to the next writer, and ask again for what was answered: it is not done again."""
        self.talker.socket.close()
        self.talker = Talker(self._bench.path)
        self._hello()
        if self._last is not None and self._last[1] in protocol.MUTATIONS:
            request_id, operation, arguments, result = self._last
            self._send(request_id, operation, arguments)
            answer = self._answer(request_id)
            if answer[1:] != [0, result]:
                raise Broken(f"the next writer answers {answer!r:.300} and not {result!r:.300}")


@contextmanager
def _log_of_writer(lines: list[str]) -> Iterator[None]:
    with mock.patch.object(trouble, "log", lines.append):
        yield
