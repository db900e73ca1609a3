"""What hostile clients send, as events for a Bench: composed, mutated, cut anywhere."""

from __future__ import annotations

import random
import struct
from typing import Any

from shmstore import protocol

from .messages import HEAD, OPERATIONS, Composer

CORPUS_MAX = 3_000
FRESH = 3
"""One stream in so many is composed anew."""
CLIENTS = [bytes((number,)) * protocol.CLIENT_ID_BYTES for number in range(1, 4)]


class Streams:
    """Composes events; remembers those that led somewhere new."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.composer = Composer(rng)
        self.corpus: list[list[bytes]] = []
        self.at_hand: list[list[bytes]] = []
        """The requests in the last event, by stream, without their ids."""
        for operation in OPERATIONS:
            arguments = self.composer.arguments(operation)
            self.corpus.append(
                [self.composer.encoded(operation) + self.composer.encoded(arguments)]
            )

    def keep(self) -> None:
        """Remember what is at hand: more will be tried from there."""
        for bodies in self.at_hand:
            if len(self.corpus) < CORPUS_MAX:
                self.corpus.append(bodies)
            else:
                self.corpus[int(self.rng.random() * CORPUS_MAX)] = bodies

    def event(self) -> list[Any]:
        choice = self.rng.random()
        if choice < 0.005:
            return ["take over"]
        if choice < 0.02:
            return ["time", self.composer.one_of((0.5, 1.0, 61.0))]
        count = 1 if choice < 0.8 else 2 if choice < 0.95 else 3
        self.at_hand = [self._bodies() for _ in range(count)]
        pieces = []
        for number, bodies in enumerate(self.at_hand):
            data = self._stream(bodies, self.rng.choice(CLIENTS))
            pieces.append([[number, piece] for piece in self._pieces(data)])
        return ["talk", self._interleaved(pieces)]

    def _interleaved(self, pieces: list[list[list[Any]]]) -> list[list[Any]]:
        if len(pieces) == 1:
            return pieces[0]
        merged = [streams[0] for streams in pieces]
        rest = [streams[1:] for streams in pieces]
        while any(rest):
            streams = self.rng.choice([streams for streams in rest if streams])
            merged.append(streams.pop(0))
        return merged

    def _bodies(self) -> list[bytes]:
        composer = self.composer
        if composer.often(FRESH):
            return [composer.body() for _ in range(1 + int(self.rng.random() * 8))]
        bodies = list(composer.one_of(self.corpus))
        for _ in range(1 + int(self.rng.random() * 3)):
            at = int(self.rng.random() * len(bodies))
            choice = int(self.rng.random() * 5)
            if choice < 2:
                bodies[at] = composer.changed(bodies[at])
            elif choice == 2:
                bodies.insert(at, composer.body())
            elif choice == 3:
                bodies[at:at] = composer.one_of(self.corpus)
            elif len(bodies) > 1:
                del bodies[at]
        return bodies[:12]

    def _stream(self, bodies: list[bytes], client_id: bytes) -> bytes:
        composer, parts = self.composer, []
        if not composer.often(60):
            version: Any = protocol.PROTOCOL_VERSION
            if composer.often(60):
                version = composer.anything()
            hello = [0, 0, "hello", [version, client_id]]
            message = composer.encoded(composer.bent(hello) if composer.often(60) else hello)
            parts.append(self._framed(message))
        for request_id, body in enumerate(bodies, 1):
            parts.append(self._framed(HEAD + self._ids(request_id) + body))
        data = b"".join(parts)
        if composer.often(40):
            data = data[: int(self.rng.random() * len(data))]
        return data

    def _ids(self, request_id: int) -> bytes:
        composer = self.composer
        oldest: Any = max(0, request_id - int(self.rng.random() * 3))
        if composer.often(80):
            number: Any = composer.one_of((request_id, 0, 1, request_id + 200, protocol.ID_MAX))
            return composer.encoded(number) + composer.encoded(composer.one_of((number, oldest)))
        if composer.often(100):
            odd = composer.bomb() if composer.often(2) else composer.anything()
            return composer.encoded(composer.one_of((request_id, odd))) + composer.encoded(odd)
        return composer.encoded(request_id) + composer.encoded(oldest)

    def _framed(self, message: bytes) -> bytes:
        size = len(message)
        if self.composer.often(150):
            size = self.composer.one_of((-1, -2, -(1 << 31), 0, (1 << 31) - 1, size - 1, size + 1))
        if self.composer.often(150):
            return struct.pack(">iQ", -1, max(size, 0)) + message
        return struct.pack(">i", max(size, -(1 << 31))) + message

    def _pieces(self, data: bytes) -> list[bytes]:
        """Return the data cut: not at all, somewhere, or everywhere."""
        choice = self.rng.random()
        if choice < 0.6 or len(data) < 2:
            return [data]
        if choice < 0.97 or len(data) > 300:
            cuts = sorted(int(self.rng.random() * len(data)) for _ in range(3))
            return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        return [data[at : at + 1] for at in range(len(data))]
