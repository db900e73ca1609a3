"""The two engines are one: equal operations leave equal bytes, equal bytes give equal answers.

Random operations are played to an owner of each engine, over two memories with the same secret.
After each commit the memories must be the same in every byte. On damaged memory both give the
same answers, or the same kind of error. SHMSTORE_STRESS=N plays N times as many games.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from operator import methodcaller
from types import ModuleType
from typing import Any

import pytest

from shmstore import pure
from shmstore.engine import load_native
from shmstore.errors import (
    CorruptSegment,
    FormatMismatch,
    InvalidKey,
    ReadStalled,
    StoreFull,
    UnknownCursor,
)
from shmstore.layout import EXTENT_END_WORD, HEAP_START, WORD_BYTES
from shmstore.pure.records import Damaged
from tests.segments import copy_of

GAMES = 12 * int(os.environ.get("SHMSTORE_STRESS", "1"))
STEPS = 400
PLAIN = [("t", ""), ("u", ""), ("", "tables"), ("p", "of one")]
SORTED = [("s", "n1"), ("s", "n2")]
INDEXES = [b"\x92a1", b"\x92a2", b"\x92b1"]
HOLDERS = [b"", b"holder", b"\xff" * 64]
DAMAGE = (CorruptSegment, Damaged, IndexError, AssertionError, KeyError, ValueError, OverflowError)

Place = tuple[str, str]


@pytest.fixture(scope="module")
def native() -> ModuleType:
    try:
        return load_native()
    except ImportError as error:
        if os.environ.get("SHMSTORE_ENGINE") == "native":
            raise
        pytest.skip(f"no native engine here: {error}")


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call returns, or the kind of its error; and its words, where no damage was met."""
    try:
        return "returned", call()
    except StoreFull as error:
        return "full", (str(error), error.details)
    except (InvalidKey, FormatMismatch, UnknownCursor) as error:
        return type(error).__name__, str(error)
    except ReadStalled:
        return "stalled", None
    except DAMAGE:
        return "damage", None


