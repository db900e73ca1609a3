"""Writes: one acknowledged put beside a bare ping-pong, and batches beside LMDB's."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Any

from shmstore import protocol
from shmstore.codec import pack

from .. import rivals
from ..arena import Arena
from ..processes import Desk, Worker
from ..records import SEED, Dataset, key_of
from .contest import Contestant, contest
from .lookups import LMDB_EACH, required, session_in

BATCH = 1_000
PUTS = 10_000
VERSION = 1_000_000
"""Of about the length that request numbers and versions have while this is measured."""


def acknowledged(rounds: int) -> dict[str, float]:
    """Measure put(), and as many bytes there and back between two Python processes.

    Both once with the two processes on a core each, and once together on one: left alone, the
    scheduler goes from one to the other as it likes, which says more than what is measured.
    """
    first, *others = cores = sorted(os.sched_getaffinity(0))
    try:
        apart = _acknowledged(rounds, [first], others or [first])
        beside = _acknowledged(rounds // 2, [first], [first])
    finally:
        os.sched_setaffinity(0, cores)
    return {**apart, **{f"{name}, on one core": value for name, value in beside.items()}}


def _acknowledged(rounds: int, here: list[int], there: list[int]) -> dict[str, float]:
    dataset = Dataset(BATCH)
    pairs = [(key_of(number), dataset.record(number + 1)) for number in dataset.sequence(SEED)]
    sent, answered = frame_sizes(*pairs[0])
    with ExitStack() as stack:
        arena = stack.enter_context(Arena(rivals.OURS, dataset))
        arena.load()
        session = session_in(stack, arena)
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        partner = Worker(rivals.OURS, None)
        stack.callback(partner.stop)
        for pid in (*arena.pids, partner.pid):
            os.sched_setaffinity(pid, there)
        os.sched_setaffinity(0, here)
        with theirs:
            partner.ask(echo, theirs, sent, answered)
        message = bytes(sent)

        def ping() -> None:
            ours.send(message)
            received = ours.recv(1 << 16)
            assert len(received) == answered

        contestants = {
            "put": Contestant(required(session.put), pairs, arity=2),
            "ping-pong": Contestant(ping, [None] * BATCH, arity=0),
        }
        figures = contest(contestants, rounds)
        ours.shutdown(socket.SHUT_RDWR)
        partner.hear()
    return {**figures, "bytes of a put": float(sent), "bytes of its answer": float(answered)}


def frame_sizes(key: str, record: Any) -> tuple[int, int]:
    """Return the bytes on the socket of a put, and of the answer to it."""
    arguments = ["records", "", key, pack(record)]
    request = protocol.build_request(VERSION, VERSION, "put", arguments)
    answer = protocol.build_answer(VERSION, VERSION)
    return len(protocol.frame(request)), len(protocol.frame(answer))


def echo(desk: Desk, connected: socket.socket, expected: int, answered: int) -> None:
    """Answer each message until the other side hangs up."""
    message = bytes(answered)
    with connected:
        while received := connected.recv(1 << 16):
            assert len(received) == expected
            connected.send(message)


def batched(rounds: int, dataset: Dataset) -> dict[str, float]:
    """Measure put_many and a pipeline, and LMDB's puts in one transaction, per record."""
    numbers = dataset.sequence(SEED)[:PUTS]
    pairs = [(key_of(number), dataset.record(number + 1)) for number in numbers]
    lists = [pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH)]
    encoded = [[(key.encode(), record) for key, record in each] for each in lists]
    with ExitStack() as stack:
        sessions = []
        for name in (rivals.OURS, LMDB_EACH):
            arena = stack.enter_context(Arena(name, dataset))
            arena.load()
            sessions.append(session_in(stack, arena))
        ours, theirs = sessions
        size = len(lists[0])
        contestants = {
            "put_many": Contestant(required(ours.put_batch), lists, scale=size),
            "pipelined puts": Contestant(required(ours.put_pipelined), lists, scale=size),
            "lmdb puts in one txn": Contestant(
                required(theirs.put_one_by_one), encoded, scale=size
            ),
            "lmdb putmulti": Contestant(required(theirs.put_batch), encoded, scale=size),
        }
        figures = contest(contestants, rounds)
    best = min(figures["put_many"], figures["pipelined puts"])
    return {**figures, "best of batched and pipelined": best}
