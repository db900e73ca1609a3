"""Each invariant that the check states, broken once in a copy of a sound segment, and named."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import closing
from struct import pack_into, unpack_from
from types import ModuleType
from typing import Any

import pytest

from shmstore import pure
from shmstore.layout import (
    CLASS_HEAD,
    CLASS_PIN,
    COMMITTED_WORD,
    DEAD,
    DEPTH_SHIFT,
    EMPTY,
    EXTENT_END_WORD,
    FREE_CLOCK_WORD,
    GRANULE_BYTES,
    GRANULE_MASK,
    HEAP_START,
    HORIZON_WORD,
    KEY_SIZE_SHIFT,
    NEXT_INSERTION_WORD,
    NODE_LEVEL_SHIFT,
    PREV_FIELD,
    ROOT_WORD,
    SCOPE_FIELD,
    SEGMENT_SLOTS,
    SEQ_FIELD,
    SHAPE_FIELD,
    VACATED,
    WORD_BYTES,
)
from shmstore.pure import check
from shmstore.pure.index import candidates, directory_words, segment_starts
from shmstore.pure.lookup import Lookup
from shmstore.pure.records import (
    Entry,
    entry_checksum,
    list_name,
    load_entry,
    load_key,
)
from tests.segments import Segment, copy_of

INDEX = b"\x92status"
BUILT_OF = 520
"""Records of the plain table: enough to split the index, and for a list with nodes."""


class Patient:
    """A copy of a sound segment, to be broken in one place."""

    def __init__(self, engine: ModuleType, memory: mmap.mmap, unused: list[Any]) -> None:
        self.engine = engine
        self.memory = memory
        self.unused = unused
        self.data = memoryview(memory)
        self.words = self.data.cast("Q")
        self.reader = pure.Reader(memory)

    def check(self, *, asks_the_writer: bool = False) -> list[str]:
        unused = self.unused if asks_the_writer else None
        problems: list[str] = self.engine.check_segment(self.memory, unused)
        return problems

    def close(self) -> None:
        self.reader.close()
        self.words.release()
        self.data.release()

    # Finding one's way

    def record(self, key: str, table: str = "t", namespace: str = "") -> Entry:
        word_hash, _, encoded = self.reader.hash_key(self.reader.scope(table, namespace), key)
        return self.find(word_hash, encoded)

    def head(self, table: str = "t", namespace: str = "", index: bytes = b"") -> Entry:
        name = list_name(table, namespace, index)
        return self.find(self.reader.list_hash(name), name)

    def find(self, word_hash: int, encoded: bytes) -> Entry:
        for at in candidates(self.words, word_hash):
            entry = load_entry(self.words, at // 2)
            if load_key(self.data, at, entry.shape) == encoded:
                return entry
        raise AssertionError("there is no such entry")

    def word_of(self, entry: Entry) -> int:
        """The word that leads to an entry."""
        for base in segment_starts(self.words):
            for at in range(base, base + SEGMENT_SLOTS):
                if self.words[at] > VACATED and self.words[at] & GRANULE_MASK == entry.granule:
                    return at
        raise AssertionError("no word leads there")

    def value_at(self, entry: Entry) -> int:
        """The offset of an entry's value."""
        return entry.shape.value_start(entry.granule * GRANULE_BYTES)

    def pin(self, holder: bytes = b"one") -> tuple[Entry, Entry]:
        """The only pin of a holder, and the entry it names."""
        for base in segment_starts(self.words):
            for word in self.words[base : base + SEGMENT_SLOTS]:
                pin = load_entry(self.words, word & GRANULE_MASK)
                if word > VACATED and pin.shape.kind == CLASS_PIN:
                    name, granule = self.reader.load_pin(pin.granule * 2)
                    if name == holder:
                        return pin, load_entry(self.words, granule)
        raise AssertionError("there is no such pin")

    def point(self, pin: Entry, granule: int) -> None:
        """Let a pin name another block."""
        at = pin.granule * GRANULE_BYTES + 40 + pin.shape.key_size - 8
        pack_into("<Q", self.memory, at, granule)
        self.reseal(pin)

    def node(self, entry: Entry, child: int) -> int:
        """The word at which a node right below the root of a plain table's list begins."""
        (granule,) = unpack_from("<Q", self.memory, self.value_at(entry) + 24 + child * 16)
        return int(granule) * 2

    def reseal(self, entry: Entry) -> None:
        """Give an entry that was changed the checksum of what it is now."""
        at = entry.granule * 2
        checksum = entry_checksum(self.words, self.data, load_entry(self.words, entry.granule))
        self.words[at] = self.words[at] & 0xFFFFFFFF | checksum << 32

    def change(self, entry: Entry, offset: int, number: int) -> None:
        """Change a number in the value of an entry, as a writer with a bug would."""
        pack_into("<Q", self.memory, self.value_at(entry) + offset, number)
        self.reseal(entry)

    def number(self, entry: Entry, offset: int) -> int:
        return int(unpack_from("<Q", self.memory, self.value_at(entry) + offset)[0])


