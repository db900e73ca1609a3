"""Segments prepared, then one operation after the other, each the last one of many writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shmstore.errors import StoreFull
from shmstore.layout import GHOST_BYTES, GHOST_DIVISOR

from .operations import (
    INDEX,
    NAMESPACE,
    OPERATIONS,
    PINS,
    STORE,
    Operation,
    fill,
    put_new,
    settle,
)

MIB = 1 << 20
GHOSTS = MIB // GHOST_DIVISOR // GHOST_BYTES
"""As many as there may be in a segment of 1 MiB."""


@dataclass(frozen=True)
class Scenario:
    """A segment, and what is done to it, in this order."""

    name: str
    prepare: Operation
    operations: tuple[Operation, ...]
    capacity: int = 2 * MIB


# Order lists: nodes that split and collapse.


def one_node(owner: Any) -> None:
    for i in range(64):
        owner.put("t", "", f"k{i}", b"")


def put_in_the_middle(owner: Any) -> None:
    owner.put(STORE, NAMESPACE, "g0", b"", 3, (), (INDEX,))


def thin_out(owner: Any) -> None:
    for i in range(1, 61):
        owner.remove("t", "", f"k{i}")


def delete_the_last_but_one(owner: Any) -> None:
    for i in (0, 61, 62):
        owner.remove("t", "", f"k{i}")


FULL_ROOT = 64 * 64
"""Records whose list, filled in order, has a root that is full of full leaves."""


def fill_the_root(owner: Any) -> None:
    for i in range(FULL_ROOT):
        owner.put("u", "", f"g{i}", b"")


def put_into_a_full_root(owner: Any) -> None:
    owner.put("u", "", f"g{FULL_ROOT}", b"")


def delete_what_made_a_level(owner: Any) -> None:
    owner.remove("u", "", f"g{FULL_ROOT}")


# The index: segments that fill.


def nearly_fill_a_segment(owner: Any) -> None:
    for i in range(440):
        owner.put("u", "", f"g{i}", b"")


def put_until_a_split(owner: Any) -> None:
    segments = owner.statistics()["index_segments"]
    first = owner.count("u", "")
    for i in range(first, first + 1000):
        if owner.statistics()["index_segments"] > segments:
            return
        owner.put("u", "", f"g{i}", b"")
    raise AssertionError("the index did not split")


def put_most_until_a_split(owner: Any) -> None:
    """What comes before is committed, so that not all of the next split's way is one batch."""
    first = owner.count("u", "")
    for i in range(first, 840):
        owner.put("u", "", f"g{i}", b"")


def leave_vacated_words(owner: Any) -> None:
    nearly_fill_a_segment(owner)
    owner.commit()
    for i in range(300):
        owner.remove("u", "", f"g{i}")
    owner.commit()
    settle(owner)


def fill_up_again(owner: Any) -> None:
    for i in range(30):
        owner.put("t", "", f"k{i}", b"")


# Memory: reuse, purge, ghosts, extents.


def worn(owner: Any) -> None:
    """So much was replaced and deleted that each allocation takes from the quarantine."""
    for i in range(40):
        owner.put("t", "", f"k{i}", b"c" * 300)
    owner.commit()
    for turn in range(300):
        churn_once(owner, turn)
        owner.commit()


def churn_once(owner: Any, turn: int) -> None:
    owner.remove("t", "", f"k{turn * 7 % 40}")
    owner.put("t", "", f"k{(turn * 7 + 21) % 40}", b"c" * (turn * 37 % 300))


def churn(turn: int) -> Operation:
    def operation(owner: Any) -> None:
        churn_once(owner, turn)

    operation.__name__ = f"churn_{turn}"
    return operation


def haunt(owner: Any) -> None:
    """As many ghosts as there may be."""
    for i in range(GHOSTS + 20):
        owner.put(STORE, NAMESPACE, f"id{i}", b"", i)
    owner.commit()
    for i in range(GHOSTS):
        owner.remove(STORE, NAMESPACE, f"id{i}", (), ghost=True)
        owner.commit()


def evict_a_ghost(owner: Any) -> None:
    owner.remove(STORE, NAMESPACE, f"id{GHOSTS}", (), ghost=True)


def evict_ghosts(owner: Any) -> None:
    for i in range(GHOSTS + 1, GHOSTS + 6):
        owner.remove(STORE, NAMESPACE, f"id{i}", (), ghost=True)


def put_over_a_ghost(owner: Any) -> None:
    owner.put(STORE, NAMESPACE, f"id{GHOSTS}", b"back", 5)


def nearly_fill_an_extent(owner: Any) -> None:
    free = owner.statistics()["free"]
    owner.put("t", "", "k1", b"f" * (free - 45_000))


def put_beyond_the_extent(owner: Any) -> None:
    for i in range(4):
        owner.put("u", "", f"g{i}", b"e" * 3000)


def load_much(owner: Any) -> None:
    for i in range(11):
        owner.put("t", "", f"k{i}", bytes([i]) * MIB)
        owner.commit()


def delete_much(owner: Any) -> None:
    for i in range(10):
        owner.remove("t", "", f"k{i}")


def put_into_returned_extents(owner: Any) -> None:
    owner.put("u", "", "first", b"e" * (MIB + 1))


def put_1_mib(owner: Any) -> None:
    owner.put("t", "", "k1", b"m" * MIB)


def fill_all(owner: Any) -> None:
    for i in range(100):
        owner.put("t", "", f"k{i}", b"f" * 500)
    owner.commit()
    for size in (50_000, 1000, 10):
        _put_until_full(owner, size)


def _put_until_full(owner: Any, size: int) -> None:
    number = 0
    while True:
        try:
            owner.put("u", "", f"f{size}-{number}", b"f" * size)
            owner.commit()
        except StoreFull:
            owner.abort()
            return
        number += 1


def put_what_does_not_fit(owner: Any) -> None:
    try:
        owner.put("t", "", "k1", b"short")
        owner.put("t", "", "k2", b"f" * 500_000)
    except StoreFull:
        owner.abort()


def delete_on_a_full_store(owner: Any) -> None:
    owner.remove("t", "", "k7")


def delete_many_on_a_full_store(owner: Any) -> None:
    for i in range(10, 60):
        owner.remove("t", "", f"k{i}")


SCENARIOS = (
    Scenario("records", fill, OPERATIONS),
    Scenario("pins", fill, PINS, MIB),
    Scenario(
        "nodes", one_node, (put_new, put_in_the_middle, thin_out, delete_the_last_but_one, put_new)
    ),
    Scenario("levels", fill_the_root, (put_into_a_full_root, delete_what_made_a_level)),
    Scenario(
        "index",
        nearly_fill_a_segment,
        (put_until_a_split, put_most_until_a_split, put_until_a_split, put_until_a_split),
    ),
    Scenario("vacated", leave_vacated_words, (fill_up_again, settle)),
    Scenario("reuse", worn, tuple(churn(turn) for turn in range(300, 308)), MIB),
    Scenario("ghosts", haunt, (evict_a_ghost, evict_ghosts, put_over_a_ghost), MIB),
    Scenario("extents", nearly_fill_an_extent, (put_beyond_the_extent, settle), 4 * MIB),
    Scenario(
        "return", load_much, (delete_much, settle, put_into_returned_extents, settle), 24 * MIB
    ),
    Scenario("large", put_new, (put_1_mib, settle), 8 * MIB),
    Scenario(
        "full",
        fill_all,
        (put_what_does_not_fit, delete_on_a_full_store, delete_many_on_a_full_store),
        MIB,
    ),
)
