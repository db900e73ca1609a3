"""Readers that began long ago and look only now, at every store the writer makes.

A reader notes clock and sequence, then reads; the writer may do anything in between. So before
each store of a busy writer all readers that began at earlier stores are let through: each must
see exactly what was committed when it began, or be turned away by the horizon. The mutants at
the end show that each order of the protocol is needed, and that these tests notice.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from struct import error as StructError
from typing import Any
from unittest.mock import patch

import pytest

from shmstore import pure
from shmstore.layout import HORIZON_WORD
from shmstore.pure import owner as owner_module
from shmstore.pure import recovery
from shmstore.pure.clock import Clock, read_begin
from shmstore.pure.heap import Heap
from shmstore.pure.owner import Owner
from shmstore.pure.records import Damaged, Overtaken
from shmstore.pure.staging import Staging
from tests.segments import Segment, StoreCounter, watch_stores

TABLES = (("t", ""), ("s", "n"))
READERS = 24


Change = Callable[[Owner, random.Random, str, str], None]


class TurnedAway(Exception):
    """The horizon has passed the clock of this reader."""


class LateReader(pure.Reader):
    """A reader that began at ``clock`` and ``sequence`` and makes one try, now."""

    clock = sequence = 0

    def _snapshot(self, read: Callable[[int], Any]) -> Any:
        try:
            result, error = read(self.sequence), None
        except (Damaged, Overtaken, IndexError, StructError) as caught:
            result, error = None, caught
        if self._words[HORIZON_WORD] > self.clock or isinstance(error, Overtaken):
            raise TurnedAway
        if error is not None:
            raise AssertionError("a reader met damage and was not turned away") from error
        return result


def contents(reader: pure.Reader) -> list[Any]:
    """Everything, by lists and by keys."""
    found: list[Any] = []
    for table, namespace in TABLES:
        scope = reader.scope(table, namespace)
        found.append(reader.chunk(table, namespace, b"", None, None, False))
        found.append(reader.get_many(scope, [f"k{i}" for i in range(12)]))
        found.append(reader.count(table, namespace))
    return found


class Crowd:
    """The readers that have begun, oldest first."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._late = LateReader(segment.memory)
        self._begun: deque[tuple[int, int, list[Any]]] = deque(maxlen=READERS)
        self._rng = random.Random(1)
        self.accepted = self.turned_away = 0

    def step(self) -> None:
        """Let all who began look now, then let another one begin."""
        for clock, sequence, expected in self._begun:
            self._late.clock, self._late.sequence = clock, sequence
            try:
                seen = contents(self._late)
            except TurnedAway:
                self.turned_away += 1
            else:
                assert seen == expected, f"a reader of batch {sequence} saw something else"
                self.accepted += 1
        if self._rng.random() < 0.3:
            clock, sequence = read_begin(self._late._words)
            self._late.clock, self._late.sequence = clock, sequence
            try:
                self._begun.append((clock, sequence, contents(self._late)))
            except TurnedAway as error:
                raise AssertionError("a reader that begins now was turned away") from error

    def close(self) -> None:
        self._late.close()


def change_records(owner: Owner, rng: random.Random, table: str, namespace: str) -> None:
    key = f"k{rng.randrange(12)}"
    chance = rng.random()
    if chance < 0.6:
        value = key.encode() * rng.randrange(20)
        owner.put(table, namespace, key, value, rng.randrange(3) if namespace else None)
    elif chance < 0.97:
        owner.remove(table, namespace, key, (), ghost=bool(namespace))
    else:
        owner.clear(table, namespace, ())


def change_pins(owner: Owner, rng: random.Random, table: str, namespace: str) -> None:
    """The same, and pin what is there; the oldest pins go."""
    change_records(owner, rng, table, namespace)
    pins = owner.pins()
    if rng.random() < 0.7:
        owner.pin(b"holder", table, namespace, f"k{rng.randrange(12)}")
    if pins and rng.random() < 0.7:
        holder, granule, _ = rng.choice(pins)
        owner.unpin(holder, granule)


@contextmanager
def eager_segment() -> Iterator[Segment]:
    """A segment whose owner holds nothing back from reuse."""
    segment = Segment(pure, 1 << 20)
    segment.owner._hold = lambda value_bytes: None
    try:
        yield segment
    finally:
        segment.close()


def take_over_watched(segment: Segment, before_store: Callable[[], None]) -> None:
    """Take over, calling back before each store of the recovery."""

    def watched(words: memoryview, reader: pure.Reader) -> recovery.Survey:
        return recovery.recover(StoreCounter(words, before_store), reader)  # type: ignore[arg-type]

    with patch.object(owner_module, "recover", watched):
        segment.take_over()


def churn(seed: int, batches: int, change: Change = change_records) -> Crowd:
    """Put, delete, clear and take over before the eyes of a crowd; return it."""
    rng = random.Random(seed)
    with eager_segment() as segment, closing(Crowd(segment)) as crowd:
        for batch in range(batches):
            if batch % 9 == 0:
                segment.owner._hold = lambda value_bytes: None
                watch_stores(segment.owner, crowd.step)
            for _ in range(rng.choice((1, 1, 3))):
                segment.owner._staging.heap.hold_bytes = rng.choice((0, 2000, 20_000))
                change(segment.owner, rng, *rng.choice(TABLES))
            segment.owner.commit()
            if batch % 9 == 8:
                # A kill in the middle of a batch, and a successor.
                for _ in range(5):
                    change(segment.owner, rng, *rng.choice(TABLES))
                segment.owner._lists.seal()
                segment.owner._staging._bury(segment.owner.committed + 1)
                segment.owner._staging.index.publish()
                take_over_watched(segment, crowd.step)
        assert segment.owner.check() == []
    return crowd


