"""Pins that name what is no record: such a segment is not taken over, and the check says so."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import closing
from struct import pack_into
from types import ModuleType

import pytest

from shmstore.errors import CorruptSegment
from shmstore.layout import (
    CLASS_HEAD,
    CLASS_PIN,
    COMMITTED_WORD,
    DEAD,
    ENTRY_HEADER_BYTES,
    EXTENT_END_WORD,
    GRANULE_BYTES,
    GRANULE_MASK,
    INSERTION_MASK,
    KEY_SIZE_SHIFT,
    KIND_GHOST,
    KIND_SHIFT,
    NEXT_INSERTION_WORD,
    PREV_FIELD,
    ROOT_WORD,
    SEGMENT_SLOTS,
    SEQ_FIELD,
    SHAPE_FIELD,
    VACATED,
    WORD_BYTES,
)
from shmstore.pure.index import segment_starts
from shmstore.pure.lookup import Lookup
from shmstore.pure.records import list_name, load_entry
from tests.segments import Segment, nothing

HOLDER = b"one"


def pin_words(memory: mmap.mmap) -> Iterator[int]:
    """The granules of the pins."""
    with memoryview(memory) as data, data.cast("Q") as words:
        for base in segment_starts(words):
            for word in words[base : base + SEGMENT_SLOTS].tolist():
                granule = word & GRANULE_MASK
                if word > VACATED and load_entry(words, granule).shape.kind == CLASS_PIN:
                    yield granule


def set_word(memory: mmap.mmap, at: int, value: int) -> None:
    pack_into("<Q", memory, at * WORD_BYTES, value)


def word(memory: mmap.mmap, at: int) -> int:
    return int.from_bytes(memory[at * WORD_BYTES : (at + 1) * WORD_BYTES], "little")


def point(memory: mmap.mmap, granule: int) -> None:
    [pin] = pin_words(memory)
    point_at(memory, pin, len(HOLDER) + 8, granule)


def point_at(memory: mmap.mmap, pin: int, key_size: int, granule: int) -> None:
    pack_into("<Q", memory, pin * GRANULE_BYTES + ENTRY_HEADER_BYTES + key_size - 8, granule)


def at_free_memory(memory: mmap.mmap, held: int) -> None:
    point(memory, word(memory, EXTENT_END_WORD) // GRANULE_BYTES - 100)


def at_the_header(memory: mmap.mmap, held: int) -> None:
    point(memory, 1)


def at_the_index(memory: mmap.mmap, held: int) -> None:
    point(memory, word(memory, ROOT_WORD) & GRANULE_MASK)


def at_itself(memory: mmap.mmap, held: int) -> None:
    point(memory, next(pin_words(memory)))


def at_the_middle_of_a_value(memory: mmap.mmap, held: int) -> None:
    """Even where the value looks like an entry: it lies inside another one."""
    [start] = [memory.find(b"holds an entry".ljust(16, b"."))]
    at = start // GRANULE_BYTES + 2
    memory[at * GRANULE_BYTES : (at + 12) * GRANULE_BYTES] = memory[
        held * GRANULE_BYTES : (held + 12) * GRANULE_BYTES
    ]
    point(memory, at)


def outside(memory: mmap.mmap, held: int) -> None:
    point(memory, GRANULE_MASK)


def beyond_all_granules(memory: mmap.mmap, held: int) -> None:
    point(memory, GRANULE_MASK + 1)


def without_a_granule(memory: mmap.mmap, held: int) -> None:
    [at] = pin_words(memory)
    set_word(memory, at * 2 + SHAPE_FIELD, CLASS_PIN << KIND_SHIFT | 7 << KEY_SIZE_SHIFT)


def made_of_a_head(memory: mmap.mmap, held: int) -> None:
    """Its nodes would be free memory."""
    with memoryview(memory) as data, data.cast("Q") as words:
        for base in segment_starts(words):
            for leading in words[base : base + SEGMENT_SLOTS].tolist():
                granule = leading & GRANULE_MASK
                shape = load_entry(words, granule).shape
                if leading > VACATED and shape.kind == CLASS_HEAD and shape.key_size > 20:
                    words[granule * 2 + SHAPE_FIELD] |= CLASS_PIN << KIND_SHIFT
                    point_at(memory, granule, shape.key_size, held)
                    return
    raise AssertionError("there is no head of a long name")


def dead_in_a_later_batch(memory: mmap.mmap, held: int) -> None:
    set_word(memory, held * 2 + PREV_FIELD, DEAD | 1 << 40)


def of_a_later_batch(memory: mmap.mmap, held: int) -> None:
    set_word(memory, held * 2 + SEQ_FIELD, 1 << 40)


def larger_than_the_memory(memory: mmap.mmap, held: int) -> None:
    set_word(memory, held * 2, 0xFFFFFFFF)


def larger_than_its_block(memory: mmap.mmap, held: int) -> None:
    set_word(memory, held * 2, 40_000)


def a_ghost(memory: mmap.mmap, held: int) -> None:
    set_word(
        memory,
        held * 2 + SHAPE_FIELD,
        word(memory, held * 2 + SHAPE_FIELD) | KIND_GHOST << KIND_SHIFT,
    )


def never_inserted(memory: mmap.mmap, held: int) -> None:
    shape = word(memory, held * 2 + SHAPE_FIELD) & ~INSERTION_MASK
    set_word(memory, held * 2 + SHAPE_FIELD, shape | word(memory, NEXT_INSERTION_WORD))


Damage = Callable[[mmap.mmap, int], None]


@pytest.mark.parametrize(
    "damage",
    [
        at_free_memory,
        at_the_header,
        at_the_index,
        at_itself,
        at_the_middle_of_a_value,
        outside,
        beyond_all_granules,
        without_a_granule,
        made_of_a_head,
        dead_in_a_later_batch,
        of_a_later_batch,
        larger_than_the_memory,
        larger_than_its_block,
        a_ghost,
        never_inserted,
    ],
)
def test_a_pin_of_what_is_no_record_is_not_taken_over(engine: ModuleType, damage: Damage) -> None:
    with closing(Segment(engine, 1 << 20)) as segment:
        segment.put("k", b"looked at" * 40, "table of a long name")
        held, *_ = segment.owner.pin(HOLDER, "table of a long name", "", "k")
        segment.put("k", b"replaced", "table of a long name")
        segment.put("around", b"holds an entry".ljust(16, b".") + bytes(3000))
        segment.take_over()
        assert segment.owner.check() == []
        damage(segment.memory, held)
        assert engine.check_segment(segment.memory) != []
        with pytest.raises(
            CorruptSegment, match=r"taken over: (a pin |two blocks overlap|the ent)"
        ):
            engine.Owner.take_over(segment.memory, nothing, nothing)


def test_a_pin_of_a_node_that_looks_like_a_record_is_not_taken_over(engine: ModuleType) -> None:
    """Its elements can be read as a batch, an insertion number, a key class."""
    with closing(Segment(engine)) as segment:
        for i in range(3000):
            segment.owner.put("s", "n", f"k{i}", b"", -(2**63))
        segment.put("k", b"pinned")
        segment.owner.pin(HOLDER, "t", "", "k")
        segment.owner.commit()
        memory = segment.memory
        set_word(memory, NEXT_INSERTION_WORD, INSERTION_MASK)
        point(memory, next(node for node in nodes(memory) if looks_like_a_record(memory, node)))
        with pytest.raises(CorruptSegment, match="where no record is"):
            engine.Owner.take_over(memory, nothing, nothing)


def nodes(memory: mmap.mmap) -> Iterator[int]:
    """The leaves of the list of (s, n)."""
    with closing(Lookup(memory)) as lookup:
        _, root = lookup._head(list_name("s", "n"), word(memory, COMMITTED_WORD))
        assert root is not None
        assert root.level == 1
        for child in root.children:
            assert isinstance(child, int)
            yield child


def looks_like_a_record(memory: mmap.mmap, granule: int) -> bool:
    with memoryview(memory) as data, data.cast("Q") as words:
        entry = load_entry(words, granule)
        return entry.shape.is_record and entry.insertion > 0