class System:
    """The memory of the system under one segment: it may refuse, and what it takes back is gone."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.refuses = False
        self.calls: list[tuple[str, int, int]] = []

    def extend(self, offset: int, size: int) -> None:
        self.calls.append(("extend", offset, size))
        if self.refuses:
            raise OSError(12, "not now")

    def release(self, offset: int, size: int) -> None:
        self.calls.append(("release", offset, size))
        self.memory[offset : offset + size] = bytes(size)


class Game:
    """An owner of each engine, and what both have been told."""

    def __init__(self, engines: list[ModuleType], rng: random.Random, capacity: int) -> None:
        self.rng = rng
        self.engines = engines
        self.systems = [System(mmap.mmap(-1, capacity)) for _ in engines]
        self.keys = rng.choice([30, 300, 3000])
        self.known: dict[tuple[Place, Any], tuple[bytes, ...]] = {}
        self.committed = dict(self.known)
        self.pinned: dict[tuple[bytes, int], tuple[int, bytes]] = {}
        self.pinned_before = dict(self.pinned)
        self.refusals = 0
        secret = rng.randbytes(56)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "urandom", lambda size: secret[:size])
            self.owners = self._open("create")

    def _open(self, way: str) -> list[Any]:
        return [
            getattr(engine.Owner, way)(system.memory, system.extend, system.release)
            for engine, system in zip(self.engines, self.systems, strict=True)
        ]

    def close(self) -> None:
        for owner, system in zip(self.owners, self.systems, strict=True):
            owner.close()
            system.memory.close()

    def both(self, call: Callable[[Any], Any]) -> tuple[str, Any]:
        """Let both owners do the same; return what came of it, which must be the same."""
        first, second = (outcome(partial(call, owner)) for owner in self.owners)
        assert first == second
        changes = [owner.changes for owner in self.owners]
        assert changes[0] == changes[1]
        assert self.systems[0].calls == self.systems[1].calls
        return first

    def change(self, call: Callable[[Any], Any]) -> Any:
        """Stage something; a failure that left something half done drops the batch."""
        before = self.owners[0].changes
        kind, result = self.both(call)
        if kind == "returned":
            return result
        assert kind == "full"
        self.refusals += 1
        if self.owners[0].changes != before:
            self.abort()
        return None

    # The steps

    def key(self) -> str | bytes:
        number = self.rng.randrange(self.keys)
        wide = "é" * (number % 50) + "k" * (3000 if number % 97 == 3 else 0)
        return f"{number}{wide}" if number % 3 else f"{number}".encode()

    def value(self) -> bytes:
        sizes = [0, 1, 15, 16, 90, 300, 4095, 4096, 9000, 60_000]
        most = self.rng.choices(sizes, [3, 3, 3, 3, 20, 20, 1, 1, 2, 1])[0]
        return self.rng.randbytes(self.rng.choice([most, self.rng.randrange(most + 1)]))

    def indexes(self) -> tuple[bytes, ...]:
        return tuple(self.rng.sample(INDEXES, self.rng.randrange(len(INDEXES))))

    def put(self) -> None:
        place, key, value = self.rng.choice(PLAIN + SORTED), self.key(), self.value()
        new = () if place[0] == "t" else self.indexes()
        old = self.known.get((place, key), ())
        created = self.rng.randrange(-5, 5) if place in SORTED else None
        if self.change(lambda owner: owner.put(*place, key, value, created, old, new)):
            self.known[place, key] = new

    def put_many(self) -> None:
        place, start = ("t", ""), self.rng.randrange(self.keys)
        for number in range(start, start + 150):
            if self.change(methodcaller("put", *place, f"m{number}", b"many")):
                self.known[place, f"m{number}"] = ()

    def leave_ghosts(self) -> None:
        """More in a few batches than a small segment keeps."""
        place = self.rng.choice(SORTED)
        for number in self.rng.sample(range(200), 60):
            name = place, f"g{number}"
            if self.change(methodcaller("put", *place, name[1], b"", 3)):
                self.known[name] = ()
                if self.change(methodcaller("remove", *place, name[1], (), True)):
                    del self.known[name]

    def remove(self) -> None:
        if not self.known:
            return
        place, key = self.rng.choice(list(self.known))
        old, ghost = self.known[place, key], self.rng.random() < 0.5
        if self.change(lambda owner: owner.remove(*place, key, old, ghost=ghost)):
            del self.known[place, key]

    def reindex(self) -> None:
        indexed = [name for name in self.known if name[0] in SORTED]
        if indexed:
            place, key = self.rng.choice(indexed)
            old, new = self.known[place, key], self.indexes()
            changes = self.owners[0].changes
            kind, _ = self.both(lambda owner: owner.reindex(*place, key, old, new))
            assert kind == "returned"
            assert old != new or self.owners[0].changes == changes
            self.known[place, key] = new

    def clear(self) -> None:
        place = self.rng.choice(PLAIN + SORTED)
        mine = [name for name in self.known if name[0] == place]
        kind, count = self.both(lambda owner: owner.clear(*place, INDEXES))
        assert (kind, count) == ("returned", len(mine))
        for name in mine:
            del self.known[name]

    def pin(self) -> None:
        """By several holders what is there, and what the batch has just written."""
        if not self.known:
            return
        names = list(self.known)
        place, key = self.rng.choice(names[-5:] if self.rng.random() < 0.5 else names)
        holder = self.rng.choice(HOLDERS)
        _, found = self.both(methodcaller("find", *place, key))
        pinned = self.change(methodcaller("pin", holder, *place, key))
        if pinned:
            granule, start, size, version = pinned
            assert version == found.version
            for system in self.systems:
                assert system.memory[start : start + size] == found.value
            self.pinned[holder, granule] = start, found.value

    def pin_nothing(self) -> None:
        for granule in (self.rng.randrange(1 << 16), 0, -1, 1 << 36, 1 << 70):
            name = self.rng.choice(HOLDERS)
            if all(pinned != granule for _, pinned in self.pinned):
                assert self.both(methodcaller("share_pin", name, granule))[1] is False
                assert self.both(methodcaller("unpin", name, granule))[1] is False
        assert self.both(methodcaller("pin", name, "none", "", "k"))[1] is None
        for holder in (b"x" * 65, "holder", None):
            for call in (("pin", holder, "t", "", "1"), ("share_pin", holder, 1)):
                assert self.both(methodcaller(*call))[0] == "InvalidKey"

    def share_pin(self) -> None:
        if self.pinned:
            holder, granule = self.rng.choice(list(self.pinned))
            other = self.rng.choice(HOLDERS)
            if self.change(methodcaller("share_pin", other, granule)):
                self.pinned[other, granule] = self.pinned[holder, granule]

    def unpin(self) -> None:
        if self.pinned:
            name = self.rng.choice(list(self.pinned))
            assert self.both(methodcaller("unpin", *name)) == ("returned", True)
            assert self.both(methodcaller("unpin", *name)) == ("returned", False)
            del self.pinned[name]

    def look(self) -> None:
        place, key = self.rng.choice(PLAIN + SORTED), self.key()
        index = self.rng.choice([b"", *INDEXES])
        position = self.rng.choice([None, [self.rng.randrange(-5, 5), self.rng.randrange(200)]])
        limit, newest_first = self.rng.choice([None, 0, 1, 70]), self.rng.random() < 0.5
        self.both(lambda owner: owner.touched(*place, key))
        self.both(lambda owner: owner.count(*place, index))
        self.both(lambda owner: owner.chunk(*place, index, position, limit, newest_first))
        _, found = self.both(lambda owner: owner.find(*place, key))
        assert (found is not None) == ((place, key) in self.known)
        self.both(lambda owner: owner.find(*place, 7))
        self.both(lambda owner: owner.statistics())
        self.both(lambda owner: owner.pins())

    def commit(self) -> None:
        kind, _ = self.both(lambda owner: owner.commit())
        if kind == "returned":
            self.committed, self.pinned_before = dict(self.known), dict(self.pinned)
        else:
            self.go_back()
        self.assert_same_bytes()
        self.assert_pinned()

    def abort(self) -> None:
        self.both(lambda owner: owner.abort())
        self.go_back()

    def go_back(self) -> None:
        self.known, self.pinned = dict(self.committed), dict(self.pinned_before)

    def settle(self) -> None:
        self.abort()
        while self.both(lambda owner: owner.settle())[1]:
            pass
        self.assert_same_bytes()

    def refuse(self) -> None:
        for system in self.systems:
            system.refuses = not system.refuses

    def take_over(self) -> None:
        """Die, perhaps in the middle of a commit; the engines change places."""
        if self.rng.random() < 0.5:
            self.begin_to_publish()
        for owner in self.owners:
            owner.close()
        self.engines.reverse()
        self.owners = self._open("take_over")
        self.go_back()
        self.assert_same_bytes()
        self.assert_pinned()

    def begin_to_publish(self) -> None:
        """Leave both memories as the reference engine does when it dies before it commits."""
        which = self.engines.index(pure)
        owner = self.owners[which]
        if outcome(owner._lists.seal)[0] == "returned":
            owner._staging._bury(owner.committed + 1)
            words = list(owner._staging.index._staged.items())
            for address, word in words[: self.rng.randrange(len(words) + 1)]:
                owner._words[address] = word
        self.systems[1 - which].memory[:] = self.systems[which].memory[:]
        # What the reference engine has asked for since, the other one has not.
        self.systems[1 - which].calls = list(self.systems[which].calls)

    # What must hold

    def assert_same_bytes(self) -> None:
        first, second = (system.memory for system in self.systems)
        if first[:] != second[:]:
            pairs = zip(memoryview(first).cast("Q"), memoryview(second).cast("Q"), strict=True)
            words = [at for at, (one, other) in enumerate(pairs) if one != other]
            pytest.fail(f"{len(words)} words differ, from word {words[0]} on")

    def assert_pinned(self) -> None:
        """What is pinned lies where it lay, and nothing else is said to be pinned."""
        memory = self.systems[0].memory
        for start, value in self.pinned.values():
            assert memory[start : start + len(value)] == value
        expected = [(*name, len(value)) for name, (_, value) in self.pinned.items()]
        assert self.both(lambda owner: owner.pins()) == ("returned", sorted(expected))

    def assert_sound(self) -> None:
        """Each engine checks its own segment and that of the other."""
        assert self.both(lambda owner: owner.check()) == ("returned", [])
        for engine in self.engines:
            for system in self.systems:
                assert engine.check_segment(system.memory) == []

    def assert_same_answers(self) -> None:
        """Four answers to each question: of each engine's reader, on each engine's segment."""
        questions = list(questions_of(self.rng))
        answers = []
        for engine in self.engines:
            for system in self.systems:
                with closing(engine.Reader(system.memory)) as reader:
                    answers.append([outcome(partial(ask, reader)) for ask in questions])
        assert all(each == answers[0] for each in answers)


def questions_of(rng: random.Random) -> Iterator[Callable[[Any], Any]]:
    """Calls of all methods of a reader."""
    keys: list[str | bytes] = [f"{i}" for i in range(1, 30)]
    keys += [b"0", b"3", "m7", "", "none"]
    for table, namespace in PLAIN + SORTED:

        def scoped(method: str, *more: Any, table: str = table, namespace: str = namespace) -> Any:
            return lambda reader: getattr(reader, method)(reader.scope(table, namespace), *more)

        def listed(method: str, *more: Any, table: str = table, namespace: str = namespace) -> Any:
            return lambda reader: getattr(reader, method)(table, namespace, *more)

        yield scoped("get_many", keys)
        for key in rng.sample(keys, 4):
            yield scoped("get", key)
            yield scoped("get_versioned", key)
            yield scoped("version", key)
            yield scoped("contains", key)
            yield listed("page", 3, key, None)
            yield listed("page", 3, None, key)
        yield listed("page", 50, None, None)
        for index in (b"", *INDEXES):
            yield listed("count", index)
            yield listed("chunk", index, None, None, rng.random() < 0.5)
            yield listed("chunk", index, [rng.randrange(-5, 5), 40], 9, rng.random() < 0.5, False)
    yield lambda reader: reader.info()


@contextmanager
def game_of(native: ModuleType, seed: int) -> Iterator[Game]:
    """A game that has been played for a while."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    capacity = rng.choice([1 << 20, 3 << 20, (16 << 20) + 4096])
    with closing(Game([pure, native], rng, capacity)) as game:
        yield game


