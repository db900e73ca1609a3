"""Order lists agree with sorted lists, keep their shape, and never touch a committed node."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left, bisect_right
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmstore.errors import StoreFull
from shmstore.layout import LEVELS_MAX, NODE_ELEMENTS_MAX, NODE_LEVEL_SHIFT, NODE_WIDTH_SHIFT
from shmstore.pure.order import Node, OrderList, Position, node_granules, walk
from shmstore.pure.records import Damaged

MEMORY_WORDS = 1 << 18
Element = tuple[Position, int]


class Bump:
    """Memory that is given out once, in order, until it is refused."""

    def __init__(self) -> None:
        self.words = memoryview(array("Q", bytes(MEMORY_WORDS * 8)))
        self.taken: dict[int, int] = {}
        self.left = MEMORY_WORDS // 2
        self._next = 1

    def allocate(self, size: int, reserved: bool = False) -> int:
        assert reserved, "a list must be written when only the reserve is left"
        if self.left < size:
            raise StoreFull("no more")
        self.left -= size
        start, self._next = self._next, self._next + size
        self.taken[start] = size
        return start


class Listing:
    """An order list with its commits, beside the sorted list it stands for."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.bump = Bump()
        self.numbers = Node(0, width, [], []).numbers()
        self.model: list[Element] = []
        self.begin()

    def begin(self) -> None:
        self.order = self.committed()
        self.open = dict(self.model)

    def committed(self) -> OrderList:
        return OrderList(self.bump.words, Node.parse(list(self.numbers)), len(self.model))

    def insert(self, position: Position) -> None:
        if position not in self.open:
            self.open[position] = hash_of(position)
            self.order.insert(position, hash_of(position))

    def remove(self, position: Position) -> None:
        if self.open.pop(position, None) is not None:
            self.order.remove(position)

    def drop(self) -> None:
        self.open.clear()
        self.order.drop()

    def check_open(self) -> None:
        assert list(walk(self.order.root, self.order.load, None, False)) == sorted(
            self.open.items()
        )
        assert self.order.count == len(self.open)

    def commit(self) -> None:
        before = nodes_of(self.committed())
        untouched = self.bump.words.tolist()
        written: dict[int, int] = {}
        self.bump.taken.clear()
        self.numbers = self.order.seal(self.bump, written)  # type: ignore[arg-type]
        replaced = self.order.replaced
        self.model = sorted(self.open.items())
        after = nodes_of(self.committed())
        assert written == self.bump.taken, "a node was taken and not noted"
        assert {start: after[start] for start in after.keys() - before.keys()} == written
        assert {start: before[start] for start in before.keys() - after.keys()} == replaced
        for start, size in before.items():
            there = slice(start * 2, (start + size) * 2)
            assert self.bump.words[there].tolist() == untouched[there], "a committed node changed"
        self.check_walks()
        self.begin()

    def check_walks(self) -> None:
        order, elements = self.committed(), self.model
        positions = [position for position, _ in elements]
        assert list(walk(order.root, order.load, None, False)) == elements
        assert list(walk(order.root, order.load, None, True)) == elements[::-1]
        for beyond in {*positions[:: len(positions) // 5 + 1], (0, 0), (3, 7), (1 << 63, 1 << 42)}:
            after, before = bisect_right(positions, beyond), bisect_left(positions, beyond)
            forward = islice(walk(order.root, order.load, beyond, False), 100)
            assert list(forward) == elements[after : after + 100]
            backward = islice(walk(order.root, order.load, beyond, True), 100)
            assert list(backward) == elements[:before][: -100 - 1 : -1]


def hash_of(position: Position) -> int:
    return (position[0] * 31 + position[1]) * 0x9E3779B97F4A7C15 % (1 << 64)


def nodes_of(order: OrderList) -> dict[int, int]:
    """Size by start of the nodes below the root, which must be of a sound shape."""
    found: dict[int, int] = {}

    def look(node: Node) -> None:
        assert len(node.positions) == len(node.children) <= NODE_ELEMENTS_MAX
        assert node.positions == sorted(set(node.positions))
        for first, child in zip(node.positions, node.children, strict=True):
            if node.level:
                assert isinstance(child, int)
                assert child not in found, "a node stands in two places"
                below = order.load(child, node)
                assert below.positions[0] == first
                found[child] = below.granules
                look(below)

    assert order.root.level == 0 or len(order.root.children) > 1
    look(order.root)
    return found


sorts = st.integers(0, 3) | st.integers(0, (1 << 64) - 1)
changes = st.tuples(
    st.sampled_from(["insert", "append", "remove", "remove all but few", "drop"]),
    st.integers(0, 300),
)


@settings(deadline=None, max_examples=50)
@given(
    width=st.sampled_from([2, 3]),
    batches=st.lists(st.tuples(st.lists(changes, max_size=4), st.booleans()), max_size=6),
    rng=st.randoms(use_true_random=False),
)
def test_any_changes_agree_with_a_sorted_list(width, batches, rng) -> None:
    listing = Listing(width)
    number = 0
    for steps, commits in batches:
        for kind, size in steps:
            if kind == "drop":
                listing.drop()
            elif kind in ("insert", "append"):
                for _ in range(size):
                    number += 1
                    sort = 0 if width == 2 else rng.randrange(4) if kind == "insert" else 5
                    insertion = number if kind == "append" else rng.randrange(1 << 43)
                    listing.insert((sort, insertion))
            else:
                some = rng.sample(sorted(listing.open), min(size, len(listing.open)))
                gone = set(listing.open) - set(some) if "but" in kind else some
                for position in sorted(gone, key=lambda _: rng.random()):
                    listing.remove(position)
            listing.check_open()
        if commits:
            listing.commit()
        else:
            listing.begin()
            listing.check_open()


@settings(max_examples=30)
@given(st.lists(st.tuples(sorts, st.integers(0, (1 << 43) - 1)), max_size=150, unique=True))
def test_any_positions_come_in_order(positions: list[Position]) -> None:
    listing = Listing(3)
    for position in positions:
        listing.insert(position)
    listing.commit()
    assert [position for position, _ in listing.model] == sorted(positions)


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_a_large_list_is_built_and_taken_down_in_any_order(order: str) -> None:
    rng = random.Random(3)
    listing = Listing(3)
    positions = [(sort, number) for number in range(3000) for sort in (number // 700,)]
    arranged = {"ascending": positions, "descending": positions[::-1]}.get(order)
    arranged = arranged or rng.sample(positions, len(positions))
    for position in arranged:
        listing.insert(position)
    listing.commit()
    assert listing.order.root.level == (2 if order == "descending" else 1)
    for position in arranged[:-70]:
        listing.remove(position)
    listing.commit()
    assert len(nodes_of(listing.order)) < 8, "nodes that became sparse were not merged"
    for position in arranged[-70:]:
        listing.remove(position)
    listing.commit()
    assert (listing.order.count, listing.order.root.level) == (0, 0)


def test_appending_leaves_full_nodes() -> None:
    listing = Listing(2)
    for number in range(NODE_ELEMENTS_MAX * 40):
        listing.insert((0, number))
    listing.commit()
    assert len(nodes_of(listing.order)) == 40


def test_a_change_copies_one_node_for_each_level() -> None:
    listing = Listing(2)
    for number in range(5000):
        listing.insert((0, number * 2))
    listing.commit()
    levels = listing.order.root.level
    assert levels == 2
    for position in ((0, 4444), (0, 4445), (0, 99_999)):
        change = listing.remove if position in listing.open else listing.insert
        change(position)
        listing.commit()
        assert len(listing.bump.taken) <= levels + 1  # one more if a node was split
    listing.remove((0, 0))
    assert list(listing.order.replaced) != []


def test_a_walk_costs_a_descent_and_its_length() -> None:
    listing = Listing(2)
    for number in range(5000):
        listing.insert((0, number))
    listing.commit()
    loaded: list[int] = []

    def load(granule: int, parent: Node) -> Node:
        loaded.append(granule)
        return listing.order.load(granule, parent)

    for newest_first in (False, True):
        for beyond in (None, (0, 2500), (0, -1), (0, 9999)):
            loaded.clear()
            list(islice(walk(listing.order.root, load, beyond, newest_first), 10))
            assert len(loaded) <= 2 * listing.order.root.level


def test_a_list_that_does_not_fit_takes_what_can_be_given_back() -> None:
    listing = Listing(2)
    for number in range(1000):
        listing.insert((0, number))
    listing.bump.left = 300
    written: dict[int, int] = {}
    with pytest.raises(StoreFull):
        listing.order.seal(listing.bump, written)  # type: ignore[arg-type]
    assert written == listing.bump.taken != {}


def test_a_missing_position_is_damage() -> None:
    listing = Listing(2)
    for number in range(200):
        listing.insert((0, number))
    for position in ((0, 200), (1, 0)):
        with pytest.raises(Damaged, match="missing"):
            listing.order.remove(position)


@pytest.mark.parametrize(("count", "width"), [(1, 2), (2, 2), (64, 2), (1, 3), (63, 3), (64, 3)])
def test_a_node_has_the_size_of_its_words(count: int, width: int) -> None:
    node = Node(0, width, [(0, number) for number in range(count)], [7] * count)
    numbers = node.numbers()
    assert len(numbers) == 1 + count * width
    assert node.granules == node_granules(count, width) == -(-len(numbers) // 2)
    again = Node.parse([*numbers, 1, 2, 3])
    assert (again.positions, again.children) == (node.positions, node.children)


def head(width: int = 2, level: int = 0, count: int = 0) -> int:
    return width << NODE_WIDTH_SHIFT | level << NODE_LEVEL_SHIFT | count


@pytest.mark.parametrize(
    "numbers",
    [
        [0],
        [head(width=1)],
        [head(width=4)],
        [head(level=LEVELS_MAX)],
        [head(count=NODE_ELEMENTS_MAX + 1), *range(200)],
        [head(count=2), 1, 2, 3],
        [head(width=3, count=1), 1, 2],
        [(1 << 64) - 1],
    ],
)
def test_what_is_no_node_is_damage(numbers: list[int]) -> None:
    with pytest.raises(Damaged, match="node"):
        Node.parse(numbers)


@pytest.mark.parametrize(
    "child", [head(), head(level=1, count=1), head(width=3, count=1), 0, (1 << 64) - 1]
)
def test_a_child_that_does_not_fit_its_parent_is_damage(child: int) -> None:
    words = memoryview(array("Q", [0, 0, child, *range(200)]))
    parent = Node(1, 2, [(0, 0)], [1])
    with pytest.raises(Damaged):
        Node.load(words, 1, parent)


@pytest.mark.parametrize("granule", [500, 1 << 36, 1 << 64])
def test_a_child_outside_the_memory_is_damage(granule: int) -> None:
    with pytest.raises((Damaged, IndexError)):
        Node.load(memoryview(array("Q", [0] * 100)), granule, Node(1, 2, [(0, 0)], [1]))


def chain(levels: int, fan_out: int) -> tuple[memoryview, Node]:
    """A tree, damaged beyond all likelihood, in which all children of a node are the same."""
    words: list[int] = [0, 0]
    numbers = [head(count=1), 5, 5]
    for level in range(1, levels + 1):
        granule = len(words) // 2
        words += numbers + [0] * (len(numbers) % 2)
        numbers = [head(level=level, count=fan_out)]
        for number in range(fan_out):
            numbers += [5 + number, granule]
    return memoryview(array("Q", [*words, *[0] * 200])), Node.parse(numbers)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_tree_that_meets_itself_again_ends_as_damage(newest_first: bool) -> None:
    words, root = chain(levels=LEVELS_MAX - 1, fan_out=2)
    order = OrderList(words, root, 1)
    with pytest.raises(Damaged, match="order"):
        list(islice(walk(order.root, order.load, None, newest_first), 100))