@pytest.fixture
def segment(engine: ModuleType) -> Iterator[Segment]:
    made = Segment(engine)
    for i in range(BUILT_OF):
        made.owner.put("t", "", f"k{i}", b"v" * (i % 50))
    for i in range(20):
        made.owner.put("s", "n", f"id{i}", b"record", i % 3, (), (INDEX,) if i % 2 else ())
    for holder, key in ((b"one", "k6"), (b"other", "k6"), (b"living", "k8")):
        made.owner.pin(holder, "t", "", key)
    made.owner.commit()
    made.owner.remove("t", "", "k5")
    made.owner.remove("s", "n", "id4", (), ghost=True)
    made.put("k6", b"replaced")
    yield made
    made.close()


def unused_blocks(memory: mmap.mmap) -> list[Any]:
    """What a writer would say is free or in quarantine, each gap as two blocks."""
    told: list[tuple[int, int]] = []
    with memoryview(memory) as data, data.cast("Q") as words, closing(Lookup(memory)) as lookup:
        walk = check._Check(data, words, lookup)
        walk.run()
        end, limit = HEAP_START // GRANULE_BYTES, words[EXTENT_END_WORD] // GRANULE_BYTES
        for start, size, _ in [*sorted(walk._blocks), (limit, 0, 0)]:
            half = (start - end) // 2
            told += [(end, half), (end + half, start - end - half)]
            end = start + size
    return [block for block in told if block[1]]


@pytest.fixture
def patient(engine: ModuleType, segment: Segment) -> Iterator[Patient]:
    assert segment.owner.check() == []
    unused = unused_blocks(segment.memory)
    with copy_of(segment.memory) as memory:
        made = Patient(engine, memory, unused)
        assert made.check() == made.check(asks_the_writer=True) == []
        yield made
        made.close()


def invariant(engine: ModuleType, words: str) -> str:
    """The one stated invariant that has these words."""
    [found] = [each for each in engine.INVARIANTS if words in each]
    return str(found)


Break = Callable[[Patient], None]
BREAKS: dict[str, list[tuple[str, Break]]] = {}


def breaks(stated: str, named: str) -> Callable[[Break], Break]:
    """Note a way to break the invariant with the words ``stated``; the check says ``named``."""

    def note(function: Break) -> Break:
        BREAKS.setdefault(stated, []).append((named, function))
        return function

    return note


HEADER = "numbers of the header"
DIRECTORY = "each directory word"
PLACE = "found from its home word"
ENTRY = "committed batch"
LIST = "each list has as many elements"
LISTED = "in the list of its table"
PIN = "each pin names"
OVERLAP = "no two blocks overlap"
LOST = "every granule"


@breaks(HEADER, "the horizon is ahead of the free clock")
def horizon(patient: Patient) -> None:
    patient.words[HORIZON_WORD] = patient.words[FREE_CLOCK_WORD] + 1


