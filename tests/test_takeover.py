"""A writer that dies before any of its stores, and the one that takes over."""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from shmstore import pure
from shmstore.errors import CorruptSegment, StoreFull
from shmstore.layout import (
    COMMITTED_WORD,
    FREE_CLOCK_WORD,
    GHOST_BYTES,
    HORIZON_WORD,
    INSERTION_MASK,
    NEXT_INSERTION_WORD,
    ROOT_WORD,
    WORD_BYTES,
)
from shmstore.pure.recovery import recover
from tests.segments import Segment, StoreCounter, copy_of, nothing, watch_stores
from torture.stores.operations import (
    OPERATIONS,
    PINS,
    batch_over_tables,
    contents,
    delete_all_there_is,
    fill,
    grow_the_index,
    pinned,
    settle,
)


def dies_anywhere(engine: ModuleType, segment: Segment, operation: Callable[[Any], None]) -> int:
    """Run ``operation`` and commit; before each store take over a copy, and the copy of a
    takeover that died likewise. Return the number of stores."""
    before = [contents(segment.reader), pinned(segment.owner, segment.memory)]
    states: list[list[Any]] = []

    def die() -> None:
        with copy_of(segment.memory) as memory:
            reader = engine.Reader(memory)
            seen = contents(reader)
            reader.close()
            owner = engine.Owner.take_over(memory, nothing, nothing)
            assert owner.check() == []
            states.append([contents(owner.reader), pinned(owner, memory)])
            assert seen == states[-1][0], "a reader saw another state than the takeover kept"
            owner.put("t", "", "next", b"life")
            owner.commit()
            assert owner.check() == []
            assert pinned(owner, memory) == states[-1][1]
            owner.close()

    watch_stores(segment.owner, die)
    operation(segment.owner)
    segment.owner.commit()
    after = [contents(segment.reader), pinned(segment.owner, segment.memory)]
    committed = [state == after for state in states]
    assert all(state in (before, after) for state in states), "half a batch was kept"
    assert before == after or committed == sorted(committed), "a committed batch was lost"
    return len(states)


def filled(engine: ModuleType) -> Segment:
    """A segment with records, deleted ones and ghosts."""
    made = Segment(engine)
    fill(made.owner)
    return made


@pytest.fixture
def segment(engine: ModuleType) -> Iterator[Segment]:
    made = filled(engine)
    yield made
    made.close()


@pytest.fixture
def doomed() -> Iterator[Segment]:
    """A segment whose owner can be watched: that of the reference engine."""
    made = filled(pure)
    yield made
    made.close()


def fill_new_extents(owner: Any) -> None:
    for i in range(5):
        owner.put("u", "", f"large{i}", b"z" * 150_000)


CHANGES = [each for each in OPERATIONS if each not in (delete_all_there_is, settle)]
"""What changes a segment just filled."""


@pytest.mark.parametrize("operation", [*CHANGES, fill_new_extents])
def test_a_writer_killed_before_any_store_leaves_all_or_nothing(
    engine: ModuleType, doomed: Segment, operation: Callable[[Any], None]
) -> None:
    stores = dies_anywhere(engine, doomed, operation)
    assert stores >= 4, "the counter must see the stores"


def test_pins_survive_a_kill_before_any_store(engine: ModuleType, doomed: Segment) -> None:
    for operation in PINS:
        if operation in CHANGES:  # seen above, and slow
            operation(doomed.owner)
            doomed.owner.commit()
        else:
            dies_anywhere(engine, doomed, operation)
        doomed.take_over()
    assert doomed.owner.check() == []


def test_reuse_and_purge_survive_a_kill_before_any_store(
    engine: ModuleType, doomed: Segment
) -> None:
    """With nothing held back, each batch overwrites what the one before it gave up."""
    doomed.owner._hold = lambda value_bytes: None
    rng = random.Random(7)

    def churn(owner: Any) -> None:
        for _ in range(3):
            owner._staging.heap.hold_bytes = 0
            owner.remove("t", "", f"k{rng.randrange(150)}")
            owner.put("t", "", f"k{rng.randrange(150)}", b"c" * rng.randrange(300))

    for _ in range(4):
        dies_anywhere(engine, doomed, churn)


