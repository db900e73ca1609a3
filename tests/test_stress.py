"""Readers and clients in processes of their own, at once, while the writer is killed.

Each value certifies itself; keys that are written together are read together; what was
acknowledged is seen by whoever reads later. SHMSTORE_STRESS=N makes it N times as long.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from multiprocess import get_context

import shmstore
from shmstore.server import Server
from tests.waiting import eventually, writer_of

ROUNDS = 1000 * int(os.environ.get("SHMSTORE_STRESS", "1"))
CLIENTS, READERS, KILLS, KEYS = 2, 2, 2, 12
SECONDS_MAX = 240.0


class Notes(shmstore.Store):
    """Records whose number is also their place."""

    table, resource, prefix = "notes", "note", "no"
    indexes = ("parity",)


def certified(number: int) -> dict[str, Any]:
    """A record of a size that depends on its number, with a digest of all of it."""
    padding = "x" * (number % 97 * 40)
    digest = hashlib.sha256(f"{number}{padding}".encode()).hexdigest()
    return {"number": number, "padding": padding, "digest": digest}


def change(address: str, which: int, seed: int) -> None:
    """A client: replaces, deletes, writes pairs, and inserts and deletes notes."""
    rng = random.Random(seed)
    with shmstore.connect(address, SECONDS_MAX) as client:
        table, notes = client.table("t"), Notes(client)
        for number in range(ROUNDS):
            key = f"k{rng.randrange(KEYS)}"
            if rng.random() < 0.15:
                table.delete(key)
            else:
                table[key] = certified(rng.randrange(1_000_000))
            version = table.put(f"mine{which}", certified(number))
            table[f"mirror{which}"] = version
            assert table.version(f"mine{which}") == version
            with client.transaction() as tx:
                tx.table("left")[f"pair{which}"] = number
                tx.table("t")[f"pair{which}"] = number
                tx.table("t").increment("sum", by=2)
            note = {"id": f"no_{which}_{number}", "created": number // 10, "parity": number % 2}
            notes.insert(note)
            notes.delete(f"no_{which}_{number - 30}")


def look(address: str, results: Any) -> None:
    """A reader, until it is told to stop; reports how often it looked, or what it saw."""
    with shmstore.connect(address, SECONDS_MAX) as client:
        table, notes = client.table("t"), Notes(client)
        seen = dict.fromkeys((f"mine{which}" for which in range(CLIENTS)), (0, -1))
        rounds = 0
        while "stop" not in table:
            rounds += 1
            for key in (f"k{i}" for i in range(KEYS)):
                record = table.get(key)
                assert record is None or record == certified(record["number"]), "torn"
            for which in range(CLIENTS):
                seen[f"mine{which}"] = follow(table, which, seen[f"mine{which}"])
            total = table.get_many(["sum", "pair0", "pair1"])
            assert total.get("sum", 0) % 2 == 0
            assert sum(total.get(f"pair{which}", -1) + 1 for which in range(CLIENTS)) * 2 == (
                total.get("sum", 0)
            ), "keys written together were seen apart"
            page = notes.list(limit=100).data
            places = [(note["created"], note["id"]) for note in page]
            assert [created for created, _ in places] == sorted(
                (created for created, _ in places), reverse=True
            )
            assert len(set(places)) == len(places)
            assert all(note["parity"] == 1 for note in notes.find(parity=1))
        results.send(rounds)


def follow(table: Any, which: int, before: tuple[int, int]) -> tuple[int, int]:
    """Read what one client wrote last: never older than before, nor than it said it was."""
    acknowledged = table.get(f"mirror{which}", 0)
    version, record = table.get_versioned(f"mine{which}")
    if record is None:
        assert before == (0, -1)
        assert acknowledged == 0
        return before
    assert version >= acknowledged, "an acknowledged mutation is not seen"
    assert (version, record["number"]) >= before, "time went back"
    assert record == certified(record["number"]), "torn"
    return version, record["number"]


@pytest.mark.timeout(SECONDS_MAX)
def test_readers_clients_and_a_writer_that_is_killed(server: Server) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    context = get_context("spawn")
    clients = [
        context.Process(target=change, args=(server.address, which, seed + which))
        for which in range(CLIENTS)
    ]
    pipes = [context.Pipe(duplex=False) for _ in range(READERS)]
    readers = [context.Process(target=look, args=(server.address, end)) for _, end in pipes]
    table = server.table("t")
    for process in (*clients, *readers):
        process.start()
    for _, end in pipes:
        end.close()
    for kill in range(KILLS):
        part = ROUNDS * (kill + 1) // (KILLS + 1)
        eventually(partial(reached, table, part))
        os.kill(writer_of(server), signal.SIGKILL)
    for process in clients:
        process.join()
    table["stop"] = True
    looked = [receive(pipe) for pipe, _ in pipes]
    for process in readers:
        process.join()
    assert [process.exitcode for process in (*clients, *readers)] == [0] * (CLIENTS + READERS)
    assert all(rounds > 0 for rounds in looked)
    assert table["sum"] == 2 * CLIENTS * ROUNDS
    assert Notes(server.client).count() == 30 * CLIENTS
    assert server.client.check() == []


def reached(table: Any, rounds: int) -> bool:
    return bool(table.get("pair0", 0) >= rounds)


def receive(pipe: Any) -> int:
    """Return what a reader reports; 0 if it ended without."""
    with pipe, suppress(EOFError):
        return int(pipe.recv())
    return 0
