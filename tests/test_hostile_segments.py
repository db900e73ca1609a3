"""Segments that are damaged anywhere: whoever looks gets an answer, and the check knows.

Memory that a reader maps may hold anything: a failing machine, a writer with a bug. No number in
it may lead out of it, into an endless loop, or to an error that does not say what it is.
"""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from struct import pack_into, unpack_from
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shmstore.errors import CorruptSegment, FormatMismatch, ReadStalled, UnknownCursor
from shmstore.layout import (
    CAPACITY_WORD,
    CLASS_PIN,
    COMMITTED_WORD,
    DEAD,
    DEPTH_SHIFT,
    EXTENT_END_WORD,
    FREE_CLOCK_WORD,
    GRANULE_BYTES,
    GRANULE_MASK,
    HEAP_START,
    HORIZON_WORD,
    LEVELS_MAX,
    MAGIC_WORD,
    NEXT_INSERTION_WORD,
    NODE_ELEMENTS_MAX,
    NODE_LEVEL_SHIFT,
    NODE_WIDTH_SHIFT,
    PREV_FIELD,
    ROOT_WORD,
    SECRET_WORD,
    SEGMENT_ID_WORD,
    SEGMENT_SLOTS,
    SEQ_FIELD,
    VERSION_WORD,
    WORD_BYTES,
)
from shmstore.pure.index import index_blocks
from shmstore.pure.records import load_entry, load_key, load_shape
from tests.segments import Segment, nothing

CAPACITY = 1 << 20
STATUS = b"\x92f1"
OTHER = b"\x92f2"
PLAIN = [("t", ""), ("u", ""), ("large", "")]
LISTS = [
    *[(*place, b"") for place in PLAIN],
    ("s", "n", b""),
    ("s", "n", STATUS),
    ("s", "n", OTHER),
]
KEYS = [*[f"k{i}" for i in range(0, 380, 9)], "k3", b"k3", "none", "id0", "id5", "id199", "v3", ""]

ANSWERS = (CorruptSegment, FormatMismatch, ReadStalled, UnknownCursor)
"""What a look at a damaged segment may raise."""
HEADER_WORDS = (
    *(MAGIC_WORD, VERSION_WORD, CAPACITY_WORD, SEGMENT_ID_WORD, SECRET_WORD, SECRET_WORD + 4),
    *(FREE_CLOCK_WORD, COMMITTED_WORD, HORIZON_WORD, ROOT_WORD),
    *(NEXT_INSERTION_WORD, EXTENT_END_WORD),
)
INTERESTING = (0, 1, 2, 7, 1 << 16, (1 << 32) - 1, GRANULE_MASK, 1 << 56, DEAD, DEAD | 3, 2**64 - 1)


def build(engine: ModuleType) -> bytes:
    """A segment with one of everything: a split index, lists of three levels, ghosts, entries
    deleted and still in their words, several versions, large values, some of them pinned."""
    segment = Segment(engine, CAPACITY)
    owner = segment.owner
    for i in range(380):
        owner.put("t", "", f"k{i}", b"v" * (i % 40))
    for i in range(200):
        owner.put("s", "n", f"id{i}", b"r" * 20, i % 7, (), (STATUS if i % 3 else OTHER,))
    owner.commit()
    for i in range(6):
        owner.put("t", "", b"k3", bytes([i]) * 10)
        owner.put("u", "", f"v{i}", bytes([i]) * 700)
        owner.pin(b"holder", "u", "", f"v{i}")
        owner.pin(b"holder", "t", "", b"k3")
        owner.pin(b"another", "t", "", f"k{i * 9}")
        owner.put("large", "", f"v{i}", bytes([i]) * 9000)
        owner.remove("t", "", f"k{i * 9}")
        owner.remove("s", "n", f"id{i * 5}", (STATUS if i * 5 % 3 else OTHER,), ghost=True)
        owner.commit()
    assert owner.check() == []
    content = bytes(segment.memory)
    segment.close()
    return content


@pytest.fixture(scope="module")
def contents() -> dict[str, Any]:
    """What was built, and what a sound segment says, by engine."""
    return {}


