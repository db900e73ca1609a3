"""Lookups side by side in one process: shmstore, a dict, LMDB both ways, Manager's proxies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import msgpack

from .. import rivals
from ..arena import Arena
from ..records import SEED, Dataset, key_of
from ..rivals.base import Session
from .contest import Contestant, contest
from .listed import HOT, RANDOM

HOT_KEYS = 1_000
SMALL = 1_000
LMDB_LONG, LMDB_EACH = "lmdb", "lmdb, txn per get"


def session_in(stack: ExitStack, arena: Arena) -> Session:
    """Return a session of this process with an arena, which ends with the stack."""
    session = arena.kind.connect(arena.address)
    stack.callback(session.close)
    return session


def required(call: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return a call of a session that is known to have it."""
    assert call is not None
    return call


def lookups(rounds: int, dataset: Dataset) -> dict[str, float]:
    """Measure a table of few keys, which are hot, and random keys of a large one."""
    few = Dataset(HOT_KEYS, dataset.value)
    figures = lookups_in(rounds, few, HOT, repeats=dataset.records // HOT_KEYS)
    return figures | lookups_in(rounds, dataset, RANDOM)


def lookups_in(rounds: int, dataset: Dataset, label: str, repeats: int = 1) -> dict[str, float]:
    """Measure all keys of one table in random order, over and over."""
    with ExitStack() as stack:
        sessions = {}
        for name in (rivals.OURS, LMDB_LONG, LMDB_EACH):
            arena = stack.enter_context(Arena(name, dataset))
            arena.load()
            sessions[name] = session_in(stack, arena)
        records = {key: msgpack.packb(record) for key, record in dataset.items(packed=False)}
        keys = [key_of(number) for number in dataset.sequence(SEED)] * repeats
        measured = contest(entered(sessions, records, keys), rounds)
    return {f"{name}, {label}": cost for name, cost in measured.items()}


def entered(
    sessions: dict[str, Session], records: dict[str, bytes], keys: list[str]
) -> dict[str, Contestant]:
    """Return the contestants by figure, for these keys."""
    ours, unpack = sessions[rivals.OURS], msgpack.unpackb
    encoded = [key.encode() for key in keys]
    get = required(ours.get)

    def unpacked(key: str) -> Any:
        return unpack(records[key])

    calls: dict[str, tuple[Callable[..., Any], list[Any]]] = {
        "dict.get": (records.get, keys),
        "get_bytes": (required(ours.get_raw), keys),
        "lmdb long txn": (required(sessions[LMDB_LONG].get_raw), encoded),
        "lmdb txn per get": (required(sessions[LMDB_EACH].get_raw), encoded),
        "unpackb(dict[key])": (unpacked, keys),
        "get": (get, keys),
        "lmdb decoded": (required(sessions[LMDB_EACH].get), encoded),
    }
    table: Any = get.__self__  # type: ignore[attr-defined]  # the method of a Table
    if hasattr(table, "record"):
        record = table.record
        calls["get field"] = (lambda key: get(key)["status"], keys)
        calls["record field"] = (lambda key: record(key)["status"], keys)
    return {name: Contestant(call, arguments) for name, (call, arguments) in calls.items()}


def against_manager(rounds: int) -> dict[str, float]:
    """Measure a proxy of a manager's dict, of bytes and of records."""
    dataset = Dataset(SMALL)
    keys = [key_of(number) for number in dataset.sequence(SEED)]
    with ExitStack() as stack:
        ours = stack.enter_context(Arena(rivals.OURS, dataset))
        ours.load()
        session = session_in(stack, ours)
        contestants = {
            "get_bytes, small": Contestant(required(session.get_raw), keys),
            "get, small": Contestant(required(session.get), keys),
        }
        for name, packed in (("Manager bytes", True), ("Manager decoded", False)):
            arena = stack.enter_context(Arena("Manager().dict()", dataset, packed))
            arena.load()
            proxy = session_in(stack, arena)
            contestants[name] = Contestant(required(proxy.get), keys)
        return contest(contestants, rounds)


def lists(rounds: int, dataset: Dataset) -> dict[str, float]:
    """Measure a page and a count of a store beside a lookup in a table of the same records."""
    indexed = Dataset(dataset.records, dataset.value, indexed=True)
    keys = [key_of(number) for number in dataset.sequence(SEED)]
    with ExitStack() as stack:
        sessions = []
        for each in (dataset, indexed):
            arena = stack.enter_context(Arena(rivals.OURS, each))
            arena.load()
            sessions.append(session_in(stack, arena))
        table, store = sessions
        many = [None] * 1_000
        contestants = {
            "get beside list": Contestant(required(table.get), keys),
            "list(limit=10)": Contestant(required(store.list_newest), many, arity=0),
            "count()": Contestant(required(store.count), many, arity=0),
        }
        return contest(contestants, rounds)
