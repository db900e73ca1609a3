"""The search for an order: histories that have one, histories that have none, and all small ones.

``what @ (called, returned)`` below is one operation; without an answer ``returned`` is None.
"""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torture.histories.table_model import Cell, step
from torture.wing_gong import Operation, ordered

KEYS = 2
START = (Cell(),) * KEYS
A, B = range(KEYS)


def op(
    called: int, returned: int | None, name: str, *arguments: Any, gave: Any = None
) -> Operation:
    return Operation(0, name, arguments, called, returned, gave)


def is_ordered(*history: Operation) -> bool:
    return ordered(history, START, step) is not None


ORDERED = {
    "nothing": [],
    "a read beside a write sees the old": [
        op(0, 9, "put", A, 1, gave=7),
        op(1, 2, "get", A),
    ],
    "a read beside a write sees the new": [
        op(0, 9, "put", A, 1, gave=7),
        op(1, 2, "get", A, gave=1),
    ],
    "two writes in the order of their versions": [
        op(0, 9, "put", A, 1, gave=7),
        op(0, 9, "put", A, 2, gave=6),
        op(10, 11, "get_versioned", A, gave=(7, 1)),
    ],
    "the version of a write that did not say it": [
        op(0, 1, "insert_new", A, 1, gave=True),
        op(2, 3, "get_versioned", A, gave=(4, 1)),
        op(4, 5, "swap", A, 4, 2, gave=True),
        op(6, 7, "get", A, gave=2),
    ],
    "what has no answer happened": [
        op(0, None, "put", A, 1),
        op(5, 6, "get", A, gave=1),
    ],
    "what has no answer happened later than others that began later": [
        op(0, None, "put", A, 1),
        op(5, 6, "get", A),
        op(7, 8, "get", A, gave=1),
    ],
    "what has no answer did not happen": [
        op(0, 1, "increment", A, 1, gave=1),
        op(2, None, "increment", A, 1),
        op(5, 6, "increment", A, 1, gave=2),
    ],
    "one gets it": [
        op(0, 1, "put", A, 1, gave=1),
        op(2, 9, "pop", A, gave=1),
        op(2, 9, "pop", A),
    ],
    "a transaction, whole": [
        op(0, 9, "transaction", ("put", (A, 1)), ("put", (B, 1)), gave=(5, 5)),
        op(1, 2, "get_many", A, B, gave=(None, None)),
        op(3, 4, "get_many", A, B, gave=(1, 1)),
    ],
}
UNORDERED = {
    "a stale read": [
        op(0, 1, "put", A, 1, gave=7),
        op(2, 3, "get", A),
    ],
    "time goes back": [
        op(0, 9, "put", A, 1, gave=7),
        op(1, 2, "get", A, gave=1),
        op(3, 4, "get", A),
    ],
    "time goes back, from a write without an answer": [
        op(0, None, "put", A, 1),
        op(1, 2, "get", A, gave=1),
        op(3, 4, "get", A),
    ],
    "a read of what nobody wrote": [
        op(0, 1, "get", A, gave=5),
    ],
    "a read of what is not written yet": [
        op(0, 1, "get", A, gave=1),
        op(2, 3, "put", A, 1, gave=7),
    ],
    "a lost update": [
        op(0, 9, "increment", A, 1, gave=1),
        op(0, 9, "increment", A, 1, gave=1),
    ],
    "a duplicate increment": [
        op(0, 1, "increment", A, 1, gave=1),
        op(2, 3, "increment", A, 1, gave=3),
    ],
    "an increment without an answer is applied twice": [
        op(0, None, "increment", A, 1),
        op(1, 2, "get", A, gave=1),
        op(3, 4, "get", A, gave=2),
    ],
    "a multi-get that is no snapshot": [
        op(0, 1, "put", A, 1, gave=4),
        op(2, 3, "put", B, 1, gave=5),
        op(0, 9, "get_many", A, B, gave=(None, 1)),
    ],
    "a transaction seen by half": [
        op(0, 9, "transaction", ("put", (A, 1)), ("put", (B, 1)), gave=(5, 5)),
        op(1, 2, "get_many", A, B, gave=(1, None)),
    ],
    "a transaction seen by half, by single reads": [
        op(0, 9, "transaction", ("put", (A, 1)), ("put", (B, 1)), gave=(5, 5)),
        op(1, 2, "get", A, gave=1),
        op(3, 4, "get", B),
    ],
    "versions of one transaction differ": [
        op(0, 1, "transaction", ("put", (A, 1)), ("put", (B, 1)), gave=(5, 6)),
    ],
    "a count that is no snapshot": [
        op(0, 1, "put_many", (A, 1), (B, 1), gave=5),
        op(2, 9, "delete_many", A, B, gave=2),
        op(3, 4, "len", gave=1),
    ],
    "two get it": [
        op(0, 1, "put", A, 1, gave=1),
        op(2, 9, "pop", A, gave=1),
        op(2, 9, "pop", A, gave=1),
    ],
    "both are first": [
        op(0, 9, "insert_new", A, 1, gave=True),
        op(0, 9, "insert_new", A, 2, gave=True),
    ],
    "both swap the same version": [
        op(0, 1, "put", A, 1, gave=1),
        op(2, 9, "swap", A, 1, 2, gave=True),
        op(2, 9, "swap", A, 1, 3, gave=True),
    ],
    "a swap of a version that is gone": [
        op(0, 1, "put", A, 1, gave=1),
        op(2, 3, "increment", A, 1, gave=2),
        op(4, 5, "swap", A, 1, 3, gave=True),
    ],
    "a version comes again": [
        op(0, 1, "put", A, 1, gave=4),
        op(2, 3, "delete", A, gave=True),
        op(4, 5, "put", A, 2, gave=4),
    ],
    "versions against the order of the writes": [
        op(0, 1, "put", A, 1, gave=7),
        op(2, 3, "put", A, 2, gave=6),
    ],
    "a version changes by itself": [
        op(0, 1, "insert_new", A, 1, gave=True),
        op(2, 3, "get_versioned", A, gave=(4, 1)),
        op(4, 5, "get_versioned", A, gave=(5, 1)),
    ],
}


