"""A hostile client's end of a connection: what it sent and heard, and whether that is right."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack

from shmstore import protocol

LENGTH = struct.Struct(">i")


class Broken(Exception):
    """A promise did not hold."""


def frames(data: bytes) -> tuple[list[bytes], bool]:
    """Return the whole messages that a stream holds, and whether it breaks the rules after them."""
    messages: list[bytes] = []
    at = 0
    while at + 4 <= len(data):
        size, start = LENGTH.unpack_from(data, at)[0], at + 4
        if size == -1:
            if start + 8 > len(data):
                break
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if not 0 <= size <= protocol.FRAME_BYTES_MAX:
            return messages, True
        if start + size > len(data):
            break
        messages.append(data[start : start + size])
        at = start + size
    return messages, False


def unpacked(message: bytes) -> Any:
    try:
        return msgpack.unpackb(message, strict_map_key=False, timestamp=0)
    except Exception:
        return None


class Talker:
    """A client's end of a connection, that knows what it may expect."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.sent = bytearray()
        self.heard = bytearray()
        self.hung_up = False

    def send(self, data: bytes, turn: Callable[[], None]) -> None:
        """Send all of it, with turns of the writer where the socket is full."""
        while data and not self.hung_up:
            try:
                count = self.socket.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                turn()
                self.listen()
                continue
            except OSError:
                self.hung_up = True
                return self.listen()
            self.sent += data[:count]
            data = data[count:]

    def listen(self) -> None:
        """Take what has arrived."""
        with suppress(BlockingIOError):
            while True:
                try:
                    data = self.socket.recv(1 << 18)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self.hung_up = True
                    return
                self.heard += data

    def answers(self) -> list[bytes]:
        messages, broken = frames(bytes(self.heard))
        if broken:
            raise Broken("the writer's answers are no frames")
        return messages

    def comparable(self) -> list[Any]:
        """Return the answers but for what tells of the process, or of Python's own words."""
        asked = {request_id for request_id, what in self._asked() if what in ("stats", "hello")}
        told = []
        for message in self.answers():
            answer = unpacked(message)
            if answer[1] != 0 and answer[2].startswith("read "):
                told.append(answer[:2])
            elif answer[0] not in asked:
                told.append(message)
        return told

    def _asked(self) -> list[tuple[Any, Any]]:
        return [_head(request) for request in frames(bytes(self.sent))[0]]

    def is_answered(self) -> bool:
        """Tell whether nothing more is to come."""
        self.listen()
        return self.hung_up or (not frames(bytes(self.sent))[1] and self._missing() <= 0)

    def _missing(self) -> int:
        """Return how many answers are to come. Waits may go on."""
        asked, answers = self._asked(), [unpacked(message) for message in self.answers()]
        answered = {answer[0] for answer in answers if isinstance(answer, list) and answer}
        going_on = [each for each, what in asked if what == "wait" and each not in answered]
        return len(asked) - len(going_on) - len(answers)

    def judge(self, replaced: bool) -> int:
        """Raise Broken unless what was heard answers what was sent; return how many answers.

        ``replaced``: another connection may have taken the place of this one.
        """
        requests, broken = frames(bytes(self.sent))
        answers = [unpacked(message) for message in self.answers()]
        for answer in answers:
            judge_form(answer)
        refused = bool(answers) and answers[-1][0] == 0 and answers[-1][1] != 0
        asked = self._asked()
        # What was answered before is answered at once, what is new with its batch.
        strange = Counter(answer[0] for answer in answers[: len(answers) - refused])
        strange -= Counter(request_id for request_id, _ in asked)
        if strange:
            raise Broken(f"nobody asked for the answers {list(strange)}")
        if self.hung_up:
            goodbye = any(operation == "bye" for _, operation in asked)
            if not (refused or goodbye or replaced):
                raise Broken("the writer hung up without a reason")
        elif broken or self._missing():
            raise Broken(f"{len(requests)} requests have {len(answers)} answers")
        return len(answers)


def _head(request: bytes) -> tuple[Any, Any]:
    """Return the id and the operation of a request, None where there is none."""
    fields = unpacked(request)
    if not isinstance(fields, list) or len(fields) != 4 or not isinstance(fields[0], int):
        return None, None
    return fields[0], fields[2]


def judge_form(answer: Any) -> None:
    if not isinstance(answer, list) or len(answer) not in (3, 4) or not isinstance(answer[0], int):
        raise Broken(f"an answer is {answer!r:.300}")
    if answer[1] == 0:
        if len(answer) != 3:
            raise Broken(f"an answer is {answer!r:.300}")
    elif answer[1] == 1 or not isinstance(answer[2], str) or not isinstance(answer[3], dict):
        raise Broken(f"an error without a name: {answer!r:.300}")