@breaks(HEADER, "beyond all that can have happened")
def sequence(patient: Patient) -> None:
    patient.words[COMMITTED_WORD] |= DEAD


@breaks(HEADER, "the next insertion number is 0")
def insertions(patient: Patient) -> None:
    patient.words[NEXT_INSERTION_WORD] = 0


@breaks(HEADER, "the memory ends at")
def end(patient: Patient) -> None:
    patient.words[EXTENT_END_WORD] = len(patient.data) + GRANULE_BYTES


@breaks(DIRECTORY, "do not name one segment")
def too_deep(patient: Patient) -> None:
    at = (patient.words[ROOT_WORD] & GRANULE_MASK) * 2
    patient.words[at] += 1 << DEPTH_SHIFT


@breaks(DIRECTORY, "do not name one segment")
def not_deep_enough(patient: Patient) -> None:
    at = (patient.words[ROOT_WORD] & GRANULE_MASK) * 2
    patient.words[at] -= 1 << DEPTH_SHIFT


@breaks(DIRECTORY, "directory word 1 names a segment that others name, too")
def one_segment_twice(patient: Patient) -> None:
    at = (patient.words[ROOT_WORD] & GRANULE_MASK) * 2
    patient.words[at + 1] = patient.words[at]


@breaks(DIRECTORY, "the root names a directory of depth 99")
def no_directory(patient: Patient) -> None:
    patient.words[ROOT_WORD] = patient.words[ROOT_WORD] & GRANULE_MASK | 99 << DEPTH_SHIFT


@breaks(PLACE, "stands under another tag")
def tag(patient: Patient) -> None:
    patient.words[patient.word_of(patient.record("k7"))] ^= 1 << 40


@breaks(PLACE, "cannot be reached from its home word")
def behind_an_empty_word(patient: Patient) -> None:
    at = patient.word_of(patient.record("k7"))
    base = next(b for b in segment_starts(patient.words) if b <= at < b + SEGMENT_SLOTS)
    home = patient.reader.hash_key(patient.reader.scope("t", ""), "k7")[0] % SEGMENT_SLOTS
    slots = [(home + i) % SEGMENT_SLOTS for i in range(SEGMENT_SLOTS)]
    empty = [slot for slot in slots if patient.words[base + slot] == EMPTY]
    patient.words[base + empty[1]] = patient.words[at]
    patient.words[at] = VACATED


@breaks(PLACE, "is in another segment than its hash says")
def in_another_segment(patient: Patient) -> None:
    at = patient.word_of(patient.record("k7"))
    here = next(b for b in segment_starts(patient.words) if b <= at < b + SEGMENT_SLOTS)
    other = next(b for b in segment_starts(patient.words) if b != here)
    free = next(a for a in range(other, other + SEGMENT_SLOTS) if patient.words[a] == EMPTY)
    patient.words[free] = patient.words[at]
    patient.words[at] = VACATED


@breaks(PLACE, "has the key of the one at")
def twice(patient: Patient) -> None:
    at = patient.word_of(patient.record("k7"))
    while patient.words[at] != EMPTY:
        at += 1
    patient.words[at] = patient.words[patient.word_of(patient.record("k7"))]


@breaks(ENTRY, "does not match its checksum")
def value(patient: Patient) -> None:
    patient.memory[patient.value_at(patient.record("k49")) + 48] ^= 1


@breaks(ENTRY, "does not match its checksum")
def last_byte_of_a_key(patient: Patient) -> None:
    entry = patient.record("k49")
    patient.memory[entry.granule * GRANULE_BYTES + 42] ^= 1


@breaks(ENTRY, "is of batch 3, beyond 2")
def later_batch(patient: Patient) -> None:
    entry = patient.record("k6")
    patient.words[entry.granule * 2 + SEQ_FIELD] += 1
    patient.reseal(entry)


