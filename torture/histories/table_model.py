"""What a table of a few keys answers: the thing that short histories are about.

A state has a cell per key: the number that is stored, if any, and what is known of its version.
Versions are the store's to choose, so the model learns them from the answers: a new one is higher
than all that the key had, and the same as long as nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ..wing_gong import Operation


class Cell(NamedTuple):
    """What is known of a key."""

    value: int | None = None
    version: int = 0
    """0 if there is no record, and where no answer has said it yet."""
    highest: int = 0
    """The highest version that the key is known to have had."""


State: TypeAlias = tuple[Cell, ...]
Keys: TypeAlias = list[str]


class _Any:
    """The result of an operation without an answer: equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY: Any = _Any()


def step(state: State, operation: Operation) -> State | None:
    """Return the state after an operation; None if that could not have had this result."""
    result = ANY if operation.returned is None else operation.result
    return _STEPS[operation.name](state, result, *operation.arguments)


def perform(client: Any, table: Any, keys: Keys, name: str, arguments: Any) -> Any:
    """Do one operation; return its result, or in a transaction its Reply."""
    return _CALLS[name](client, table, keys, *arguments)


# What the store is asked. Keys are given by number.


def _transaction(client: Any, table: Any, keys: Keys, *parts: Any) -> tuple[Any, ...]:
    with client.transaction() as tx:
        bound = tx.table(table.name)
        replies = [perform(tx, bound, keys, name, arguments) for name, arguments in parts]
    return tuple(reply.result() for reply in replies)


def _many(client: Any, table: Any, keys: Keys, *wanted: int) -> tuple[int | None, ...]:
    found = table.get_many([keys[key] for key in wanted])
    return tuple(found.get(keys[key]) for key in wanted)


def _everything(client: Any, table: Any, keys: Keys) -> tuple[int | None, ...]:
    found = table.copy()
    return tuple(map(found.get, keys))


_CALLS: dict[str, Callable[..., Any]] = {
    "put": lambda _, table, keys, key, value: table.put(keys[key], value),
    "insert_new": lambda _, table, keys, key, value: table.insert_new(keys[key], value),
    "setdefault": lambda _, table, keys, key, value: table.setdefault(keys[key], value),
    "swap": lambda _, table, keys, key, version, value: table.compare_and_swap(
        keys[key], version, value
    ),
    "increment": lambda _, table, keys, key, by: table.increment(keys[key], by=by),
    "delete": lambda _, table, keys, key: table.delete(keys[key]),
    "pop": lambda _, table, keys, key: table.pop(keys[key], None),
    "put_many": lambda _, table, keys, *pairs: table.put_many(
        {keys[key]: value for key, value in pairs}
    ),
    "delete_many": lambda _, table, keys, *gone: table.delete_many([keys[key] for key in gone]),
    "clear": lambda _, table, keys: table.clear(),
    "transaction": _transaction,
    "get": lambda _, table, keys, key: table.get(keys[key]),
    "contains": lambda _, table, keys, key: keys[key] in table,
    "get_versioned": lambda _, table, keys, key: table.get_versioned(keys[key]),
    "get_many": _many,
    "copy": _everything,
    "len": lambda _, table, keys: len(table),
}


# What the model makes of it.


def _with(state: State, key: int, cell: Cell) -> State:
    return (*state[:key], cell, *state[key + 1 :])


def _written(state: State, key: int, value: int | None) -> State:
    """The state after a write whose version nobody was told, or after a deletion."""
    return _with(state, key, Cell(value, 0, state[key].highest))


def _told(state: State, key: int, version: int) -> State | None:
    """The state when the version of a record is known; None if it cannot be this one."""
    cell = state[key]
    if cell.version:
        return state if cell.version == version else None
    return _with(state, key, Cell(cell.value, version, version)) if version > cell.highest else None


def _put(state: State, result: Any, key: int, value: int) -> State | None:
    after = _written(state, key, value)
    return after if result is ANY else _told(after, key, result)


def _put_many(state: State, result: Any, *pairs: tuple[int, int]) -> State | None:
    after: State | None = state
    for key, value in pairs:
        after = None if after is None else _put(after, result, key, value)
    return after


def _insert_new(state: State, result: Any, key: int, value: int) -> State | None:
    stored = state[key].value is None
    if result != stored:
        return None
    return _written(state, key, value) if stored else state


def _setdefault(state: State, result: Any, key: int, value: int) -> State | None:
    stored = state[key].value is None
    if result != (value if stored else state[key].value):
        return None
    return _written(state, key, value) if stored else state


def _swap(state: State, result: Any, key: int, version: int, value: int) -> State | None:
    # Whoever has a version was told it before: a record of which none is known is another one.
    cell = state[key]
    stored = cell.value is None if version == 0 else cell.version == version
    if result != stored:
        return None
    return _written(state, key, value) if stored else state


def _increment(state: State, result: Any, key: int, by: int) -> State | None:
    total = (state[key].value or 0) + by
    return _written(state, key, total) if result == total else None


def _delete(state: State, result: Any, key: int) -> State | None:
    return _written(state, key, None) if result == (state[key].value is not None) else None


def _pop(state: State, result: Any, key: int) -> State | None:
    return _written(state, key, None) if result == state[key].value else None


def _delete_many(state: State, result: Any, *keys: int) -> State | None:
    after = state
    for key in keys:
        after = _written(after, key, None)
    return after if result == sum(state[key].value is not None for key in keys) else None


def _clear(state: State, result: Any) -> State | None:
    return tuple(Cell(None, 0, cell.highest) for cell in state)


def _all_or_none(state: State, result: Any, *parts: Any) -> State | None:
    after: State | None = state
    for at, (name, arguments) in enumerate(parts):
        if after is not None:
            after = _STEPS[name](after, ANY if result is ANY else result[at], *arguments)
    versions = {
        version
        for version, (name, _) in zip(() if result is ANY else result, parts)  # noqa: B905
        if name == "put"
    }
    return after if len(versions) < 2 else None


def _get(state: State, result: Any, key: int) -> State | None:
    return state if result == state[key].value else None


def _contains(state: State, result: Any, key: int) -> State | None:
    return state if result == (state[key].value is not None) else None


def _get_versioned(state: State, result: Any, key: int) -> State | None:
    version, value = result
    if value != state[key].value:
        return None
    if value is None:
        return state if version == 0 else None
    return _told(state, key, version)


def _get_many(state: State, result: Any, *keys: int) -> State | None:
    return state if result == tuple(state[key].value for key in keys) else None


def _copy(state: State, result: Any) -> State | None:
    return state if result == tuple(cell.value for cell in state) else None


def _len(state: State, result: Any) -> State | None:
    return state if result == sum(cell.value is not None for cell in state) else None


_STEPS: dict[str, Callable[..., State | None]] = {
    "put": _put,
    "insert_new": _insert_new,
    "setdefault": _setdefault,
    "swap": _swap,
    "increment": _increment,
    "delete": _delete,
    "pop": _pop,
    "put_many": _put_many,
    "delete_many": _delete_many,
    "clear": _clear,
    "transaction": _all_or_none,
    "get": _get,
    "contains": _contains,
    "get_versioned": _get_versioned,
    "get_many": _get_many,
    "copy": _copy,
    "len": _len,
}
