"""The lists the open batch has changed."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice

from ..layout import CLASS_HEAD, GRANULE_BYTES, WORD_BYTES
from .lookup import Lookup
from .order import OrderList, Position, walk
from .records import Entry, list_name, sort_word
from .staging import Staging

_WORDS = GRANULE_BYTES // WORD_BYTES


class Lists:
    """Order lists by name, opened when first changed, written by ``seal``."""

    def __init__(self, words: memoryview, lookup: Lookup, staging: Staging) -> None:
        self._words = words
        self._lookup = lookup
        self._staging = staging
        self._changed: dict[bytes, OrderList] = {}

    def begin(self) -> None:
        """Forget the batch's changes."""
        self._changed.clear()

    def count(self, name: bytes) -> int:
        """Return the number of elements."""
        order = self._look(name)
        return order.count if order else 0

    def entries(
        self,
        name: bytes,
        scope: int,
        position: Sequence[int] | None,
        limit: int | None,
        newest_first: bool,
    ) -> Iterator[Entry]:
        """Yield the records beyond a position [created or 0, insertion]."""
        order = self._look(name)
        if order is None:
            return
        beyond = None
        if position is not None:
            beyond = sort_word(position[0]) if order.root.width == 3 else 0, position[1]
        elements = walk(order.root, order.load, beyond, newest_first)
        for place, word_hash in islice(elements, limit):
            yield self._staging.find_listed(word_hash, scope, place[1])

    def move(
        self,
        table: str,
        namespace: str,
        word_hash: int,
        width: int,
        was: Position | None,
        now: Position | None,
        old_indexes: Sequence[bytes],
        new_indexes: Sequence[bytes],
    ) -> None:
        """Move a record from its old place in its lists to its new one; None is no place."""
        before = [(index, was) for index in (b"", *old_indexes)] if was else []
        after = [(index, now) for index in (b"", *new_indexes)] if now else []
        for index, position in before:
            if (index, position) not in after:
                self._change(list_name(table, namespace, index), width).remove(position)
        for index, position in after:
            if (index, position) not in before:
                order = self._change(list_name(table, namespace, index), width)
                order.insert(position, word_hash)

    def drop(self, name: bytes) -> None:
        """Empty a list whose records are deleted one by one."""
        self._change(name, 2).drop()

    def seal(self) -> None:
        """Write the changed nodes and heads into blocks. Errors: ``StoreFull``."""
        staging = self._staging
        for name, order in self._changed.items():
            lead = staging.head_lead(name)
            staging.replaced.update(order.replaced)
            if not order.count:
                head = staging.find(lead)
                if head is not None:
                    staging.kill(lead, head)
                continue
            root = order.seal(staging.heap, staging.written)
            value = array("Q", [order.count, *root]).tobytes()
            place = staging.allocate(lead, CLASS_HEAD, len(value), reserved=True)
            staging.write(place, lead, CLASS_HEAD, 0, None, value)

    def _change(self, name: bytes, width: int) -> OrderList:
        self._staging.changes += 1
        order = self._changed.get(name)
        if order is None:
            order = self._open(name) or OrderList.empty(self._words, width)
            self._changed[name] = order
        elif not order.count:
            order.root.width = width
        return order

    def _look(self, name: bytes) -> OrderList | None:
        return self._changed.get(name) or self._open(name)

    def _open(self, name: bytes) -> OrderList | None:
        head = self._staging.find(self._staging.head_lead(name))
        if head is None:
            return None
        count, root = self._lookup.load_head(head.granule * _WORDS)
        return OrderList(self._words, root, count)