@breaks(ENTRY, "is deleted by a batch beyond")
def later_death(patient: Patient) -> None:
    patient.words[patient.record("k5").granule * 2 + PREV_FIELD] = DEAD | 77


@breaks(ENTRY, "has the insertion number")
def never_inserted(patient: Patient) -> None:
    patient.words[NEXT_INSERTION_WORD] -= 1


@breaks(LIST, "says 521 and has 519 elements")
def count(patient: Patient) -> None:
    patient.change(patient.head(), 0, BUILT_OF + 1)


@breaks(LIST, "is out of order")
def order(patient: Patient) -> None:
    at = patient.node(patient.head(), 1)
    there = slice(at + 1, at + 5)
    one, one_hash, other, other_hash = patient.words[there].tolist()
    for i, number in enumerate((other, other_hash, one, one_hash)):
        patient.words[at + 1 + i] = number


@breaks(LIST, "which is not in the index")
def dangling(patient: Patient) -> None:
    patient.words[patient.word_of(patient.record("k7"))] = VACATED


@breaks(LIST, "which is not in the index")
def listed_though_deleted(patient: Patient) -> None:
    patient.words[patient.record("k7").granule * 2 + PREV_FIELD] = DEAD | 1


@breaks(LIST, "looks for record 70 at another word")
def hash_in_a_node(patient: Patient) -> None:
    # The second node begins with record 65.
    patient.words[patient.node(patient.head(), 1) + 2 + 5 * 2] ^= 1 << 30


@breaks(LIST, "at another place than it says")
def created(patient: Patient) -> None:
    entry = patient.record("id7", "s", "n")
    patient.memory[entry.granule * GRANULE_BYTES + 40 + entry.shape.key_size] ^= 1
    patient.reseal(entry)


@breaks(LIST, "does not begin where its parent says")
def parent(patient: Patient) -> None:
    head = patient.head()
    patient.change(head, 32, patient.number(head, 32) - 1)


@breaks(LIST, "does not belong to its parent")
def level_of_a_node(patient: Patient) -> None:
    patient.words[patient.node(patient.head(), 2)] += 1 << NODE_LEVEL_SHIFT


@breaks(LIST, "stands in two places")
def node_twice(patient: Patient) -> None:
    head = patient.head()
    patient.change(head, 24 + 16, patient.number(head, 24))


@breaks(LIST, "a node begins with")
def no_node(patient: Patient) -> None:
    patient.change(patient.head("s", "n", INDEX), 8, 0)


@breaks(LIST, "unreadable name")
def name_of_a_list(patient: Patient) -> None:
    entry = patient.head()
    patient.memory[entry.granule * GRANULE_BYTES + 40] = 200


@breaks(LIST, "has another hash than its name")
def another_name(patient: Patient) -> None:
    entry = patient.head("s", "n", INDEX)
    patient.memory[entry.granule * GRANULE_BYTES + 40 + entry.shape.key_size - 1] ^= 1
    patient.reseal(entry)


@breaks(LIST, "names a node at granule")
def node_outside(patient: Patient) -> None:
    patient.change(patient.head(), 24, 1 << 40)


@breaks(ENTRY, "has the place in its list of the one at")
def same_insertion(patient: Patient) -> None:
    entry = patient.record("k7")
    patient.words[entry.granule * 2 + SHAPE_FIELD] += 1
    patient.reseal(entry)


@breaks(DIRECTORY, "an index segment reaches out of the memory")
def segment_outside(patient: Patient) -> None:
    at = (patient.words[ROOT_WORD] & GRANULE_MASK) * 2
    patient.words[at] |= GRANULE_MASK


@breaks(LISTED, "is in no list of its table")
def unlisted(patient: Patient) -> None:
    head = patient.head("s", "n")
    elements = patient.number(head, 0)
    patient.change(head, 0, elements - 1)
    patient.change(head, 8, patient.number(head, 8) - 1)


