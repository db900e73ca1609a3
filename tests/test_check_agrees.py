"""Both engines check alike: the same problems in the same words and order, whatever is damaged.

Damage is put into copies of a few segments, one or many words at a time; checksums are made to
fit in half of them, so that what lies behind them is looked at. SHMSTORE_STRESS=N as usual.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from contextlib import closing, suppress
from struct import pack_into
from types import ModuleType

import pytest

from shmstore import pure
from shmstore.engine import load_native
from shmstore.layout import (
    CLASS_PIN,
    DEAD,
    DEPTH_SHIFT,
    ENTRY_HEADER_BYTES,
    EXTENT_END_WORD,
    GRANULE_BYTES,
    GRANULE_MASK,
    HEAP_START,
    ROOT_WORD,
    SEGMENT_SLOTS,
    SHAPE_FIELD,
    VACATED,
    WORD_BYTES,
)
from shmstore.pure.index import segment_starts
from shmstore.pure.records import Damaged, entry_checksum, load_entry
from tests.segments import Segment

COPIES = 150 * int(os.environ.get("SHMSTORE_STRESS", "1"))
"""Damaged copies of each segment, and of each kind of damage."""
CAPACITY = 1 << 20
INDEX = b"\x92a\xff'\\"


@pytest.fixture(scope="module")
def native() -> ModuleType:
    try:
        return load_native()
    except ImportError as error:
        if os.environ.get("SHMSTORE_ENGINE") == "native":
            raise
        pytest.skip(f"no native engine here: {error}")


def filled(records: int, large: int) -> Segment:
    segment = Segment(pure, CAPACITY)
    owner = segment.owner
    for i in range(records):
        owner.put("t", "", f"k{i}", b"v" * (i % 50))
    for i in range(records // 3):
        owner.put("sé'", "a\nb" * 20, f"id{i}", b"r" * 9, i % 7, (), (INDEX,) if i % 2 else ())
    for i in range(large):
        owner.put("u", "", b"\xff%d" % i, bytes(5000))
    for i in range(0, records // 3, 3):
        owner.pin(b"holder %d" % (i % 2), "t", "", f"k{i}")
        owner.pin(b"another", "t", "", f"k{i}")
    owner.commit()
    for i in range(0, records // 3, 5):
        owner.remove("t", "", f"k{i}")
        owner.remove("sé'", "a\nb" * 20, f"id{i}", (INDEX,) if i % 2 else (), ghost=True)
        owner.put("t", "", f"k{i + 1}", b"again")
    owner.commit()
    return segment


@pytest.fixture(scope="module", params=[(0, 0), (9, 0), (60, 3), (700, 2)])
def original(request: pytest.FixtureRequest) -> bytes:
    with closing(filled(*request.param)) as segment:
        assert segment.owner.check() == []
        return bytes(segment.memory)


class Copies:
    """One piece of memory, which is damaged again and again."""

    def __init__(self, original: bytes, native: ModuleType) -> None:
        self.original = original
        self.native = native
        self.memory = mmap.mmap(-1, len(original))
        self.memory[:] = original
        self.data = memoryview(self.memory)
        self.words = self.data.cast("Q")
        self.problems: set[str] = set()
        bases = segment_starts(self.words)
        slots = [base + slot for base in bases for slot in range(SEGMENT_SLOTS)]
        self.leading = [at for at in slots if self.words[at] > VACATED]
        self.slots = slots
        self.entries = [self.words[at] & GRANULE_MASK for at in self.leading]
        shapes = {granule: load_entry(self.words, granule).shape for granule in self.entries}
        self.pins = {
            granule: granule * GRANULE_BYTES + ENTRY_HEADER_BYTES + shape.key_size - 8
            for granule, shape in shapes.items()
            if shape.kind == CLASS_PIN
        }
        """Where in the memory the granule is that each pin names."""
        named = [int.from_bytes(self.memory[at : at + 8], "little") for at in self.pins.values()]
        self.entries += [granule for granule in dict.fromkeys(named) if granule not in shapes]
        end = self.words[EXTENT_END_WORD] // WORD_BYTES
        self.used = [at for at in range(HEAP_START // WORD_BYTES, end) if self.words[at]]

    def close(self) -> None:
        self.words.release()
        self.data.release()
        self.memory.close()

    def compare(self, what: object, unused: list[tuple[int, int]] | None) -> None:
        """Let both check the copy; then it is sound again."""
        expected = pure.check_segment(self.memory, unused)
        assert self.native.check_segment(self.memory, unused) == expected, what
        assert len(expected) <= 100
        self.problems.update(expected)
        self.memory[:] = self.original

    def reseal(self) -> None:
        """Give every entry the checksum of what it is now."""
        for granule in self.entries:
            with suppress(Damaged, IndexError):
                entry = load_entry(self.words, granule)
                checksum = entry_checksum(self.words, self.data, entry)
                self.words[granule * 2] = self.words[granule * 2] & 0xFFFFFFFF | checksum << 32


Damage = Callable[[Copies, random.Random], None]


def some_words(copies: Copies, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 10, 200])):
        at = rng.choice(copies.used) if rng.random() < 0.8 else rng.randrange(5, 24)
        old = copies.words[at]
        copies.words[at] = rng.choice(
            [
                *(0, 1, rng.getrandbits(64), rng.getrandbits(40), 2**64 - 1),
                *(old ^ 1 << rng.randrange(64), (old + rng.choice([-1, 1, 16])) % 2**64),
                copies.words[rng.choice(copies.used)],
            ]
        )


def index_words(copies: Copies, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 2, 5])):
        source, target = rng.choice(copies.slots), rng.choice(copies.slots)
        copies.words[target] = copies.words[source]
        if rng.random() < 0.5:
            copies.words[source] = rng.choice([0, VACATED])


def directory(copies: Copies, rng: random.Random) -> None:
    root = copies.words[ROOT_WORD]
    start, depth = (root & GRANULE_MASK) * 2, root >> DEPTH_SHIFT
    for _ in range(rng.choice([1, 2])):
        at = start + rng.randrange(1 << depth)
        granule = copies.words[rng.choice([at, start, start + (1 << depth) - 1])] & GRANULE_MASK
        copies.words[at] = rng.choice([0, 1, 2, 5, 63, 64, 65, 255]) << DEPTH_SHIFT | granule
    if rng.random() < 0.3:
        copies.words[ROOT_WORD] = rng.choice([0, 1, 2, 3, 15, 27, 28]) << DEPTH_SHIFT | start // 2


def entries(copies: Copies, rng: random.Random) -> None:
    for granule in rng.sample(copies.entries, min(len(copies.entries), rng.choice([1, 3]))):
        field = granule * 2 + rng.randrange(9)
        copies.words[field] = rng.choice(
            [
                copies.words[field] ^ 1 << rng.randrange(64),
                copies.words[field] ^ 1 << rng.randrange(43, 48),
                copies.words[rng.choice(copies.entries) * 2 + rng.randrange(9)],
                DEAD | rng.randrange(5),
            ]
        )


def shapes(copies: Copies, rng: random.Random) -> None:
    for granule in rng.sample(copies.entries, min(len(copies.entries), 2)):
        copies.words[granule * 2 + SHAPE_FIELD] += rng.choice([1, -1, 1 << 43, 1 << 47, -1 << 47])


def pins(copies: Copies, rng: random.Random) -> None:
    for at in rng.sample(list(copies.pins.values()), rng.choice([1, 2, 3])):
        granule = rng.choice([rng.choice(copies.entries), rng.getrandbits(16), rng.getrandbits(38)])
        granule = rng.choice([granule, rng.choice(copies.used) // 2, rng.randrange(3)])
        pack_into("<Q", copies.memory, at, granule)


@pytest.mark.parametrize("damage", [some_words, index_words, directory, entries, shapes, pins])
def test_problems_are_the_same(native: ModuleType, original: bytes, damage: Damage) -> None:
    rng = random.Random(f"{damage.__name__} {len(original.rstrip(bytes(1)))}")
    with closing(Copies(original, native)) as copies:
        copies.compare("nothing", None)
        assert copies.problems == set()
        if (damage in (entries, shapes) and not copies.entries) or (
            damage is pins and len(copies.pins) < 3
        ):
            return
        for number in range(COPIES if len(copies.entries) < 200 else COPIES // 5):
            damage(copies, rng)
            if rng.random() < 0.5:
                copies.reseal()
            unused = [(rng.randrange(1 << 16), rng.randrange(1 << 12)) for _ in range(9)]
            copies.compare(number, rng.choice([None, None, unused]))
        assert len(copies.problems) > 5


SIZES = [0, 8, 16, HEAP_START - 16, HEAP_START - 8, HEAP_START, HEAP_START + 8, HEAP_START + 16]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x01"])
def test_memory_that_is_no_segment(native: ModuleType, size: int, fill: bytes) -> None:
    memory = memoryview(bytearray(fill * size))
    problems = native.check_segment(memory)
    assert problems == pure.check_segment(memory)
    assert problems


def test_what_is_unused_is_given_as_pairs(native: ModuleType) -> None:
    with closing(Segment(native, CAPACITY)) as segment:
        assert native.check_segment(segment.memory, unused=iter([])) != []
        for wrong in (7, [7], [(1,)], [("a", 1)]):
            with pytest.raises(TypeError):
                native.check_segment(segment.memory, wrong)
        for beyond in (-1, 1 << 36, 1 << 64):
            with pytest.raises(OverflowError):
                native.check_segment(segment.memory, [(beyond, GRANULE_BYTES)])
        with pytest.raises(TypeError):
            native.check_segment(7)


def test_memory_that_begins_inside_a_word_is_refused(native: ModuleType) -> None:
    memory = memoryview(bytearray(2 * HEAP_START))[1 : 1 + HEAP_START]
    with pytest.raises(ValueError, match="whole word"):
        native.check_segment(memory)
