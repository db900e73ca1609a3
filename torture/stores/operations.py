"""What can be read of a segment, and what a writer does to it."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

from shmstore.pure.records import load_value

Operation = Callable[[Any], None]
"""Changes a segment by its owner; whoever calls it commits."""

INDEX = b"\x92status"
OTHER_INDEX = b"\x92region"
PLAIN = ("t", "u")
STORE, NAMESPACE = "s", "global"
CURSORS = ("id99", "id20", "id21", "g0")


def answers(reader: Any) -> Iterator[Any]:
    """Yield all that can be read of the segment: each answer is of one snapshot, the next of the
    same or a later one."""
    for table in PLAIN:
        yield reader.chunk(table, "", b"", None, None, False)
        yield reader.count(table, "")
    scope = reader.scope("t", "")
    yield reader.get_many(scope, [f"k{i}" for i in range(0, 150, 7)] + ["k0", "k1", "k3", "k5"])
    yield reader.chunk(STORE, NAMESPACE, b"", None, None, False)
    yield reader.count(STORE, NAMESPACE)
    for index in (INDEX, OTHER_INDEX):
        yield reader.chunk(STORE, NAMESPACE, index, None, None, True)
        yield reader.count(STORE, NAMESPACE, index)
    for cursor in CURSORS:
        try:
            yield reader.page(STORE, NAMESPACE, 3, cursor, None)
        except LookupError:
            yield None


def contents(reader: Any) -> list[Any]:
    """Return all that can be read of a segment that nobody changes."""
    return list(answers(reader))


def pinned(owner: Any, memory: mmap.mmap) -> list[list[Any]]:
    """Return the holder, the granule and the checksum of the value of each pin."""
    with memoryview(memory) as data, data.cast("Q") as words:
        return [
            [holder.hex(), granule, crc32(load_value(words, data, granule * 2))]
            for holder, granule, _ in owner.pins()
        ]


def fill(owner: Any) -> None:
    """Put records, and delete some of them; those of a store leave ghosts."""
    for i in range(150):
        owner.put("t", "", f"k{i}", b"v" * i)
        owner.put(STORE, NAMESPACE, f"id{i}", b"r" * 50, i % 7, (), (INDEX,))
    owner.commit()
    for i in range(0, 40, 2):
        owner.remove("t", "", f"k{i}")
        owner.remove(STORE, NAMESPACE, f"id{i}", (INDEX,), ghost=True)
    owner.commit()


def put_new(owner: Any) -> None:
    owner.put("t", "", "new", b"value")


def put_into_a_new_table(owner: Any) -> None:
    owner.put("u", "", "first", b"value")


def replace(owner: Any) -> None:
    owner.put("t", "", "k101", b"u" * 101)


def replace_larger(owner: Any) -> None:
    owner.put("t", "", "k101", b"x" * 9000)


def replace_smaller(owner: Any) -> None:
    owner.put("t", "", "k101", b"x")


def put_again_after_delete(owner: Any) -> None:
    owner.put("t", "", "k0", b"again")
    owner.put(STORE, NAMESPACE, "id0", b"again", 3, (), (INDEX,))


def delete(owner: Any) -> None:
    owner.remove("t", "", "k99")


def delete_all_there_is(owner: Any) -> None:
    owner.remove("u", "", "first")


def delete_leaving_a_ghost(owner: Any) -> None:
    owner.remove(STORE, NAMESPACE, "id99", (INDEX,), ghost=True)


def change_place_and_index(owner: Any) -> None:
    owner.put(STORE, NAMESPACE, "id101", b"moved", 500, (INDEX,), ())


def put_into_other_indexes(owner: Any) -> None:
    owner.reindex(STORE, NAMESPACE, "id103", (INDEX,), (OTHER_INDEX,))
    owner.reindex(STORE, NAMESPACE, "id105", (), (OTHER_INDEX,))


def batch_over_tables(owner: Any) -> None:
    owner.put("t", "", "k1", b"one")
    owner.put("u", "", "first", b"two")
    owner.remove("t", "", "k3")
    owner.put("t", "", "k3", b"three")
    owner.put("t", "", "k5", b"four")
    owner.remove("t", "", "k5")
    owner.put(STORE, NAMESPACE, "id5", b"five", 1, (INDEX,), (INDEX,))


def drop_a_batch(owner: Any) -> None:
    batch_over_tables(owner)
    owner.abort()


def clear(owner: Any) -> None:
    owner.clear("t", "", ())
    owner.clear(STORE, NAMESPACE, (INDEX, OTHER_INDEX))


def grow_the_index(owner: Any) -> None:
    for i in range(160):
        owner.put("u", "", f"g{i}", b"")


def settle(owner: Any) -> None:
    while owner.settle():
        pass


def pin(owner: Any) -> None:
    for holder, key in ((b"one", "k99"), (b"one", "k101"), (b"two", "k101")):
        owner.pin(holder, "t", "", key)
    owner.pin(b"two", STORE, NAMESPACE, "id101")


def replace_what_is_pinned(owner: Any) -> None:
    owner.put("t", "", "k101", b"other")
    owner.remove("t", "", "k99")
    owner.remove(STORE, NAMESPACE, "id101", (INDEX,), ghost=True)


def hand_over(owner: Any) -> None:
    for holder, granule, _ in owner.pins():
        if holder == b"two":
            owner.share_pin(b"three", granule)
            owner.unpin(holder, granule)


def pin_what_the_batch_writes(owner: Any) -> None:
    owner.put("t", "", "k101", b"pinned")
    owner.pin(b"one", "t", "", "k101")
    owner.put("t", "", "k101", b"last")
    owner.pin(b"two", "t", "", "k101")
    owner.remove("t", "", "k101")
    granule, *_ = owner.pin(b"one", "t", "", "k103")
    owner.unpin(b"one", granule)


def unpin(owner: Any) -> None:
    for holder, granule, _ in owner.pins():
        owner.unpin(holder, granule)
    owner.put("t", "", "k99", b"again")


PINS = (
    pin,
    replace_what_is_pinned,
    settle,
    hand_over,
    pin_what_the_batch_writes,
    clear,
    settle,
    grow_the_index,
    unpin,
    settle,
)
"""Each follows the ones before it, the first one ``fill``."""

OPERATIONS = (
    put_new,
    put_into_a_new_table,
    replace,
    replace_larger,
    replace_smaller,
    put_again_after_delete,
    delete,
    delete_all_there_is,
    delete_leaving_a_ghost,
    change_place_and_index,
    put_into_other_indexes,
    batch_over_tables,
    drop_a_batch,
    settle,
    clear,
    grow_the_index,
)
"""Each can follow the one before it, and each can follow ``fill``."""