@pytest.fixture
def original(engine: ModuleType, contents: dict[str, Any]) -> bytes:
    if engine.__name__ not in contents:
        contents[engine.__name__] = build(engine)
    made: bytes = contents[engine.__name__]
    return made


class Damaged:
    """A copy of a segment that is to be damaged."""

    def __init__(self, engine: ModuleType, original: bytes) -> None:
        self.engine = engine
        self.memory = mmap.mmap(-1, len(original))
        self.memory[:] = original

    def __enter__(self) -> Damaged:
        return self

    def __exit__(self, *_: object) -> None:
        self.memory.close()

    def word(self, at: int) -> int:
        number: int = unpack_from("<Q", self.memory, at * WORD_BYTES)[0]
        return number

    def set_word(self, at: int, value: int) -> None:
        pack_into("<Q", self.memory, at * WORD_BYTES, value % (1 << 64))

    # Who looks

    def read(self) -> tuple[list[Any], int]:
        """Call every method of a reader; return what plain tables hold and how many calls were
        answered with an error."""
        try:
            reader = self.engine.Reader(self.memory)
        except ANSWERS:
            return [], 1
        found: list[Any] = []
        errors = 0
        for method, arguments, matters in calls(reader):
            try:
                result = getattr(reader, method)(*arguments)
            except ANSWERS as error:
                result, errors = None, errors + (not isinstance(error, UnknownCursor))
            if matters:
                found.append(result)
        reader.close()
        return found, errors

    def check(self) -> list[str]:
        """Walk the segment as a reader may."""
        try:
            reader = self.engine.Reader(self.memory)
        except ANSWERS as error:
            return [str(error)]
        problems: list[str] = self.engine.check_segment(self.memory)
        reader.close()
        return problems

    def take_over(self) -> str | None:
        """Let a writer take it over and look; return why it would not."""
        try:
            owner = self.engine.Owner.take_over(self.memory, nothing, nothing)
        except (CorruptSegment, FormatMismatch) as error:
            return str(error)
        try:
            assert isinstance(owner.check(), list)
            assert len(owner.pins()) == owner.statistics()["pins"]
            self.read()
        finally:
            owner.close()
        return None


def calls(reader: Any) -> Iterator[tuple[str, list[Any], bool]]:
    """Every public read, and whether what it returns depends on plain tables alone."""
    for place in PLAIN:
        scope = reader.scope(*place)
        yield "get_many", [scope, KEYS], True
        for key in KEYS[::7]:
            yield "get", [scope, key], True
            yield "get_versioned", [scope, key], True
            yield "version", [scope, key], True
            yield "contains", [scope, key], True
    for listing in LISTS:
        plain = listing[:2] in PLAIN
        yield "count", [*listing], plain
        for newest_first in (False, True):
            yield "chunk", [*listing, None, None, newest_first], plain
            yield "chunk", [*listing, [3, 100], 7, newest_first], plain
    for cursor in ("id199", "id5", "id1", "none"):
        yield "page", ["s", "n", 3, cursor, None], False
        yield "page", ["s", "n", 3, None, cursor], False
    yield "page", ["s", "n", 100, None, None], False
    yield "info", [], False


def examine(damaged: Damaged, sound: list[Any]) -> str:
    """Let all look at a damaged segment; return in a word what came of it."""
    problems = damaged.check()
    found, errors = damaged.read()
    if not problems:
        assert not errors, "a read failed in a segment the check finds sound"
        assert found == sound, "records changed in a segment the check finds sound"
    refusal = damaged.take_over()
    if refusal:
        return "refused"
    return "named" if problems else "harmless"


@pytest.fixture
def sound(engine: ModuleType, original: bytes) -> list[Any]:
    with Damaged(engine, original) as undamaged:
        assert undamaged.check() == []
        found, errors = undamaged.read()
        assert not errors
        assert examine(undamaged, found) == "harmless"
    return found


# Damage at random


