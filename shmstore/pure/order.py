"""Order lists: the records of a table, or of one value of an index, by position.

A list is a B+ tree whose nodes are never changed once committed: a batch writes new copies of
the nodes on the way to what it changes (path copying, as in LMDB and in Rodeh's shadowed
B-trees, 2008), and the root lies in the list's head, an entry like any other. So one version of
the head is one snapshot of the whole list with its count, a killed writer leaves nothing half
done, and an update that keeps a record's position touches no list.

A position is (sort word or 0, insertion number); its leaf element carries the record's hash,
because words of the index move when a segment splits and hashes do not.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator
from typing import cast

from ..layout import (
    GRANULE_BYTES,
    LEVELS_MAX,
    NODE_COUNT_MASK,
    NODE_ELEMENTS_MAX,
    NODE_LEVEL_MASK,
    NODE_LEVEL_SHIFT,
    NODE_WIDTH_SHIFT,
    WORD_BYTES,
)
from .heap import Heap
from .records import Damaged

Position = tuple[int, int]
"""(sort word, or 0 in lists that have none; insertion number)."""

_WORDS = GRANULE_BYTES // WORD_BYTES
_SPARSE = NODE_ELEMENTS_MAX // 4


class Node:
    """A node in private memory. A child is the granule of a committed node, or a ``Node`` that
    the open batch has made."""

    __slots__ = ("children", "level", "positions", "width")

    def __init__(
        self, level: int, width: int, positions: list[Position], children: list[int | Node]
    ) -> None:
        self.level = level
        self.width = width
        self.positions = positions
        self.children = children

    @classmethod
    def parse(cls, numbers: list[int]) -> Node:
        """Return the node that ``numbers`` begin with. Errors: ``Damaged``."""
        head = numbers[0]
        count, width = head & NODE_COUNT_MASK, head >> NODE_WIDTH_SHIFT
        level = head >> NODE_LEVEL_SHIFT & NODE_LEVEL_MASK
        if width not in (2, 3) or count > NODE_ELEMENTS_MAX or level >= LEVELS_MAX:
            raise Damaged(f"a node begins with {head:#x}")
        end = 1 + count * width
        if end > len(numbers):
            raise Damaged("a node reaches beyond its block")
        sorts = numbers[1:end:3] if width == 3 else [0] * count
        positions = list(zip(sorts, numbers[width - 1 : end : width], strict=True))
        return cls(level, width, positions, list(numbers[width:end:width]))

    @classmethod
    def load(cls, words: memoryview, granule: int, parent: Node) -> Node:
        """Return the child of ``parent`` at ``granule``."""
        start = granule * _WORDS
        if start >= len(words):
            raise Damaged(f"a list names a node at granule {granule}")
        node = cls.parse(words[start : start + 1 + NODE_ELEMENTS_MAX * parent.width].tolist())
        if node.level != parent.level - 1 or node.width != parent.width or not node.positions:
            raise Damaged(f"the node at granule {granule} does not belong to its parent")
        return node

    def numbers(self) -> list[int]:
        """The node as words; its children must all be granules."""
        count, width = len(self.positions), self.width
        numbers = [0] * (1 + count * width)
        numbers[0] = width << NODE_WIDTH_SHIFT | self.level << NODE_LEVEL_SHIFT | count
        if width == 3:
            numbers[1::width] = [sort for sort, _ in self.positions]
        numbers[width - 1 :: width] = [insertion for _, insertion in self.positions]
        numbers[width::width] = cast("list[int]", self.children)
        return numbers

    @property
    def granules(self) -> int:
        """The size of the block of this node."""
        return node_granules(len(self.positions), self.width)


def node_granules(count: int, width: int) -> int:
    """Return the size of the block of a node of ``count`` elements."""
    return -(-(1 + count * width) // _WORDS)


Load = Callable[[int, Node], Node]


def walk(
    node: Node, load: Load, beyond: Position | None, newest_first: bool
) -> Iterator[tuple[Position, int]]:
    """Yield (position, hash) strictly beyond a position, or all; costs a descent, then steps.

    Errors: ``Damaged`` where it does not get further, so that no damage makes it endless.
    """
    last = beyond
    for element in _descend(node, load, beyond, newest_first):
        position = element[0]
        if last is not None and (position >= last if newest_first else position <= last):
            raise Damaged(f"a list is out of order: {position} after {last}")
        last = position
        yield element


def _descend(
    node: Node, load: Load, beyond: Position | None, newest_first: bool
) -> Generator[tuple[Position, int], None, bool]:
    # Returns whether there was an element. Only the first child may lie short of ``beyond``: nodes
    # that lead to each other would else be walked for ever, without an element.
    positions = node.positions
    if newest_first:
        end = len(positions) if beyond is None else bisect_left(positions, beyond)
        places = range(end - 1, -1, -1)
    else:
        start = 0 if beyond is None else bisect_right(positions, beyond)
        if node.level and start:
            start -= 1
        places = range(start, len(positions))
    some = False
    for place in places:
        child = node.children[place]
        if node.level == 0:
            assert isinstance(child, int)
            yield positions[place], child
            some = True
        else:
            below = child if isinstance(child, Node) else load(child, node)
            more = yield from _descend(below, load, beyond, newest_first)
            if not more and place != places[0]:
                raise Damaged("a list has a node of none of its elements")
            some = some or more
    return some


class OrderList:
    """A list as the open batch sees and changes it."""

    def __init__(self, words: memoryview, root: Node, count: int) -> None:
        self._words = words
        self.root = root
        self.count = count
        self.replaced: dict[int, int] = {}
        """Size by start of the blocks of the committed nodes this batch has replaced."""

    @classmethod
    def empty(cls, words: memoryview, width: int) -> OrderList:
        return cls(words, Node(0, width, [], []), 0)

    def load(self, granule: int, parent: Node) -> Node:
        """Return a committed node, to read it."""
        return Node.load(self._words, granule, parent)

    def insert(self, position: Position, word_hash: int) -> None:
        """Add an element; costs a copy of one node per level."""
        right = self._insert(self.root, position, word_hash)
        if right is not None:
            left = self.root
            firsts = [left.positions[0], right.positions[0]]
            self.root = Node(left.level + 1, left.width, firsts, [left, right])
        self.count += 1

    def remove(self, position: Position) -> None:
        """Take an element out; it must be there."""
        self._remove(self.root, position)
        self.count -= 1
        while self.root.level and len(self.root.children) == 1:
            self.root = self._child(self.root, 0)

    def drop(self) -> None:
        """Put up all committed nodes for retirement."""
        self._drop(self.root)
        self.root, self.count = Node(0, self.root.width, [], []), 0

    def seal(self, heap: Heap, written: dict[int, int]) -> list[int]:
        """Write the batch's nodes, children first; return the root as words. Blocks taken are
        noted in ``written``. Errors: ``StoreFull``."""
        self._seal_children(self.root, heap, written)
        return self.root.numbers()

    def _insert(self, node: Node, position: Position, word_hash: int) -> Node | None:
        if node.level == 0:
            at = bisect_left(node.positions, position)
            node.positions.insert(at, position)
            node.children.insert(at, word_hash)
        else:
            at = max(bisect_right(node.positions, position) - 1, 0)
            child = self._child(node, at)
            right = self._insert(child, position, word_hash)
            node.positions[at] = child.positions[0]
            if right is not None:
                at += 1
                node.positions.insert(at, right.positions[0])
                node.children.insert(at, right)
        if len(node.positions) <= NODE_ELEMENTS_MAX:
            return None
        # Appending leaves full nodes behind, as most lists only ever grow at their end.
        return _split(node, -1 if at == NODE_ELEMENTS_MAX else NODE_ELEMENTS_MAX // 2)

    def _remove(self, node: Node, position: Position) -> None:
        if node.level == 0:
            at = bisect_left(node.positions, position)
            if at == len(node.positions) or node.positions[at] != position:
                raise Damaged(f"position {position} is missing from its list")
            del node.positions[at], node.children[at]
            return
        at = max(bisect_right(node.positions, position) - 1, 0)
        child = self._child(node, at)
        self._remove(child, position)
        if not child.positions:
            del node.positions[at], node.children[at]
            return
        node.positions[at] = child.positions[0]
        if len(child.positions) < _SPARSE and len(node.children) > 1:
            self._merge(node, max(at - 1, 0))

    def _merge(self, node: Node, at: int) -> None:
        """Put the child behind ``at`` into the one at ``at``, if they fit in half a node more."""
        left, right = self._child(node, at), self._child(node, at + 1)
        if len(left.positions) + len(right.positions) > NODE_ELEMENTS_MAX * 3 // 4:
            return
        left.positions += right.positions
        left.children += right.children
        del node.positions[at + 1], node.children[at + 1]

    def _child(self, node: Node, at: int) -> Node:
        """Return a child as the batch's own copy."""
        child = node.children[at]
        if isinstance(child, Node):
            return child
        copy = self.load(child, node)
        self.replaced[child] = copy.granules
        node.children[at] = copy
        return copy

    def _drop(self, node: Node) -> None:
        if node.level:
            for at in range(len(node.children)):
                self._drop(self._child(node, at))

    def _seal_children(self, node: Node, heap: Heap, written: dict[int, int]) -> None:
        if not node.level:
            return
        for at, child in enumerate(node.children):
            if isinstance(child, Node):
                self._seal_children(child, heap, written)
                granule = heap.allocate(child.granules, reserved=True)
                written[granule] = child.granules
                numbers = array("Q", child.numbers())
                start = granule * _WORDS
                self._words[start : start + len(numbers)] = memoryview(numbers)
                node.children[at] = granule


def _split(node: Node, at: int) -> Node:
    right = Node(node.level, node.width, node.positions[at:], node.children[at:])
    del node.positions[at:], node.children[at:]
    return right
