"""What processes may conclude from what they see while others write and the writer is killed.

Each process is forked and shares some words of memory with the others, by which they tell each
other what they have begun and what was acknowledged: an order that does not go through the store.
SHMSTORE_STRESS=N makes each storm N times as long.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from multiprocess import get_context

import shmstore
from tests.waiting import eventually, writer_of

LENGTH = int(os.environ.get("SHMSTORE_STRESS", "1"))
KILLS = 2
SECONDS_MAX = 110.0 * LENGTH

pytestmark = [pytest.mark.stress, pytest.mark.timeout(SECONDS_MAX)]

Words = memoryview
Job = Callable[[shmstore.Client, Words, random.Random], Any]


@pytest.fixture
def server() -> Iterator[shmstore.Server]:
    """A server so small that memory is used again as soon as it can be."""
    with shmstore.start(capacity="1MiB") as running:
        yield running


@pytest.fixture
def words() -> Iterator[Words]:
    """Words of 64 bits that all forked processes share; each store of one is atomic."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        bare = memoryview(memory)
        shared = bare.cast("Q")
        yield shared
        shared.release()
        bare.release()


@pytest.fixture
def seed() -> int:
    chosen = int.from_bytes(os.urandom(4), "little")
    print(f"seed {chosen}")
    return chosen


class Worker:
    """A forked process with a client of its own, and what becomes of its job."""

    def __init__(self, address: str, words: Words, seed: int, job: Job) -> None:
        context = get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(address, words, seed, job, sender))
        self._process.start()
        sender.close()

    def result(self) -> Any:
        """Wait for the end of the job; return its result or fail as it did."""
        try:
            failure, result = self._receiver.recv()
        except EOFError:
            failure, result = "the process ended without a word", None
        self._process.join()
        assert not failure, f"in a process:\n{failure}"
        return result

    def close(self) -> None:
        self._receiver.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _work(address: str, words: Words, seed: int, job: Job, sender: Any) -> None:
    try:
        with shmstore.connect(address, SECONDS_MAX) as client:
            outcome = "", job(client, words, random.Random(seed))
    except BaseException:
        outcome = traceback.format_exc(), None
    sender.send(outcome)
    sender.close()


@contextmanager
def working(address: str, words: Words, seed: int, jobs: list[Job]) -> Iterator[list[Worker]]:
    """All jobs at once, each in a process; they are gone afterwards, whatever happens."""
    workers: list[Worker] = []
    try:
        for i, job in enumerate(jobs):
            workers.append(Worker(address, words, seed + i, job))
        yield workers
    finally:
        for worker in workers:
            worker.close()