@breaks(LISTED, "is in no list of its table")
def no_list(patient: Patient) -> None:
    patient.words[patient.word_of(patient.head())] = VACATED


@breaks(PIN, "does not match its checksum")
def held_value(patient: Patient) -> None:
    _, held = patient.pin()
    patient.memory[patient.value_at(held)] ^= 1


@breaks(PIN, "has the insertion number 0")
def held_and_never_inserted(patient: Patient) -> None:
    _, held = patient.pin()
    patient.words[held.granule * 2 + SHAPE_FIELD] -= held.insertion
    patient.reseal(held)


@breaks(PIN, "is deleted by a batch beyond")
def held_and_dies_later(patient: Patient) -> None:
    _, held = patient.pin()
    patient.words[held.granule * 2 + PREV_FIELD] = DEAD | 77


@breaks(PIN, "which is no record")
def head_pinned(patient: Patient) -> None:
    patient.point(patient.pin()[0], patient.head().granule)


@breaks(PIN, "which is no record")
def ghost_pinned(patient: Patient) -> None:
    patient.point(patient.pin()[0], patient.record("id4", "s", "n").granule)


@breaks(PIN, "which is no record")
def pin_pinned(patient: Patient) -> None:
    pin, _ = patient.pin()
    patient.point(pin, pin.granule)


