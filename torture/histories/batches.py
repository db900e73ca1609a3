"""The mutations of several slots at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from .mutations import Hands, Mutation, of_slot, settled
from .records import Ages, Shape, key_of, number_in, record


def of_many(rng: random.Random, shape: Shape, ages: Ages) -> Mutation:
    """Return a mutation of several slots that fits."""
    return rng.choice(_MANY)(rng, shape, ages)


def _some(rng: random.Random, slots: Sequence[int]) -> list[int]:
    return rng.sample(slots, rng.randint(min(2, len(slots)), len(slots)))


def _transaction(rng: random.Random, shape: Shape, ages: Ages) -> Mutation:
    slots = rng.sample(range(len(ages)), rng.randint(2, min(6, len(ages))))
    parts = [of_slot(rng, shape, ages, slot, whole=False) for slot in slots]
    changes = {slot: there for part in parts for slot, there in part.changes.items()}

    def call(hands: Hands, number: int, before: Ages) -> Any:
        with hands.client.transaction() as tx:
            within = Hands.of(tx, hands.namespace)
            replies = [part.call(within, number, before) for part in parts]
        return [settled(reply) for reply in replies]

    def right(results: Any, number: int, before: Ages) -> bool:
        return all(
            part.right(result, number, before) for part, result in zip(parts, results, strict=True)
        )

    name = " + ".join(part.name for part in parts)
    return Mutation(f"transaction ({name})", changes, call, right, alone=True)


def _put_many(rng: random.Random, shape: Shape, ages: Ages) -> Mutation:
    slots = _some(rng, range(shape.plain))
    return Mutation(
        f"put_many {slots}",
        dict.fromkeys(slots, True),
        lambda hands, n, _: hands.plain.put_many(
            {key_of(slot): record(slot, shape, n) for slot in slots}
        ),
        lambda result, n, _: type(result) is int and result > 0,
    )


def _insert_many(rng: random.Random, shape: Shape, ages: Ages) -> Mutation:
    slots = _some(rng, range(shape.plain, len(ages)))
    return Mutation(
        f"insert_many {slots}",
        dict.fromkeys(slots, True),
        lambda hands, n, _: hands.shelves.insert_many(record(slot, shape, n) for slot in slots),
        lambda result, n, _: [number_in(one) for one in result] == [n] * len(slots),
        alone=True,  # its result is no Reply, and comes before the answer
    )


def _removal(
    name: str, slots: list[int], call: Callable[[Hands, list[str]], Any], counts: bool = True
) -> Mutation:
    """Remove what is there of some slots; the answer is how many there were."""
    keys = [key_of(slot) for slot in slots]
    return Mutation(
        f"{name} {slots}",
        dict.fromkeys(slots, False),
        lambda hands, n, _: call(hands, keys),
        lambda result, n, ages: (
            result == sum(ages[slot] is not None for slot in slots) if counts else result is None
        ),
    )


def _delete_many(rng: random.Random, shape: Shape, ages: Ages) -> Mutation:
    if rng.random() < 0.5:
        slots = _some(rng, range(shape.plain))
        return _removal("delete_many", slots, lambda h, keys: h.plain.delete_many(keys))
    slots = _some(rng, range(shape.plain, len(ages)))
    return _removal("store.delete_many", slots, lambda h, keys: h.shelves.delete_many(keys))


def _clear(rng: random.Random, shape: Shape, ages: Ages) -> Mutation:
    stored = list(range(shape.plain, len(ages)))
    shelf = rng.randrange(2)
    on_shelf = [slot for slot in stored if slot % 2 == shelf]
    return rng.choice(
        [
            _removal("clear", list(range(shape.plain)), lambda h, _: h.plain.clear(), counts=False),
            _removal(
                "clear_namespace", stored, lambda h, _: h.shelves.clear_namespace(h.namespace)
            ),
            _removal("delete_where", on_shelf, lambda h, _: h.shelves.delete_where(shelf=shelf)),
        ]
    )


_MANY = [_transaction] * 4 + [_put_many] * 2 + [_insert_many] * 2 + [_delete_many, _clear]