@pytest.mark.parametrize("name", ORDERED)
def test_a_history_that_has_an_order(name: str) -> None:
    assert is_ordered(*ORDERED[name])
    assert is_ordered(*reversed(ORDERED[name]))


@pytest.mark.parametrize("name", UNORDERED)
def test_a_history_that_has_none(name: str) -> None:
    assert not is_ordered(*UNORDERED[name])
    assert not is_ordered(*reversed(UNORDERED[name]))


def test_the_order_that_is_found_is_one() -> None:
    history = [op(i, i + 20, "increment", A, 1, gave=20 - i) for i in range(20)]
    order = ordered(history, START, step)
    assert order is not None
    assert [one.result for one in order] == list(range(1, 21))


def test_a_long_history_of_which_no_order_fits_is_given_up_soon() -> None:
    """Memory of what was tried: fifteen writes at once have 10 ** 12 orders, but few states."""
    history = [op(0, 99, "increment", A, 1, gave=i + 1) for i in range(15)]
    history += [op(100, 101, "get", A, gave=14)]
    assert not is_ordered(*history)


def by_brute_force(history: list[Operation]) -> bool:
    """Try every order of every choice of those operations that have no answer."""
    answered = [one for one in history if one.returned is not None]
    others = [one for one in history if one.returned is None]
    chosen = (some for count in range(len(others) + 1) for some in combinations(others, count))
    return any(explains(order) for some in chosen for order in permutations([*answered, *some]))


def explains(order: tuple[Operation, ...]) -> bool:
    for i, one in enumerate(order):
        if any(later.returned is not None and later.returned < one.called for later in order[i:]):
            return False
    state: Any = START
    for one in order:
        state = step(state, one)
        if state is None:
            return False
    return True


keys, values, times = st.integers(0, KEYS - 1), st.integers(1, 3), st.integers(0, 12)
found = st.one_of(st.none(), values)
flags = st.booleans()
questions = st.one_of(
    st.tuples(st.just("put"), st.tuples(keys, values), values),
    st.tuples(st.just("insert_new"), st.tuples(keys, values), flags),
    st.tuples(st.just("setdefault"), st.tuples(keys, values), values),
    st.tuples(st.just("swap"), st.tuples(keys, st.integers(0, 3), values), flags),
    st.tuples(st.just("increment"), st.tuples(keys, st.just(1)), values),
    st.tuples(st.just("delete"), st.tuples(keys), flags),
    st.tuples(st.just("pop"), st.tuples(keys), found),
    st.tuples(st.just("put_many"), st.just(((A, 1), (B, 2))), values),
    st.tuples(st.just("clear"), st.just(()), st.none()),
    st.tuples(
        st.just("transaction"), st.just((("increment", (A, 1)), ("delete", (B,)))),
        st.tuples(values, flags),
    ),
    st.tuples(st.just("get"), st.tuples(keys), found),
    st.tuples(st.just("contains"), st.tuples(keys), flags),
    st.tuples(
        st.just("get_versioned"), st.tuples(keys),
        st.one_of(st.just((0, None)), st.tuples(values, values)),
    ),
    st.tuples(st.just("get_many"), st.just((A, B)), st.tuples(found, found)),
    st.tuples(st.just("len"), st.just(()), st.integers(0, KEYS)),
)  # fmt: skip
READS = ("get", "contains", "get_versioned", "get_many", "len")


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    history = []
    for name, arguments, result in draw(st.lists(questions, min_size=1, max_size=5)):
        called, later = draw(times), draw(st.integers(0, 6))
        open_ended = name not in READS and draw(st.integers(0, 4)) == 0
        returned = None if open_ended else called + later
        history.append(Operation(0, name, arguments, called, returned, result))
    return history


@settings(max_examples=400)
@given(histories())
def test_the_search_finds_an_order_exactly_where_brute_force_does(
    history: list[Operation],
) -> None:
    assert (ordered(history, START, step) is not None) == by_brute_force(history)