@breaks(PIN, "which is no record")
def free_memory_pinned(patient: Patient) -> None:
    patient.point(patient.pin()[0], patient.words[EXTENT_END_WORD] // GRANULE_BYTES - 100)


@breaks(PIN, "is of no kind there is")
def nothing_known_pinned(patient: Patient) -> None:
    granule = patient.words[EXTENT_END_WORD] // GRANULE_BYTES - 100
    patient.words[granule * 2 + SHAPE_FIELD] = 4 << 43
    patient.point(patient.pin()[0], granule)


@breaks(PIN, "is no entry")
def header_pinned(patient: Patient) -> None:
    patient.point(patient.pin()[0], 3)


@breaks(PIN, "is outside the segment")
def pinned_outside(patient: Patient) -> None:
    patient.point(patient.pin()[0], GRANULE_MASK)


@breaks(PIN, "is no pin")
def key_of_a_pin(patient: Patient) -> None:
    pin, _ = patient.pin()
    patient.words[pin.granule * 2 + SHAPE_FIELD] = CLASS_PIN << 43 | 7 << KEY_SIZE_SHIFT


@breaks(PIN, "is no pin")
def no_granule_in_a_pin(patient: Patient) -> None:
    patient.point(patient.pin()[0], GRANULE_MASK + 1)


@breaks(PIN, "is no pin")
def scope_of_a_pin(patient: Patient) -> None:
    pin, _ = patient.pin()
    patient.words[pin.granule * 2 + SCOPE_FIELD] = 1
    patient.reseal(pin)


@breaks(OVERLAP, "overlap at")
def pinned_inside_a_record(patient: Patient) -> None:
    patient.point(patient.pin()[0], patient.record("k49").granule + 1)


@breaks(OVERLAP, "overlap at")
def larger_than_its_block(patient: Patient) -> None:
    entry = patient.record("k49")
    patient.words[entry.granule * 2] += 600
    patient.reseal(entry)


@breaks(OVERLAP, "reaches beyond the memory")
def beyond_the_memory(patient: Patient) -> None:
    entry = patient.record("k49")
    patient.words[entry.granule * 2] |= 0xFFFFFFFF


@breaks(OVERLAP, "is no entry")
def in_the_header(patient: Patient) -> None:
    at = patient.word_of(patient.record("k49"))
    patient.words[at] = patient.words[at] & ~GRANULE_MASK | 3


@breaks(OVERLAP, "is outside the segment")
def outside(patient: Patient) -> None:
    patient.words[patient.word_of(patient.record("k49"))] |= GRANULE_MASK


@breaks(OVERLAP, "blocks end at")
def node_beyond_the_memory(patient: Patient) -> None:
    head = patient.head()
    old, new = patient.node(head, 1), patient.words[EXTENT_END_WORD] // WORD_BYTES
    for i in range(129):
        patient.words[new + i] = patient.words[old + i]
    patient.change(head, 24 + 16, new // 2)


@breaks(OVERLAP, "larger together than the memory")
def one_large_entry_everywhere(patient: Patient) -> None:
    """Walked again and again it would take a time that grows with the square of the memory."""
    entry = patient.record("k49")
    at = entry.granule * 2
    patient.words[at] = patient.words[at] & ~0xFFFFFFFF | len(patient.data) // 4
    base = segment_starts(patient.words)[0]
    for slot in range(SEGMENT_SLOTS):
        patient.words[base + slot] = entry.granule


@breaks(LOST, "belong to nobody")
def lost(patient: Patient) -> None:
    patient.unused.pop(len(patient.unused) // 2)


@breaks(LOST, "unused memory")
def free_and_in_use(patient: Patient) -> None:
    patient.unused.append((patient.record("k49").granule, 1))


@breaks(LOST, "unused memory")
def free_and_held(patient: Patient) -> None:
    patient.unused.append((patient.pin()[1].granule, 1))


@breaks(LOST, "overlap")
def free_twice(patient: Patient) -> None:
    patient.unused.append(patient.unused[0])


@breaks(LOST, "blocks end at")
def the_end_is_lost(patient: Patient) -> None:
    patient.unused.remove(max(patient.unused))


CASES = [(stated, *each) for stated, ways in BREAKS.items() for each in ways]


@pytest.mark.parametrize(
    ("stated", "named", "break_it"), CASES, ids=[case[2].__name__ for case in CASES]
)
def test_a_broken_invariant_is_named(
    engine: ModuleType, patient: Patient, stated: str, named: str, break_it: Break
) -> None:
    assert invariant(engine, stated)
    break_it(patient)
    problems = patient.check(asks_the_writer=stated in (LOST, OVERLAP))
    assert any(named in problem for problem in problems), problems


def test_every_stated_invariant_is_broken_here(engine: ModuleType) -> None:
    assert {invariant(engine, stated) for stated in BREAKS} == set(engine.INVARIANTS)


def test_the_check_ends_after_a_hundred_problems(patient: Patient) -> None:
    for base in segment_starts(patient.words):
        for at in range(base, base + SEGMENT_SLOTS):
            if patient.words[at] > VACATED:
                patient.words[at] ^= 1 << 50
    assert len(patient.check()) == 100


def test_what_is_not_there_is_not_asked_for(engine: ModuleType) -> None:
    """A segment without a record is sound, and a reader's look knows no free memory."""
    segment = Segment(engine)
    assert segment.owner.check() == []
    made = Patient(engine, segment.memory, [])
    assert made.check() == []
    assert len(directory_words(made.words)) == 1
    assert made.check(asks_the_writer=True) != []
    made.close()
    segment.close()


def test_dead_entries_and_ghosts_and_pins_are_no_problem(patient: Patient) -> None:
    kinds = set()
    for base in segment_starts(patient.words):
        for at in range(base, base + SEGMENT_SLOTS):
            if patient.words[at] > VACATED:
                granule = patient.words[at] & GRANULE_MASK
                entry = load_entry(patient.words, granule)
                kinds.add((bool(entry.prev & DEAD), entry.shape.kind))
                assert patient.words[granule * 2 + SHAPE_FIELD]
    assert {kind for dead, kind in kinds if dead} >= {1}
    assert CLASS_HEAD in {kind & 3 for _, kind in kinds}
    assert any(kind & 4 for _, kind in kinds)
    assert CLASS_PIN in {kind for _, kind in kinds}
    assert patient.pin()[1] == patient.pin(b"other")[1] != patient.record("k6")
    assert patient.pin(b"living")[1] == patient.record("k8")


assert WORD_BYTES * 2 == GRANULE_BYTES
