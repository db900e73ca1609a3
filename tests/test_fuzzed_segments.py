"""The C of the engine on damaged segments: the short form of the trial, and what it has found."""

from __future__ import annotations

import subprocess
from contextlib import closing
from types import ModuleType

import pytest

from shmstore.errors import CorruptSegment
from shmstore.layout import (
    CLASS_HEAD,
    DEAD,
    GRANULE_MASK,
    KIND_GHOST,
    KIND_SHIFT,
    KIND_SORTED,
    ROOT_WORD,
    SCOPE_FIELD,
    SEGMENT_SLOTS,
    SHAPE_FIELD,
    VACATED,
)
from shmstore.pure.index import directory_words, segment_starts
from shmstore.pure.records import Entry, load_entry
from tests.segments import Segment
from torture import building, segments

RUNS = 20_000


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        subprocess.run([building.compiler(), "--version"], capture_output=True, check=True)
    except OSError:
        pytest.skip("there is no C compiler here")


@pytest.mark.parametrize("target", segments.TARGETS)
def test_damaged_segments_are_answered(target: str) -> None:
    assert segments.drive(target, "1", str(RUNS)) == (RUNS, "")


FOUND = {
    "a deleted entry that its hash does not find": "0c103f0003059dca7b85e0a4fac20410",
    "a segment of the index in two places": (
        "060000000104f1c2163fac5c7a0f3b5d05035195085c7e23634d754c"
    ),
    "a head that was made a ghost": (
        "0b0004008107f9c6559e369952e79edb06070412e0ad45c74013938f030e0747fcb8550a597324bc0308f5c8993f"
        "ba20192b603701006d35d8e92462ff460774050560aa2745a7b1c7d44c8f"
    ),
}
"""Inputs of the takeover, each of which it failed on once."""


@pytest.mark.parametrize("hexadecimal", FOUND.values(), ids=FOUND)
def test_what_was_found_once(hexadecimal: str) -> None:
    assert segments.drive("takeover", "input", hexadecimal) == (1, "")


def entries_of(segment: Segment) -> list[Entry]:
    with memoryview(segment.memory) as data, data.cast("Q") as words:
        return [
            load_entry(words, words[at] & GRANULE_MASK)
            for base in segment_starts(words)
            for at in range(base, base + SEGMENT_SLOTS)
            if words[at] > VACATED
        ]


def flip(segment: Segment, entry: Entry, field: int, bits: int) -> None:
    with memoryview(segment.memory) as data, data.cast("Q") as words:
        words[entry.granule * 2 + field] ^= bits


def test_a_deleted_entry_that_no_hash_leads_to_is_not_taken_for_free(engine: ModuleType) -> None:
    """Its block would be used again while a word of the index still leads there."""
    with closing(Segment(engine)) as segment:
        segment.put("k", b"v")
        segment.put("other", b"v")
        segment.owner.remove("t", "", "k")
        segment.owner.commit()
        [dead] = [entry for entry in entries_of(segment) if entry.prev & DEAD]
        segment.owner.close()
        flip(segment, dead, SCOPE_FIELD, 1 << 20)
        with pytest.raises(CorruptSegment, match="not where its hash leads"):
            engine.Owner.take_over(segment.memory, print, print)


def test_a_segment_of_the_index_that_stands_in_two_places_is_not_taken_over(
    engine: ModuleType,
) -> None:
    """Each of them would give its block up, once they are split: it would be free twice."""
    with closing(Segment(engine)) as segment:
        for number in range(1500):
            segment.owner.put("t", "", f"k{number}", b"v")
        segment.owner.commit()
        segment.owner.close()
        with memoryview(segment.memory) as data, data.cast("Q") as words:
            start = (words[ROOT_WORD] & GRANULE_MASK) * 2
            words[start + len(directory_words(words)) - 1] = words[start]
        with pytest.raises(CorruptSegment, match="names a segment that others name, too"):
            engine.Owner.take_over(segment.memory, print, print)


@pytest.mark.parametrize("bits", [KIND_GHOST, KIND_SORTED, KIND_GHOST | KIND_SORTED])
def test_a_head_of_no_kind_there_is_is_not_taken_over(engine: ModuleType, bits: int) -> None:
    """As a ghost it would have no nodes, and theirs would be free memory."""
    with closing(Segment(engine)) as segment:
        for number in range(200):
            segment.owner.put("t", "", f"k{number}", b"v")
        segment.owner.commit()
        [head] = [entry for entry in entries_of(segment) if entry.shape.kind == CLASS_HEAD]
        segment.owner.close()
        flip(segment, head, SHAPE_FIELD, bits << KIND_SHIFT)
        with pytest.raises(CorruptSegment, match="of no kind there is"):
            engine.Owner.take_over(segment.memory, print, print)
        assert "of no kind there is" in engine.check_segment(segment.memory)[-1]