def play(game: Game, steps: int) -> None:
    weights = {
        game.put: 50,
        game.remove: 20,
        game.put_many: 1,
        game.leave_ghosts: 2,
        game.reindex: 4,
        game.clear: 1,
        game.pin: 8,
        game.pin_nothing: 1,
        game.share_pin: 3,
        game.unpin: 9,
        game.look: 4,
        game.commit: 16,
        game.abort: 2,
        game.settle: 1,
        game.refuse: 1,
        game.take_over: 2,
    }
    for step in game.rng.choices(list(weights), list(weights.values()), k=steps):
        step()
    game.commit()
    game.assert_sound()


@pytest.mark.parametrize("seed", range(GAMES))
def test_equal_operations_leave_equal_bytes(native: ModuleType, seed: int) -> None:
    with game_of(native, seed) as game:
        for _ in range(3):
            play(game, STEPS // 3)
            game.assert_same_answers()
        assert game.committed


@pytest.mark.parametrize("seed", range(GAMES // 4))
def test_full_stores_agree(native: ModuleType, seed: int) -> None:
    """Filled to the brim, emptied, and filled again."""
    print(f"seed {seed}")
    with closing(Game([pure, native], random.Random(seed), 1 << 20)) as game:
        game.keys = 5000
        for _ in range(2):
            enough = game.refusals + 60
            while game.refusals < enough:
                game.put()
                if game.rng.random() < 0.2:
                    game.commit()
            game.commit()
            for _ in range(len(game.known) * 2 // 3):
                game.remove()
                if game.rng.random() < 0.2:
                    game.commit()
            game.clear()
            game.commit()
            game.assert_same_answers()
        game.assert_sound()


def damage(memory: mmap.mmap, rng: random.Random) -> None:
    """Overwrite some words of what is in use, with noise or with words from elsewhere."""
    with memoryview(memory) as data, data.cast("Q") as words:
        end = words[EXTENT_END_WORD] // WORD_BYTES
        used = [at for at in range(HEAP_START // WORD_BYTES, end) if words[at]]
        for _ in range(rng.choice([1, 1, 2, 10, 200])):
            at = rng.choice(used) if rng.random() < 0.9 else rng.randrange(5, 24)
            words[at] = rng.choice(
                [
                    0,
                    1,
                    rng.getrandbits(64),
                    words[at] ^ 1 << rng.randrange(64),
                    words[rng.choice(used)],
                ]
            )


def operate(owner: Any, rng: random.Random) -> Any:
    """One operation of a writer on a segment of which it knows nothing."""
    place = rng.choice(PLAIN + SORTED)
    key = f"{rng.randrange(300)}"
    created = rng.randrange(-5, 5) if place in SORTED else None
    return rng.choice(
        [
            lambda: owner.put(*place, key, rng.randbytes(rng.randrange(200)), created),
            lambda: owner.remove(*place, key, (), ghost=rng.random() < 0.5),
            lambda: owner.count(*place),
            lambda: owner.find(*place, key),
            lambda: owner.chunk(*place, b"", None, 50, True),
            lambda: owner.clear(*place, ()),
            lambda: owner.pin(rng.choice(HOLDERS), *place, key),
            lambda: [owner.unpin(holder, granule) for holder, granule, _ in owner.pins()],
            lambda: owner.commit(),
        ]
    )()


def lives(engine: ModuleType, damaged: mmap.mmap, seed: int) -> Iterator[Any]:
    """Read a damaged segment, take it over, work with it until damage is met."""
    questions = list(questions_of(random.Random(seed)))
    with copy_of(damaged) as memory:
        yield engine.check_segment(memory)
        try:
            with closing(engine.Reader(memory)) as reader:
                yield [outcome(partial(ask, reader)) for ask in questions]
        except (CorruptSegment, FormatMismatch) as error:
            yield type(error).__name__
        system = System(memory)
        try:
            owner = engine.Owner.take_over(memory, system.extend, system.release)
        except (CorruptSegment, FormatMismatch) as error:
            yield type(error).__name__, memory[:]
            return
        with closing(owner):
            yield owner.statistics(), memory[:]
            rng = random.Random(seed)
            for _ in range(60):
                result = outcome(lambda: operate(owner, rng))
                yield result
                if result[0] == "damage":
                    return
            yield memory[:]


@pytest.mark.parametrize("seed", range(GAMES))
def test_damaged_segments_get_the_same_answers(native: ModuleType, seed: int) -> None:
    with game_of(native, seed) as game:
        play(game, STEPS // 2)
        for again in range(8):
            with copy_of(game.systems[0].memory) as damaged:
                damage(damaged, game.rng)
                for one, other in zip(
                    lives(pure, damaged, again), lives(native, damaged, again), strict=True
                ):
                    assert one == other
