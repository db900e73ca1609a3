"""A segment, and the lives of the writers that own it one after the other."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from shmstore import segment
from shmstore.layout import SECRET_WORD, SECRET_WORDS, SEGMENT_ID_WORD

from ..tracing import GATE, NEXT, Outcome, Steps, Traced
from .judge import Broken, Judge
from .scene import Desk, Turn

STEPPED = frozenset(
    {"put", "remove", "reindex", "clear", "commit", "abort", "settle", "stage", "run"}
)
"""What an owner does to its segment."""
ENDLESS = 1 << 62


@dataclass(frozen=True)
class Doom:
    """When a writer is killed, unless it comes to the end of its operations before."""

    instructions: int
    """After so many of the engine."""
    states: int = ENDLESS
    """At this one of the distinct states of the segment..."""
    undone: int = ENDLESS
    """...or of those in which a takeover finds something to take back..."""
    delay: int = 0
    """...so many instructions later."""


class Memory:
    """A segment that holds something."""

    def __init__(
        self,
        native: ModuleType,
        capacity: int,
        fill: Callable[[Any, random.Random], None],
        rng: random.Random,
    ) -> None:
        self.fd = segment.create(capacity)
        self.bytes = segment.map_writable(self.fd)
        extents = segment.Extents(self.fd, self.bytes)
        native.Owner.create(self.bytes, extents.extend, extents.release).close()
        words = memoryview(self.bytes).cast("Q")
        for word in range(SEGMENT_ID_WORD, SECRET_WORD + SECRET_WORDS):
            words[word] = rng.getrandbits(64)  # so that a seed tells the whole story
        words.release()
        owner = native.Owner.take_over(self.bytes, extents.extend, extents.release)
        fill(owner, rng)
        owner.close()

    def close(self) -> None:
        self.bytes.close()
        os.close(self.fd)


class Life:
    """The life of one writer: it takes a segment over and does some operations."""

    def __init__(
        self,
        native: ModuleType,
        memory: Memory,
        code: range,
        turns: Sequence[Turn],
        whole: bool,
    ) -> None:
        """``whole``: the takeover is stepped as well. Errors: ``Refused``."""
        self._turns = turns
        self._turn: Turn | None = None
        self._begun = 0
        self._victim = Traced(
            lambda steps: _play(steps, native, memory.fd, turns, whole), memory.bytes, code
        )

    def __str__(self) -> str:
        doing = self._turn.operation.__name__ if self._turn else "takeover"
        return f"{doing}, after {self._victim.inside} instructions of the engine"

    def watch(self, judge: Judge, doom: Doom) -> bool:
        """Step through the writer's life and judge each state; return whether it was killed.

        Errors: ``Broken``, ``Refused``, and what the engines raise.
        """
        victim, stepping, last = self._victim, False, doom.instructions
        states = undone = 0
        while True:
            outcome = victim.step(last) if stepping else victim.run()
            if outcome == Outcome.SPENT:
                return True
            if outcome == Outcome.CHANGED:
                if victim.words_changed > 1:
                    raise Broken(f"one instruction has changed {victim.words_changed} words")
            elif self._signal() == GATE:
                changed = victim.look()
                if changed and stepping:
                    raise Broken(f"{changed} words were changed by no instruction of the engine")
                stepping = not stepping
                if not changed:
                    continue
            elif self._next(judge):
                continue
            else:
                return False
            states += 1
            undone += judge.judge()
            if states >= doom.states or undone >= doom.undone:
                last = min(last, victim.inside + doom.delay)

    def end(self) -> None:
        """Kill the writer where it stands."""
        self._victim.kill()

    @property
    def inside(self) -> int:
        """Instructions of the engine that were stepped."""
        return self._victim.inside

    @property
    def operations(self) -> int:
        """How many operations have begun, the takeover not counted."""
        return max(0, self._begun - 1)

    def _signal(self) -> int:
        signal = self._victim.signal()
        if signal not in (GATE, NEXT):
            words = self._victim.last_words() if signal is None else f"met signal {signal}"
            raise Broken(f"the writer {words}")
        return signal

    def _next(self, judge: Judge) -> bool:
        """Prepare for the writer's next operation; return whether there is one."""
        self._victim.look()
        if self._begun:
            judge.acknowledge(self._turn)
        if self._begun > len(self._turns):
            return False
        self._turn = self._turns[self._begun - 1] if self._begun else None
        self._begun += 1
        judge.rehearse(self._turn)
        return True


def _play(steps: Steps, native: ModuleType, fd: int, turns: Sequence[Turn], whole: bool) -> None:
    """Be the writer."""
    memory = segment.map_writable(fd)
    extents = segment.Extents(fd, memory)
    steps.next()
    take_over = steps.inside(native.Owner.take_over) if whole else native.Owner.take_over
    bare = take_over(memory, steps.outside(extents.extend), steps.outside(extents.release))
    desk = Desk(_Stepped(bare, steps), bare)
    for turn in turns:
        steps.next()
        turn.play(desk)
    steps.next()


class _Stepped:
    """Stands in the place of an owner that is to be stepped."""

    def __init__(self, owner: Any, steps: Steps) -> None:
        self._owner = owner
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._owner, name)
        return self._steps.inside(value) if name in STEPPED else value