def test_a_takeover_killed_before_any_store_is_done_again(
    engine: ModuleType, doomed: Segment
) -> None:
    """The second kill inside the recovery from a first one."""
    before = contents(doomed.reader)
    stages: list[bytes] = []
    watch_stores(doomed.owner, lambda: stages.append(doomed.memory[:]))
    batch_over_tables(doomed.owner)
    grow_the_index(doomed.owner)
    doomed.owner.commit()
    after = contents(doomed.reader)
    # Late kills leave the most to take back; the middle of the batch is like its beginning.
    for stage in (*stages[:: len(stages) // 8], *stages[-8:]):
        with mmap.mmap(-1, len(stage)) as memory:
            memory[:] = stage
            assert _recoveries(engine, memory) > 0
            owner = engine.Owner.take_over(memory, nothing, nothing)
            assert owner.check() == []
            assert contents(owner.reader) in (before, after)
            owner.close()


def _recoveries(engine: ModuleType, memory: mmap.mmap) -> int:
    """Take over copies of ``memory``, each killed some stores later; return their number."""
    killed_after, recoveries = 0, 0
    while True:
        with copy_of(memory) as victim:
            finished = _recover_in_part(victim, killed_after)
            owner = engine.Owner.take_over(victim, nothing, nothing)
            assert owner.check() == []
            state = contents(owner.reader)
            owner.close()
        recoveries += 1
        if finished:
            break
        killed_after += 1 + killed_after // 4
    with copy_of(memory) as twin:
        owner = engine.Owner.take_over(twin, nothing, nothing)
        assert contents(owner.reader) == state
        owner.close()
    return recoveries


class Killed(BaseException):
    """The takeover has spent its stores."""


def _recover_in_part(memory: mmap.mmap, stores: int) -> bool:
    """Recover with a number of stores; return whether they sufficed."""

    def spend() -> None:
        nonlocal stores
        if stores == 0:
            raise Killed
        stores -= 1

    reader = pure.Reader(memory)
    words = memoryview(memory).cast("Q")
    try:
        recover(StoreCounter(words, spend), reader)  # type: ignore[arg-type]
    except Killed:
        return False
    finally:
        words.release()
        reader.close()
    return True


def test_a_takeover_turns_away_readers_that_began_before_it(
    engine: ModuleType, segment: Segment
) -> None:
    words = memoryview(segment.memory).cast("Q")
    clock = words[FREE_CLOCK_WORD]
    segment.take_over()
    assert clock < words[HORIZON_WORD] <= words[FREE_CLOCK_WORD]
    words.release()


def test_a_takeover_keeps_versions_insertion_numbers_and_ghosts(
    engine: ModuleType, segment: Segment
) -> None:
    scope = segment.reader.scope("t", "")
    version = segment.reader.version(scope, "k77")
    page = segment.reader.page("s", "global", 5, "id20", None)
    segment.take_over()
    assert segment.reader.version(scope, "k77") == version
    assert segment.reader.page("s", "global", 5, "id20", None) == page
    segment.put("latest", b"")
    assert segment.reader.chunk("t", "", b"", None, 1, True)[0][0] == "latest"


def test_ghosts_are_forgotten_oldest_first_also_after_a_takeover(engine: ModuleType) -> None:
    segment = Segment(engine, 1 << 20)
    owner = segment.owner
    most = (1 << 20) // 64 // GHOST_BYTES
    for i in range(most + 30):
        owner.put("s", "n", f"id{i}", b"", i)
    owner.commit()
    for i in range(most + 20):
        owner.remove("s", "n", f"id{i}", (), ghost=True)
        owner.commit()
        if i == most:
            segment.take_over()
            owner = segment.owner
    assert owner.statistics()["ghosts"] == most
    assert owner.check() == []
    assert segment.reader.page("s", "n", 10, f"id{most + 19}", None)[1] is False
    with pytest.raises(LookupError):
        segment.reader.page("s", "n", 10, "id0", None)
    segment.close()


@pytest.mark.parametrize("word", [ROOT_WORD, COMMITTED_WORD])
def test_a_damaged_header_is_named_not_followed(
    engine: ModuleType, segment: Segment, word: int
) -> None:
    with copy_of(segment.memory) as memory:
        memory[word * WORD_BYTES : (word + 1) * WORD_BYTES] = b"\xff\xff\xff\xff\xff\xff\xff\x07"
        if word == ROOT_WORD:
            with pytest.raises(CorruptSegment):
                engine.Owner.take_over(memory, nothing, nothing)
        else:
            # A committed sequence from the future hides nothing and invents nothing.
            owner = engine.Owner.take_over(memory, nothing, nothing)
            assert contents(owner.reader) == contents(segment.reader)
            owner.close()


def test_the_insertion_numbers_are_limited(engine: ModuleType, segment: Segment) -> None:
    words = memoryview(segment.memory).cast("Q")
    words[NEXT_INSERTION_WORD] = INSERTION_MASK
    words.release()
    segment.take_over()
    segment.put("last", b"")
    assert segment.reader.chunk("t", "", b"", None, 1, True)[0][3] == INSERTION_MASK
    with pytest.raises(StoreFull, match="insertion numbers"):
        segment.put("one more", b"")
    assert segment.owner.check() == []
