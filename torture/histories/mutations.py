"""The mutations of one slot that a client plays on its own keys, and what each must answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import shmstore

from .records import Ages, Shape, key_of, number_in, record


class Shelves(shmstore.Store):
    """Records whose fields change at every write, and one that never does."""

    table, resource, prefix = "shelves", "item", "it"
    indexes = ("parity", "shelf")


@dataclass
class Hands:
    """What a client mutates by: its own table and namespace, or these in a block."""

    client: Any
    plain: Any
    shelves: Any
    namespace: str

    @classmethod
    def of(cls, handle: Any, namespace: str) -> Hands:
        """Bind them to a client, a pipeline or a transaction."""
        return cls(handle, handle.table(namespace), Shelves(handle), namespace)


@dataclass(frozen=True)
class Mutation:
    """One atomic change."""

    name: str
    changes: dict[int, bool]
    """For each slot that is written, whether there is a record afterwards."""
    call: Callable[[Hands, int, Ages], Any]
    """Does it, as the mutation of this number, with these ages before."""
    right: Callable[[Any, int, Ages], bool]
    """Tells whether it may have had this result."""
    alone: bool = False
    """Whether it needs more than one request, and cannot be in a pipeline or a transaction."""

    def after(self, ages: Ages) -> Ages:
        """Return the ages that it leaves."""
        grown = [None if age is None else age + 1 for age in ages]
        for slot, is_there in self.changes.items():
            grown[slot] = 0 if is_there else None
        return grown


def settled(reply: Any) -> Any:
    """Return the result of what may be a Reply."""
    return reply.result() if isinstance(reply, shmstore.Reply) else reply


_Factory: TypeAlias = Callable[[int, Shape], Mutation]


def _simple(name: str, is_there: bool | None, call: Any, right: Any) -> _Factory:
    """A mutation of one slot; ``call`` and ``right`` learn the slot, its key and a new record."""

    def made(slot: int, shape: Shape) -> Mutation:
        key = key_of(slot)
        return Mutation(
            f"{name} {slot}",
            {} if is_there is None else {slot: is_there},
            lambda hands, n, ages: call(hands, key, record(slot, shape, n), (n, ages[slot])),
            lambda result, n, ages: right(result, (n, ages[slot])),
        )

    return made


def _is(expected: Any) -> Any:
    return lambda result, _: type(result) is type(expected) and result == expected


def _found(result: Any, at: tuple[int, int]) -> bool:
    """The record as it was before."""
    return number_in(result) == at[0] - 1 - at[1]


def _made(result: Any, at: tuple[int, int]) -> bool:
    """The record as it is now."""
    return number_in(result) == at[0]


def _version(result: Any, at: Any) -> bool:
    return type(result) is int and result > 0


def _swap(slot: int, shape: Shape) -> Mutation:
    def call(hands: Hands, number: int, ages: Ages) -> Any:
        place = hands.plain if slot < shape.plain else hands.shelves
        version = place.version(key_of(slot))
        return place.compare_and_swap(key_of(slot), version, record(slot, shape, number))

    return Mutation(f"swap {slot}", {slot: True}, call, lambda result, *_: result is True, True)


def _again(slot: int, shape: Shape) -> Mutation:
    """Delete a record and store it anew, in one transaction."""

    def call(hands: Hands, number: int, ages: Ages) -> Any:
        with hands.client.transaction() as tx:
            within = Hands.of(tx, hands.namespace)
            place = within.plain if slot < shape.plain else within.shelves
            gone = place.delete(key_of(slot))
            if slot < shape.plain:
                place.put(key_of(slot), record(slot, shape, number))
            else:
                place.insert(record(slot, shape, number))
        return gone.result()

    return Mutation(f"again {slot}", {slot: True}, call, lambda result, *_: result is True, True)


_PLAIN_THERE: list[_Factory] = [
    _simple("put", True, lambda h, key, new, _: h.plain.put(key, new), _version),
    _simple("put", True, lambda h, key, new, _: h.plain.put(key, new), _version),
    _simple("delete", False, lambda h, key, new, _: h.plain.delete(key), _is(True)),
    _simple("pop", False, lambda h, key, new, _: h.plain.pop(key), _found),
    _simple("refused", None, lambda h, key, new, _: h.plain.insert_new(key, new), _is(False)),
    _simple("old", None, lambda h, key, new, _: h.plain.setdefault(key, new), _found),
    _swap,
    _again,
]
_NUMBER_THERE = [
    _simple("increment", True, lambda h, key, _, at: h.plain.increment(key, by=at[1] + 1), _made),
    *_PLAIN_THERE,
]
_MAP_THERE = [
    _simple(
        "patch", True, lambda h, key, _, at: h.plain.patch(key, n=at[0], again=at[0]), _is(True)
    ),
    *_PLAIN_THERE,
]
_PLAIN_GONE: list[_Factory] = [
    _simple("put", True, lambda h, key, new, _: h.plain.put(key, new), _version),
    _simple("insert_new", True, lambda h, key, new, _: h.plain.insert_new(key, new), _is(True)),
    _simple("setdefault", True, lambda h, key, new, _: h.plain.setdefault(key, new), _made),
    _simple("swap", True, lambda h, key, new, _: h.plain.compare_and_swap(key, 0, new), _is(True)),
    _simple("missing", None, lambda h, key, new, _: h.plain.delete(key), _is(False)),
]
_NUMBER_GONE = [
    _simple("start", True, lambda h, key, _, at: h.plain.increment(key, default=at[0] - 1), _made),
    *_PLAIN_GONE,
]
_STORED_THERE: list[_Factory] = [
    _simple("insert", True, lambda h, key, new, _: h.shelves.insert(new), _made),
    _simple("update", True, lambda h, key, new, _: h.shelves.update(new), _made),
    _simple(
        "patch",
        True,
        lambda h, key, _, at: h.shelves.patch(key, n=at[0], parity=at[0] % 2, again=at[0]),
        _made,
    ),
    _simple("delete", False, lambda h, key, new, _: h.shelves.delete(key), _is(True)),
    _simple("pop", False, lambda h, key, new, _: h.shelves.pop(key), _found),
    _swap,
    _again,
]
_STORED_GONE: list[_Factory] = [
    _simple("insert", True, lambda h, key, new, _: h.shelves.insert(new), _made),
    _simple("update", True, lambda h, key, new, _: h.shelves.update(new), _made),
    _simple(
        "swap", True, lambda h, key, new, _: h.shelves.compare_and_swap(key, 0, new), _is(True)
    ),
    _simple("missing", None, lambda h, key, new, _: h.shelves.delete(key), _is(False)),
]


def of_slot(
    rng: random.Random, shape: Shape, ages: Sequence[int | None], slot: int, whole: bool = True
) -> Mutation:
    """Return a mutation of one slot that fits; one request for it if not ``whole``."""
    is_there = ages[slot] is not None
    if slot == 0:
        kinds = _NUMBER_THERE if is_there else _NUMBER_GONE
    elif slot < shape.plain:
        kinds = _MAP_THERE if is_there else _PLAIN_GONE
    else:
        kinds = _STORED_THERE if is_there else _STORED_GONE
    chosen = rng.choice(kinds)(slot, shape)
    return chosen if whole or not chosen.alone else kinds[0](slot, shape)


def restore(shape: Shape, slot: int) -> Mutation:
    """Return the mutation that stores a slot, whatever there is."""
    return (_STORED_GONE if slot >= shape.plain else _PLAIN_GONE)[0](slot, shape)
