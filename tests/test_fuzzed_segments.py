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
    SCOPE_FIELD,
    SEGMENT_SLOTS,
    SHAPE_FIELD,
    VACATED,
)
from shmstore.pure.index import segment_starts
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
    "a deleted entry whose scope was damaged": "19103f0003009dca7b85e0a4fac20410",
    "a head that was made a ghost": "0268000002075f7e8d6c7a41e2ab2ac40306b9c12de5c64c08b00384",
}


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


@pytest.mark.parametrize("bits", [KIND_GHOST, KIND_SORTED, KIND_GHOST | KIND_SORTED, 3])
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