def targets(original: bytes) -> dict[str, list[int]]:
    """Word indexes of the parts of a segment."""
    words = memoryview(original).cast("Q")
    index = [block[0] * 2 + i for block in index_blocks(words) for i in range(block[1] * 2)]
    directory, *segments = index_blocks(words)
    entries: list[int] = []
    pinned: list[int] = []
    for start, _ in segments:
        for at in range(start * 2, start * 2 + SEGMENT_SLOTS):
            if words[at] > 1:
                granule = words[at] & GRANULE_MASK
                shape = load_entry(words, granule).shape
                entries += [granule * 2 + i for i in range(min(shape.granules * 2, 12))]
                if shape.kind == CLASS_PIN:
                    key = load_key(words.cast("B"), granule * 2, shape)
                    held = int.from_bytes(key[-8:], "little")
                    pinned += [*range(granule * 2, granule * 2 + 7), *range(held * 2, held * 2 + 6)]
    depth = words[ROOT_WORD] >> DEPTH_SHIFT
    used = [at for at in range(HEAP_START // WORD_BYTES, len(words)) if words[at]]
    return {
        "header": list(HEADER_WORDS),
        "directory": [directory[0] * 2 + i for i in range(1 << depth)],
        "index": [at for at in index if words[at]],
        "entries": entries,
        "pinned": pinned,
        "anything": used,
    }


def damage(memory: mmap.mmap, rng: random.Random, parts: dict[str, list[int]]) -> str:
    """Damage one thing; say what."""
    part = rng.choice([*parts, "index", "entries", "entries"])
    at = rng.choice(parts[part])
    (old,) = unpack_from("<Q", memory, at * WORD_BYTES)
    (other,) = unpack_from("<Q", memory, rng.choice(parts[part]) * WORD_BYTES)
    kind = rng.choice(["bit", "byte", "other", "near", "interesting", "field"])
    new = {
        "bit": old ^ 1 << rng.randrange(64),
        "byte": old & ~(0xFF << (shift := rng.randrange(8) * 8)) | rng.randrange(256) << shift,
        "other": other,
        "near": (old + rng.choice([-2, -1, 1, 2, 16])) % (1 << 64),
        "interesting": rng.choice(INTERESTING),
        "field": old & ~GRANULE_MASK | rng.choice(INTERESTING) & GRANULE_MASK,
    }[kind]
    pack_into("<Q", memory, at * WORD_BYTES, new)
    return f"{part}: word {at} from {old:#x} to {new:#x}"


@pytest.mark.parametrize("seed", range(8))
def test_one_damaged_word_is_answered_and_known(
    engine: ModuleType, original: bytes, sound: list[Any], seed: int
) -> None:
    rng, parts = random.Random(seed), targets(original)
    outcomes = {"harmless": 0, "named": 0, "refused": 0}
    for _ in range(30):
        with Damaged(engine, original) as damaged:
            what = damage(damaged.memory, rng, parts)
            try:
                outcomes[examine(damaged, sound)] += 1
            except Exception as error:
                raise AssertionError(f"after {what}") from error
    assert outcomes["named"] + outcomes["refused"] > 5


@pytest.mark.parametrize("seed", range(4))
def test_much_damage_is_answered(
    engine: ModuleType, original: bytes, sound: list[Any], seed: int
) -> None:
    rng, parts = random.Random(seed + 100), targets(original)
    for _ in range(15):
        with Damaged(engine, original) as damaged:
            members = [damage(damaged.memory, rng, parts) for _ in range(rng.randrange(2, 60))]
            try:
                examine(damaged, sound)
            except Exception as error:
                raise AssertionError(f"after {members}") from error


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    start=st.integers(0, CAPACITY - 1) | st.integers(0, 40_000),
    content=st.binary(min_size=1, max_size=300),
    spread=st.sampled_from([1, 3, 16]),
)
def test_any_bytes_anywhere_are_answered(
    engine: ModuleType, original: bytes, sound: list[Any], start: int, content: bytes, spread: int
) -> None:
    with Damaged(engine, original) as damaged:
        for i, byte in enumerate(content):
            damaged.memory[(start + i * spread) % CAPACITY] = byte
        examine(damaged, sound)


@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x01", b"\x80"])
@pytest.mark.parametrize("part", ["header line", "index", "heap", "all but the header"])
def test_whole_parts_overwritten_are_answered(
    engine: ModuleType, original: bytes, sound: list[Any], fill: bytes, part: str
) -> None:
    index = memoryview(original).cast("Q")
    [(start, size), *_] = index_blocks(index)[1:]
    first, end = {
        "header line": (FREE_CLOCK_WORD * 8, EXTENT_END_WORD * 8 + 8),
        "index": (start * GRANULE_BYTES, (start + size) * GRANULE_BYTES),
        "heap": ((start + size) * GRANULE_BYTES, CAPACITY),
        "all but the header": (HEAP_START, CAPACITY),
    }[part]
    with Damaged(engine, original) as damaged:
        damaged.memory[first:end] = fill * (end - first)
        examine(damaged, sound)


@pytest.mark.parametrize("size", [4096, 8192, 1 << 16])
@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_memory_with_a_header_and_nothing_else_is_answered(
    engine: ModuleType, size: int, fill: bytes
) -> None:
    original = bytearray(fill * size)
    pack_into("<3Q", original, 0, *unpack_from("<3Q", build(engine), 0)[:2], size)
    with Damaged(engine, bytes(original)) as damaged:
        assert damaged.check() != []
        assert damaged.take_over() is not None


# Damage with intent

EXTREMES = [0, 1, 5, 63, 64, 65, 127, 255]


@pytest.mark.parametrize("depth", EXTREMES)
def test_any_depth_of_the_directory(
    engine: ModuleType, original: bytes, sound: list[Any], depth: int
) -> None:
    with Damaged(engine, original) as damaged:
        root = damaged.word(ROOT_WORD)
        damaged.set_word(ROOT_WORD, depth << DEPTH_SHIFT | root & GRANULE_MASK)
        examine(damaged, sound)


@pytest.mark.parametrize("depth", EXTREMES)
@pytest.mark.parametrize("granule", [None, 0, 1, (CAPACITY >> 4) - 1, GRANULE_MASK])
def test_any_word_of_the_directory(
    engine: ModuleType, original: bytes, sound: list[Any], depth: int, granule: int | None
) -> None:
    with Damaged(engine, original) as damaged:
        at = (damaged.word(ROOT_WORD) & GRANULE_MASK) * 2
        granule = damaged.word(at) & GRANULE_MASK if granule is None else granule
        damaged.set_word(at, depth << DEPTH_SHIFT | granule)
        examine(damaged, sound)


@pytest.mark.parametrize("word", HEADER_WORDS)
@pytest.mark.parametrize("value", [0, 1, 0xFFF, CAPACITY - 16, CAPACITY * 2, DEAD, 2**64 - 1])
def test_any_header(
    engine: ModuleType, original: bytes, sound: list[Any], word: int, value: int
) -> None:
    with Damaged(engine, original) as damaged:
        damaged.set_word(word, value)
        examine(damaged, sound)


@pytest.mark.parametrize("back", [1, 2, 5, 6, 7])
def test_a_committed_sequence_that_was_set_back(
    engine: ModuleType, original: bytes, sound: list[Any], back: int
) -> None:
    """Versions of before may lie in blocks that were used again since, even in a circle."""
    with Damaged(engine, original) as damaged:
        damaged.set_word(COMMITTED_WORD, damaged.word(COMMITTED_WORD) - back)
        assert damaged.check() != []
        examine(damaged, sound)


def entry_of(damaged: Damaged, choose: Callable[[Any], bool]) -> int:
    """The word index of some entry."""
    words = memoryview(damaged.memory).cast("Q")
    try:
        for start, _ in index_blocks(words)[1:]:
            for at in range(start * 2, start * 2 + SEGMENT_SLOTS):
                if words[at] > 1 and choose(load_entry(words, words[at] & GRANULE_MASK)):
                    return (words[at] & GRANULE_MASK) * 2
    finally:
        words.release()
    raise AssertionError("there is no such entry")


@pytest.mark.parametrize("back", [1, 7])
def test_versions_in_a_circle_end(
    engine: ModuleType, original: bytes, sound: list[Any], back: int
) -> None:
    with Damaged(engine, original) as damaged:
        at = entry_of(damaged, lambda entry: entry.seq == damaged.word(COMMITTED_WORD))
        damaged.set_word(at + PREV_FIELD, at // 2)
        damaged.set_word(COMMITTED_WORD, damaged.word(COMMITTED_WORD) - back)
        examine(damaged, sound)
        assert damaged.take_over() is not None


def test_a_record_of_a_batch_there_never_was_is_a_record(
    engine: ModuleType, original: bytes
) -> None:
    with Damaged(engine, original) as damaged:
        at = entry_of(damaged, lambda entry: entry.shape.value_size == 30 and entry.prev < 2)
        damaged.set_word(at + SEQ_FIELD, 0)
        words = memoryview(damaged.memory).cast("Q")
        key = load_key(words.cast("B"), at, load_shape(words, at)).decode()
        words.release()
        with closing(engine.Reader(damaged.memory)) as reader:
            scope = reader.scope("t", "")
            assert reader.get(scope, key) == b"v" * 30
            assert reader.version(scope, key) == 0
            assert reader.contains(scope, key)


@pytest.mark.parametrize(("leaves", "above"), [(5, 5), (5, 1000), (1000, 5)])
def test_a_tree_whose_nodes_meet_again_ends(
    engine: ModuleType, original: bytes, sound: list[Any], leaves: int, above: int
) -> None:
    """Each of eleven levels has the same child many times: more elements than atoms, or none of
    them beyond the position asked for, in one of the directions."""
    with Damaged(engine, original) as damaged:
        free = damaged.word(EXTENT_END_WORD) // GRANULE_BYTES - 3000
        child = free
        for level in range(LEVELS_MAX):
            words = [2 << NODE_WIDTH_SHIFT | level << NODE_LEVEL_SHIFT | NODE_ELEMENTS_MAX]
            for number in range(NODE_ELEMENTS_MAX):
                words += [(above if level else leaves) + number, child]
            child = free + level * 80
            for i, word in enumerate(words):
                damaged.set_word(child * 2 + i, word)
        # The head of the first list with a tree leads to it: count, node, elements.
        head = entry_of(damaged, lambda entry: is_tree(damaged, entry))
        start = load(damaged, head).shape.value_start(head * WORD_BYTES)
        (root,) = unpack_from("<Q", damaged.memory, start + 8)
        root += (LEVELS_MAX - 1 << NODE_LEVEL_SHIFT) - (root & 0xFFFF << NODE_LEVEL_SHIFT)
        pack_into("<Q", damaged.memory, start + 8, root)
        for i in range(root & 0xFFFF):
            pack_into(
                "<2Q", damaged.memory, start + 16 + i * 16, above + i, free + (LEVELS_MAX - 2) * 80
            )
        problems = damaged.check()
        assert problems != []
        assert damaged.read()[1] > 0
        assert damaged.take_over() is not None


def load(damaged: Damaged, at: int) -> Any:
    words = memoryview(damaged.memory).cast("Q")
    try:
        return load_entry(words, at // 2)
    finally:
        words.release()


def is_tree(damaged: Damaged, entry: Any) -> bool:
    """Whether an entry is the head of a plain table's list with nodes below it."""
    if entry.shape.key_class or entry.prev & DEAD:
        return False
    start = entry.shape.value_start(entry.granule * GRANULE_BYTES)
    (root,) = unpack_from("<Q", damaged.memory, start + 8)
    return bool(root >> NODE_WIDTH_SHIFT == 2 and root >> NODE_LEVEL_SHIFT & 0xFFFF)


def test_every_byte_of_an_entry_and_of_a_head(
    engine: ModuleType, original: bytes, sound: list[Any]
) -> None:
    """Whatever byte of them is damaged, the check names it or nothing is different."""
    with Damaged(engine, original) as looked_at:
        record = entry_of(looked_at, lambda entry: entry.shape.value_size == 30)
        head = entry_of(looked_at, lambda entry: is_tree(looked_at, entry))
    for at, size in ((record, 80), (head, 160)):
        for byte in range(at * WORD_BYTES, at * WORD_BYTES + size, 3):
            with Damaged(engine, original) as damaged:
                damaged.memory[byte] ^= 0x41
                examine(damaged, sound)
