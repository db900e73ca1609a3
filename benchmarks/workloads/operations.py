"""What is called, with what, in which process: the tasks of the workers."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import machine, rivals
from ..histogram import Histogram
from ..processes import Desk
from ..records import RARE, SEED, Dataset, key_of, missing_key_of
from ..timing import Measured, measure

MANY = 100
"""Keys of one get_many, and puts of one pipeline."""
BATCH = 1_000
"""Records of one batch."""
WRITTEN_BYTES_MAX = 64 << 20
"""Most bytes of records that are prepared for one put after the other."""
COUNTER = "counter"
PAUSE_SECONDS = 0.001
READS = 200_000
READ_SECONDS_MAX = 15.0
"""How much is read, spread over the table, before a reader's memory is measured."""

Key = Callable[[str], Any]


@dataclass(frozen=True)
class Operation:
    """A call of a session: which, with how many arguments, for how many operations."""

    method: str
    arity: int
    scale: int
    arguments: Callable[[Dataset, Key], list[Any]]


def some_keys(dataset: Dataset, native: Key) -> list[Any]:
    """Return the keys of random records."""
    return [native(key_of(number)) for number in dataset.sequence(SEED)]


def missing_keys(dataset: Dataset, native: Key) -> list[Any]:
    """Return as many keys that no record has."""
    return [native(missing_key_of(number)) for number in dataset.sequence(SEED)]


def lists_of_keys(dataset: Dataset, native: Key) -> list[Any]:
    """Return lists of random keys."""
    keys = some_keys(dataset, native)
    size = min(MANY, len(keys))
    return [keys[at : at + size] for at in range(0, len(keys) - size + 1, size)]