@pytest.mark.parametrize("change", [change_records, change_pins])
def test_a_late_reader_sees_its_snapshot_or_is_turned_away(change: Change) -> None:
    crowd = churn(seed=11, batches=120, change=change)
    assert crowd.accepted > 500
    assert crowd.turned_away > 500


class Interrupted:
    """Stands in the place of a reader's memoryview; the writer moves on before its n-th load."""

    def __init__(self, view: memoryview, load: Callable[[], None]) -> None:
        self._view = view
        self._load = load

    def __getitem__(self, at: Any) -> Any:
        self._load()
        return self._view[at]

    def __len__(self) -> int:
        return len(self._view)

    def release(self) -> None:
        self._view.release()


def overtake(seed: int, change: Change = change_records) -> int:
    """Interrupt a reader before each of its loads in turn, by a few batches; return how often it
    was accepted all the same."""
    rng = random.Random(seed)
    accepted = at = 0
    with eager_segment() as segment, closing(LateReader(segment.memory)) as reader:
        finished = False
        while not finished:
            run_batches(segment, rng, 2, change)
            reader.clock, reader.sequence = read_begin(reader._words)
            expected = contents(reader)
            countdown = at

            def load(batches: int = 1 + at % 6) -> None:
                nonlocal countdown
                if countdown == 0:
                    run_batches(segment, rng, batches, change)
                countdown -= 1

            words, data = reader._words, reader._data
            reader._words = Interrupted(words, load)  # type: ignore[assignment]
            reader._data = Interrupted(data, load)  # type: ignore[assignment]
            try:
                assert contents(reader) == expected, "an overtaken reader saw something else"
                accepted += 1
            except TurnedAway:
                pass
            finally:
                reader._words, reader._data = words, data
            finished = countdown >= 0
            at += 1
        assert segment.owner.check() == []
    return accepted


def run_batches(segment: Segment, rng: random.Random, count: int, change: Change) -> None:
    for _ in range(count):
        segment.owner._staging.heap.hold_bytes = rng.choice((0, 2000, 20_000))
        change(segment.owner, rng, *rng.choice(TABLES))
        segment.owner.commit()


@pytest.mark.parametrize("change", [change_records, change_pins])
def test_a_reader_overtaken_between_two_loads_sees_its_snapshot_or_is_turned_away(
    change: Change,
) -> None:
    assert overtake(5, change) > 100


def no_horizon(self: Clock, stamp: int) -> None:
    """The mutant that overwrites blocks without turning anybody away."""


def early_stamp(self: Staging) -> None:
    """The mutant that stamps what a batch replaces before it commits."""
    sequence = self._clock.committed + 1
    self._bury(sequence)
    self.index.publish()
    self.heap.stamp(list(self.replaced.items()), list(self._dead.values()))
    self.heap._release_some()
    self._clock.commit(sequence)
    self.begin()


def turn_away_late(self: Owner) -> None:
    """The mutant that takes over first and turns readers away afterwards."""
    self._turned = getattr(self, "_turned", 0) + 1  # type: ignore[attr-defined]
    if self._turned == 2:  # type: ignore[attr-defined]
        self._clock.reuse(self._clock.retire())


def bury_at_once(self: Heap) -> None:
    """The mutant that reuses a deleted entry without a second stamp after emptying its word."""
    dead = self._dead.popleft()
    self._clock.reuse(dead.stamp)
    if self._purge(dead.start, dead.word_hash):
        self.quarantine_granules -= dead.size
        self.free(dead.start, dead.size)
    else:
        self._deferred.append(dead)


def purge_without_horizon(self: Heap) -> None:
    """The mutant that empties the word of a deleted entry before its time."""
    dead = self._dead.popleft()
    if self._purge(dead.start, dead.word_hash):
        self._pending.append((dead.start, dead.size))
    else:
        self._deferred.append(dead)


def free_the_unpinned(
    self: Heap, replaced: list[tuple[int, int]], dead: list[tuple[int, int, int]]
) -> None:
    """The mutant that takes what is not pinned any more for free, as nothing leads to it."""
    for start, size in self.pinned.commit():
        self.free(start, size)
    STAMP(self, replaced, dead)


STAMP = Heap.stamp
MUTANTS = (
    (Clock, "reuse", no_horizon, change_records),
    (Staging, "publish", early_stamp, change_records),
    (Owner, "_turn_away_readers", turn_away_late, change_records),
    (Heap, "_bury", purge_without_horizon, change_records),
    (Heap, "_bury", bury_at_once, change_records),
    (Heap, "stamp", free_the_unpinned, change_pins),
)


@pytest.mark.parametrize(("owner", "name", "mutant", "change"), MUTANTS)
def test_each_order_of_the_protocol_is_needed(
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    mutant: Callable[..., Any],
    change: Change,
) -> None:
    monkeypatch.setattr(owner, name, mutant)

    def search() -> None:
        for seed in range(40):
            churn(seed, 60, change)
            overtake(seed, change)

    with pytest.raises(AssertionError, match="reader"):
        search()