def kill_on_the_way(server: shmstore.Server, words: Words, at: int, end: int) -> None:
    """Kill the writer several times while the word at ``at`` grows to ``end``."""
    for kill in range(1, KILLS + 1):
        eventually(partial(_has_reached, words, at, end * kill // (KILLS + 1)))
        pid = writer_of(server)
        os.kill(pid, signal.SIGKILL)
        eventually(partial(_is_replaced, server, pid))


def _has_reached(words: Words, at: int, number: int) -> bool:
    return words[at] >= number


def _is_replaced(server: shmstore.Server, pid: int) -> bool:
    return server.writer_pid not in (None, pid)


# Increments

INCREMENTS = 300 * LENGTH
PROCESSES = 8


def increment(
    client: shmstore.Client, words: Words, rng: random.Random, *, which: int
) -> list[int]:
    """Increment one number many times, in each of the ways there are; return what came out."""
    table = client.table("t")
    sums: list[int] = []
    while len(sums) < INCREMENTS:
        chance = rng.random()
        if chance < 0.5:
            sums.append(table.increment("n"))
        elif chance < 0.7:
            with client.transaction() as tx:
                replies = [tx.table("t").increment("n") for _ in range(2)]
            sums += [reply.result() for reply in replies]
        else:
            with table.pipeline() as many:
                replies = [many.increment("n") for _ in range(5)]
            sums += [reply.result() for reply in replies]
        words[which] = len(sums)
    return sums


def test_increments_of_eight_processes_are_each_applied_once(
    server: shmstore.Server, words: Words, seed: int
) -> None:
    """No two of them have the same result, none is missing, and the writer is killed meanwhile."""
    jobs: list[Job] = [partial(increment, which=which) for which in range(PROCESSES)]
    with working(server.address, words, seed, jobs) as workers:
        kill_on_the_way(server, words, 0, INCREMENTS)
        sums = [total for worker in workers for total in worker.result()]
    assert len(sums) >= PROCESSES * INCREMENTS
    assert sorted(sums) == list(range(1, len(sums) + 1))
    assert server.table("t")["n"] == len(sums)
    assert server.client.check() == []


# Linearizability

REGISTERS = 2
WRITES = 1500 * LENGTH
STOP = 100


def begun(which: int) -> int:
    return which * 2


def acknowledged(which: int) -> int:
    return which * 2 + 1


def write(client: shmstore.Client, words: Words, rng: random.Random, *, which: int) -> int:
    """Write ever larger numbers into a register, saying what is begun and what is done."""
    table = client.table("registers")
    for number in range(1, WRITES + 1):
        words[begun(which)] = number
        padding = b"p" * rng.choice((0, 100, 5000))
        if rng.random() < 0.2:
            with client.transaction() as tx:
                tx.table("registers").delete(f"r{which}")
                tx.table("registers")[f"r{which}"] = [number, padding]
        else:
            table[f"r{which}"] = [number, padding]
        words[acknowledged(which)] = number
    return WRITES


def watch(client: shmstore.Client, words: Words, rng: random.Random) -> int:
    """Read the registers in each of the ways there are; return how often."""
    table = client.table("registers")
    last = [(0, 0)] * REGISTERS
    reads = 0
    ways: list[Callable[[str], tuple[int, Any]]] = [
        table.get_versioned,
        lambda key: (0, table.get(key)),
        lambda key: (0, table.get_many([key, "none"]).get(key)),
        lambda key: (0, dict(table.items()).get(key)),
    ]
    while not words[STOP]:
        which = rng.randrange(REGISTERS)
        done = words[acknowledged(which)]
        version, value = rng.choice(ways)(f"r{which}")
        started = words[begun(which)]
        seen = 0 if value is None else value[0]
        assert done <= seen, "what was acknowledged before the call is not seen"
        assert seen <= started, "what was not begun before the return is seen"
        assert seen >= last[which][0], "time goes back"
        if version:
            assert version >= last[which][1], "versions go back"
            assert (version > last[which][1]) == (seen > last[which][0]) or not last[which][1]
            last[which] = seen, version
        else:
            last[which] = seen, last[which][1] if seen == last[which][0] else 0
        reads += 1
    return reads


def test_reads_lie_between_what_was_acknowledged_and_what_was_begun(
    server: shmstore.Server, words: Words, seed: int
) -> None:
    jobs: list[Job] = [partial(write, which=which) for which in range(REGISTERS)]
    with working(server.address, words, seed, [*jobs, watch, watch]) as workers:
        kill_on_the_way(server, words, acknowledged(0), WRITES)
        for writer in workers[:REGISTERS]:
            assert writer.result() == WRITES
        words[STOP] = 1
        reads = [watcher.result() for watcher in workers[REGISTERS:]]
    print(f"reads {reads}")
    assert min(reads) > 0
    assert server.client.check() == []


# Snapshots of lists

THINGS = 40
SWAPS = 500 * LENGTH


class Things(shmstore.Store):
    """As many of them as ever, half of them on."""

    table, resource, prefix = "things", "thing", "th"
    indexes = ("on",)


def swap(client: shmstore.Client, words: Words, rng: random.Random, *, which: int) -> None:
    """Let one thing go and another one come, and one switched on as another is switched off."""
    things = Things(client)
    own = [(f"th_{which}_{i}", i % 2 == 0) for i in range(THINGS // 2)]
    for number in range(SWAPS):
        gone, on = own.pop(rng.randrange(len(own)))
        key = f"th_{which}_new{number}"
        with client.transaction() as tx:
            Things(tx).delete(gone)
            Things(tx).insert({"id": key, "created": rng.randrange(5), "on": on})
        own.append((key, on))
        lit = rng.choice([i for i, (_, on) in enumerate(own) if on])
        dark = rng.choice([i for i, (_, on) in enumerate(own) if not on])
        with client.transaction() as tx:
            Things(tx).patch(own[lit][0], on=False)
            Things(tx).patch(own[dark][0], on=True)
        own[lit], own[dark] = (own[lit][0], False), (own[dark][0], True)
        words[which] = number + 1
    assert {one["id"] for one in things.find(on=True)} >= {key for key, on in own if on}


def survey(client: shmstore.Client, words: Words, rng: random.Random) -> int:
    """Look at the things in each of the ways there are; return how often."""
    things = Things(client)
    looks = 0
    while not words[STOP]:
        assert things.count() == THINGS, "a transaction was seen by half"
        page = things.list(limit=100)
        assert (len(page.data), page.has_more) == (THINGS, False)
        created = [one["created"] for one in page.data]
        assert created == sorted(created, reverse=True)
        assert len({one["id"] for one in page.data}) == THINGS
        for on in (True, False):
            found = things.find(on=on)
            assert len(found) == THINGS // 2, "a switch was seen by half"
            assert all(one["on"] is on for one in found)
        short = things.list(limit=rng.randrange(1, THINGS))
        assert short.has_more
        assert len(things.list_namespace("global")) == THINGS
        assert len(things.get_many(one["id"] for one in short.data)) <= len(short.data)
        looks += 1
    return looks


def test_pages_counts_and_indexes_are_snapshots(
    server: shmstore.Server, words: Words, seed: int
) -> None:
    records = [
        {"id": f"th_{which}_{i}", "created": i % 5, "on": i % 2 == 0}
        for which in range(2)
        for i in range(THINGS // 2)
    ]
    Things(server.client).insert_many(records)
    jobs: list[Job] = [partial(swap, which=which) for which in range(2)]
    with working(server.address, words, seed, [*jobs, survey, survey]) as workers:
        kill_on_the_way(server, words, 0, SWAPS)
        for swapper in workers[:2]:
            swapper.result()
        words[STOP] = 1
        looks = [surveyor.result() for surveyor in workers[2:]]
    print(f"looks {looks}")
    assert min(looks) > 0
    assert Things(server.client).count() == THINGS
    assert server.client.check() == []