def new_records(dataset: Dataset, native: Key) -> list[Any]:
    """Return (key, new record) for random records that are there: each put replaces one."""
    count = max(10, min(10 * BATCH, WRITTEN_BYTES_MAX // dataset.value_bytes()))
    numbers = dataset.sequence(SEED + 1)[:count]
    return [(native(key_of(number)), dataset.record(number + 1)) for number in numbers]


def lists_of_records(size: int) -> Callable[[Dataset, Key], list[Any]]:
    """Return what makes lists of so many (key, new record)."""

    def lists(dataset: Dataset, native: Key) -> list[Any]:
        pairs = new_records(dataset, native)
        return [pairs[at : at + size] for at in range(0, max(1, len(pairs) - size + 1), size)]

    return lists


def one_counter(dataset: Dataset, native: Key) -> list[Any]:
    """Return the same key again and again."""
    return [native(COUNTER)] * BATCH


def one_status(dataset: Dataset, native: Key) -> list[Any]:
    """Return the status that few records have."""
    return [RARE] * BATCH


def no_arguments(dataset: Dataset, native: Key) -> list[Any]:
    """Return the number of calls, as a list."""
    return [None] * BATCH


OPERATIONS = {
    "get raw": Operation("get_raw", 1, 1, some_keys),
    "get decoded": Operation("get", 1, 1, some_keys),
    "get one field": Operation("get_field", 1, 1, some_keys),
    "get missing": Operation("get_raw", 1, 1, missing_keys),
    "get 100 decoded": Operation("get_many", 1, MANY, lists_of_keys),
    "put": Operation("put", 2, 1, new_records),
    "put pipelined": Operation("put_pipelined", 1, MANY, lists_of_records(MANY)),
    "put in batches": Operation("put_batch", 1, BATCH, lists_of_records(BATCH)),
    "increment": Operation("increment", 1, 1, one_counter),
    "list 10 newest": Operation("list_newest", 0, 1, no_arguments),
    "count": Operation("count", 0, 1, no_arguments),
    "find 10": Operation("find", 1, 1, one_status),
}
RAW = ("get raw", "get missing")
"""Look up bytes: who stores Python objects is given msgpack for these."""


def time_calls(
    desk: Desk, name: str, dataset: Dataset, seconds: float, server_pids: list[int]
) -> Measured | None:
    """Time one operation for so long; None if the rival cannot do it. Starts with the others."""
    operation = OPERATIONS[name]
    call = getattr(desk.connected(), operation.method)
    if call is None:
        return None
    prepared = desk.kept.get("arguments")
    if prepared is None or prepared[0] != (name, dataset):
        native = rivals.load(desk.rival).key
        prepared = (name, dataset), operation.arguments(dataset, native)
        if desk.session is not None and desk.session.prepare is not None:
            desk.session.prepare(some_keys(dataset, native), operation.method == "put")
        desk.kept["arguments"] = prepared
    arguments = prepared[1]
    scale = operation.scale if operation.scale == 1 else len(arguments[0])

    def server_cpu() -> int:
        return sum(map(machine.cpu_ns_of, server_pids))

    return measure(call, arguments, operation.arity, scale, seconds, desk.start, server_cpu)


def pin(desk: Desk, cores: list[int]) -> None:
    """Keep this process to these cores."""
    os.sched_setaffinity(0, cores)


def flood(desk: Desk, dataset: Dataset, seconds: float) -> int | None:
    """Write without a pause for so long, the fastest way there is; return the records written.

    Starts with the others. None if the rival cannot write.
    """
    session, native = desk.connected(), rivals.load(desk.rival).key
    many = session.put_pipelined or session.put_batch
    if many is None and session.put is None:
        return None
    lists = lists_of_records(MANY)(dataset, native)
    desk.start()
    written, end = 0, time.monotonic() + seconds
    while True:
        for pairs in lists:
            if time.monotonic() > end:
                return written
            if many is not None:
                many(pairs)
            else:
                for key, record in pairs:
                    session.put(key, record)  # type: ignore[misc]  # tested above
            written += len(pairs)


def count_up(desk: Desk, times: int) -> bool:
    """Increment so often; False if the rival cannot. Starts with the others."""
    increment, native = desk.connected().increment, rivals.load(desk.rival).key
    if increment is None:
        return False
    key = native(COUNTER)
    desk.start()
    for _ in range(times):
        increment(key)
    return True


def counted(desk: Desk) -> int:
    """Return what the increments have made so far."""
    counter, native = desk.connected().counter, rivals.load(desk.rival).key
    assert counter is not None
    return int(counter(native(COUNTER)))


def time_attaching(desk: Desk, times: int) -> list[int]:
    """Return the nanoseconds from nothing to the first record read, each time anew."""
    native, taken = rivals.load(desk.rival).key, []
    for _ in range(times):
        desk.disconnect()
        gc.collect()
        begin = time.perf_counter_ns()
        get = desk.connected().get
        assert get is not None
        get(native(key_of(0)))
        taken.append(time.perf_counter_ns() - begin)
    return taken


def private_memory(desk: Desk, dataset: Dataset | None) -> dict[str, int]:
    """Return the memory of this process alone; with a dataset, after reading it all over.

    Without one, the rival's modules are there, and nothing is connected.
    """
    native = rivals.load(desk.rival).key
    if dataset is not None:
        session = desk.connected()
        assert session.get is not None
        end = time.monotonic() + READ_SECONDS_MAX
        for number in range(0, dataset.records, max(1, dataset.records // READS)):
            session.get(native(key_of(number)))
            if time.monotonic() > end:
                break
    gc.collect()
    return machine.private_bytes_of()


def grow(desk: Desk, dataset: Dataset, batch: int) -> tuple[Histogram, float] | None:
    """Store a dataset write by write, each acknowledged; return (latencies, seconds).

    None if the rival cannot. A write is of ``batch`` records. Starts with the others.
    """
    session, native = desk.connected(), rivals.load(desk.rival).key
    if session.put is None or (batch > 1 and session.put_batch is None):
        return None
    clock, taken = time.perf_counter_ns, list[int]()
    desk.start()
    for first in range(0, dataset.records, batch):
        numbers = range(first, min(first + batch, dataset.records))
        pairs = [(native(key_of(number)), dataset.record(number)) for number in numbers]
        begin = clock()
        if batch == 1:
            session.put(*pairs[0])
        else:
            session.put_batch(pairs)  # type: ignore[misc]  # tested above
        taken.append(clock() - begin)
    return Histogram.of(taken), sum(taken) / 1e9


def read_now_and_then(desk: Desk, flag: str) -> Histogram:
    """Read the first record every millisecond until the file ``flag`` is there; time the reads."""
    get, key = desk.connected().get, rivals.load(desk.rival).key(key_of(0))
    assert get is not None
    clock, taken = time.perf_counter_ns, list[int]()
    desk.start()
    while not os.path.exists(flag):
        time.sleep(PAUSE_SECONDS)
        begin = clock()
        get(key)
        taken.append(clock() - begin)
    return Histogram.of(taken)
