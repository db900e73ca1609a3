"""What must be so wherever a writer stands still: for readers, and for a writer after it."""

from __future__ import annotations

import mmap
import os
import random
from typing import Any

from shmstore import pure, segment
from shmstore.layout import (
    COMMITTED_WORD,
    EXTENT_END_WORD,
    FREE_CLOCK_WORD,
    HEAP_START,
    HORIZON_WORD,
    ROOT_WORD,
    WORD_BYTES,
)

from ..tracing import Outcome, Traced
from ..trial import Report
from .scene import Desk, Turn, sight

STATES = "distinct states of the segment, each taken over and checked"
STATES_UNDONE = "of these, with something to take back"
SECOND_KILLS = "of the takeovers that took it back, killed at a store and done again"
STATES_PURE = "distinct states that the pure engine took over as well"
OPERATIONS_THAT = (
    "of these, that split the index",
    "of these, that took memory from the quarantine",
    "of these, that made extents real",
    "of these, that gave extents back",
)
PURE_EVERY = 50
"""The pure engine looks at one state of so many: it is slow."""
ON_EVERY = 8
"""So many takeovers are followed by one more batch."""
SECOND_KILL = 0.2
"""So often a takeover that takes something back is killed as well."""
HEADER_WORDS = HEAP_START // WORD_BYTES
COMPARED_BYTES = 2 << 20
"""What a takeover takes back is looked for below this; little of it lies beyond."""


class Broken(Exception):
    """A promise did not hold."""


def nothing(offset: int, length: int) -> None:
    """A copy is real from the start, and keeps what it has."""


class Judge:
    """Looks at a segment whose writer stands still somewhere."""

    def __init__(self, fd: int, native: Any, report: Report, rng: random.Random) -> None:
        self._fd = fd
        self._report = report
        self._rng = rng
        self._memory = segment.map_readonly(fd)
        self._words = memoryview(self._memory).cast("Q")
        self._native = native
        self._readers = {engine.NAME: engine.Reader(self._memory) for engine in (native, pure)}
        self._committed = self._words[COMMITTED_WORD]
        self._last = self._committed
        self._states: dict[int, list[Any]] = {}
        self._states_judged = 0

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._words.release()
        self._memory.close()

    def rehearse(self, turn: Turn | None) -> None:
        """Let the pure engine do on a copy what the writer is about to do, and note the states.

        None is a takeover, which changes none.
        """
        self._header, self._returned = list(self._words[:HEADER_WORDS]), self._returned_bytes()
        with self._copy() as memory:
            owner = pure.Owner.take_over(memory, nothing, nothing)
            notes = _Notes(owner)
            if turn is not None:
                turn.play(Desk(notes, owner))
            self._last = notes.take()
            self._states = notes.states
            owner.close()

    def acknowledge(self, turn: Turn | None) -> None:
        """See that all batches of the operation that is over are committed. Errors: ``Broken``."""
        words, before = self._words, self._header
        if words[COMMITTED_WORD] != self._last:
            raise Broken(f"{words[COMMITTED_WORD]} batches are committed, not {self._last}")
        self._committed = self._last
        if turn is None:
            return
        done = (
            words[ROOT_WORD] != before[ROOT_WORD],
            words[HORIZON_WORD] != before[HORIZON_WORD],
            words[EXTENT_END_WORD] != before[EXTENT_END_WORD],
            self._returned_bytes() > self._returned,
        )
        for name, count in zip(OPERATIONS_THAT, done, strict=True):
            self._report.add(name, count)

    def _returned_bytes(self) -> int:
        extended: int = self._words[EXTENT_END_WORD]
        return extended - os.fstat(self._fd).st_blocks * 512

    def judge(self) -> bool:
        """Judge the segment as it is now; return whether a takeover took anything back.

        Errors: ``Broken``, ``Refused``, and what the engines raise.
        """
        committed, before = self._words[COMMITTED_WORD], self._committed
        if committed < before or committed not in self._states:
            raise Broken(f"{committed} batches are committed after {before}, of {self._last}")
        self._committed = committed
        self._states_judged += 1
        self._report.add(STATES)
        changed = self._judged(self._native)
        if self._states_judged % PURE_EVERY == 0:
            self._report.add(STATES_PURE)
            self._judged(pure)
        if not changed:
            return False
        self._report.add(STATES_UNDONE)
        if self._rng.random() < SECOND_KILL:
            self._kill_in_takeover(self._rng.choice([*changed, FREE_CLOCK_WORD, HORIZON_WORD]))
        return True

    def _judged(self, engine: Any) -> list[int]:
        """Let an engine read the segment and take a copy over; return the words that the takeover
        has changed, apart from the header."""
        if sight(self._readers[engine.NAME]) != self._states[self._committed]:
            raise Broken(f"a {engine.NAME} reader sees something else than batch {self._committed}")
        with self._copy() as memory:
            owner = engine.Owner.take_over(memory, nothing, nothing)
            try:
                changed = _differences(memory, self._memory)
                self._see_that_all_is_well(owner)
                if self._states_judged % ON_EVERY == 0:
                    _go_on(owner)
            finally:
                owner.close()
        return changed

    def _see_that_all_is_well(self, owner: Any) -> None:
        if problems := owner.check():
            raise Broken(f"after a takeover: {'; '.join(problems[:5])}")
        if sight(owner.reader) != self._states[self._committed]:
            raise Broken(f"a takeover did not keep batch {self._committed}, whole")

    def _kill_in_takeover(self, word: int) -> None:
        """Take a copy over, be killed when that has stored to a word, and take it over again."""
        take_over = self._native.Owner.take_over
        with mmap.mmap(-1, len(self._memory)) as memory:
            memory[:] = self._memory[:]
            victim = Traced(lambda _: take_over(memory, nothing, nothing), memory, range(0))
            try:
                if victim.run_until_store(word) != Outcome.CHANGED:
                    raise Broken(f"a takeover never stored to word {word}: {victim.last_words()}")
            finally:
                victim.kill()
            owner = take_over(memory, nothing, nothing)
            try:
                self._see_that_all_is_well(owner)
            finally:
                owner.close()
        self._report.add(SECOND_KILLS)

    def _copy(self) -> mmap.mmap:
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(self._fd, len(self._memory), mmap.MAP_PRIVATE, protection)


def _differences(one: mmap.mmap, other: mmap.mmap) -> list[int]:
    """Return the words of the heap that differ, of those that a takeover may change."""
    found = []
    for start in range(HEAP_START, min(COMPARED_BYTES, len(one)), mmap.PAGESIZE):
        page, twin = one[start : start + mmap.PAGESIZE], other[start : start + mmap.PAGESIZE]
        if page != twin:
            words = zip(memoryview(page).cast("Q"), memoryview(twin).cast("Q"), strict=True)
            found += [start // 8 + number for number, (a, b) in enumerate(words) if a != b]
    return found


def _go_on(owner: Any) -> None:
    owner.put("t", "", "next", b"life")
    owner.commit()
    if problems := owner.check():
        raise Broken(f"after one more batch: {'; '.join(problems[:5])}")
    if owner.reader.get(owner.reader.scope("t", ""), "next") != b"life":
        raise Broken("after one more batch its record is not there")


class _Notes:
    """Stands in the place of an owner, and notes what can be read after each of its batches."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self.states: dict[int, list[Any]] = {}

    def take(self) -> int:
        """Note what can be read now; return the number of batches."""
        committed: int = self._owner.committed
        if committed not in self.states:
            self.states[committed] = sight(self._owner.reader)
        return committed

    def __getattr__(self, name: str) -> Any:
        self.take()
        return getattr(self._owner, name)
