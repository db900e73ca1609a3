"""One writer after the other is killed over a segment, each a store later; readers look on."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from shmstore.errors import ShmstoreError, StoreFull
from torture.trial import Report

from .ground import Ground, State, settled_figures
from .life import Image, StoreBudget, in_child
from .operations import Operation, answers, contents, pinned
from .scenarios import MIB, SCENARIOS, Scenario
from .watch import Watch

FINDINGS_MAX = 20
OTHERS = 6
"""One successor, and one reader, in so many is of the other engine."""
LOOKS_MAX = 5
"""A reader looks so often on while somebody is dying."""
SAID_BYTES_MAX = 4096


@dataclass(frozen=True)
class Effort:
    """How many of the stores are somebody's last; beyond that they are chosen by chance."""

    stores: int
    """Of an operation that makes no more stores than this all are."""
    sample: int
    """Of others so many."""
    takeovers: int
    """At most so many of a takeover's."""
    share: float
    """The part of the states left behind whose takeover is killed as well."""


class Trial:
    """Plays scenarios with the first of ``engines``; readers are of all of them."""

    def __init__(self, engines: Sequence[ModuleType], budget: StoreBudget, seed: int) -> None:
        self.report = Report()
        self._engines = engines
        self._budget = budget
        self._seed = seed
        self._rng = random.Random(seed)
        os.urandom = self._rng.randbytes  # the hash's secret: where entries lie in the index
        self._ground: Ground
        self._effort: Effort
        self._where = self._where_killed = ""

    def play(self, effort: Effort) -> None:
        """Play all scenarios once, and the laying out of a segment."""
        self._effort = effort
        for scenario in SCENARIOS:
            self._play(scenario)
        self._create()

    def _play(self, scenario: Scenario) -> None:
        self._ground = ground = Ground(self._engines, scenario.capacity)
        try:
            scenario.prepare(ground.owner)
            ground.owner.commit()
            for operation in scenario.operations:
                self._where = f"{scenario.name}, {operation.__name__}"
                self._operate(operation)
                self.report.add("operations")
        finally:
            ground.close()

    def _operate(self, operation: Operation) -> None:
        """Have the operation done by writers that die at ever later stores; then do it."""
        ground, owner = self._ground, self._ground.owner

        def act() -> None:
            operation(owner)
            owner.commit()

        image = Image(ground.fd, ground.memory)
        kept = ground.committed
        before = State(contents(ground.readers[0]), *self._figures(lambda: None))
        image.restore()
        self._budget.disarm()
        if self._wait(in_child(act)) != 0:
            self._find("the undisturbed writer failed")
            return
        stores, seen = self._budget.spent, contents(ground.readers[0])
        image.restore()
        after = State(seen, *self._figures(act))
        for store in self._chosen(stores, self._effort.stores, self._effort.sample):
            image.restore()
            self._where_killed = f"killed before store {store} of {stores}"
            self._die(act, store, before, after, kept)
        image.restore()
        act()

    def _figures(self, act: Callable[[], None]) -> tuple[list[int], list[Any]]:
        """Return the figures that the writer has after doing this, and what it has pinned; it
        happens in a child."""
        reading, writing = os.pipe()
        owner, memory = self._ground.owner, self._ground.memory

        def tell() -> None:
            act()
            os.write(writing, json.dumps([settled_figures(owner), pinned(owner, memory)]).encode())

        pid = in_child(tell)
        os.close(writing)
        said = os.read(reading, SAID_BYTES_MAX)
        os.close(reading)
        os.waitpid(pid, 0)
        figures, pins = json.loads(said)
        return figures, pins

    def _die(
        self,
        act: Callable[[], None],
        store: int,
        before: State,
        after: State,
        kept: int,
    ) -> None:
        def state() -> State:
            return before if self._ground.committed == kept else after

        self._kill(act, store, Watch(before.contents, after.contents), state)
        self.report.add("stores at which the writer was killed")
        now = state()
        again = self._rng.random() < self._effort.share
        if not again:
            swap = self._rng.randrange(OTHERS) == 0
            self._succeed(now, self._engines[-1 if swap else 0])
            return
        image = Image(self._ground.fd, self._ground.memory)
        stores = self._succeed(now, self._engines[0])
        where = self._where_killed
        for second in self._chosen(stores, *[self._effort.takeovers] * 2):
            image.restore()
            self._where_killed = f"{where}, its successor before store {second} of {stores}"
            watch = Watch(now.contents, now.contents)
            self._kill(self._take_over, second, watch, lambda: now)
            self.report.add("stores at which a takeover was killed")
            self._succeed(now, self._engines[0])

    def _kill(
        self,
        act: Callable[[], None],
        store: int,
        watch: Watch,
        now: Callable[[], State],
    ) -> None:
        """Have a child do this and die before that store, while a reader looks on; then all do,
        and must see what is the state now."""
        ground = self._ground
        self._budget.arm(store)
        status = self._wait(in_child(act), lambda: watch.look(answers(ground.readers[0])))
        self.report.add("reads beside a dying writer", watch.looks)
        if status != -signal.SIGKILL:
            self._find(f"the writer was not killed: exit status {status}")
        for reader in ground.readers[: 1 if self._rng.randrange(OTHERS) else None]:
            if watch.look(answers(reader)) != now().contents:
                self._find("a reader after the kill sees another state than was committed")
        if watch.problem:
            self._find(watch.problem)

    def _succeed(self, now: State, engine: ModuleType) -> int:
        """Let a writer take over and go on; return the stores that the takeover made."""
        self._budget.disarm()
        try:
            owner = self._ground.own(engine.Owner.take_over)
        except ShmstoreError as error:
            self._find(f"the takeover failed: {error!r}")
            return 0
        stores = self._budget.spent
        try:
            self._judge(owner, now)
        except ShmstoreError as error:
            self._find(f"the successor failed: {error!r}")
        finally:
            owner.close()
        self.report.add("states checked")
        return stores

    def _take_over(self) -> None:
        self._ground.own(self._engines[0].Owner.take_over)

    def _judge(self, owner: Any, now: State) -> None:
        self._complain(owner)
        self._compare(owner.reader, now.contents, "the successor")
        self._compare_pins(owner, now)
        *shape, used = settled_figures(owner)
        if shape == now.figures[:2] and used != now.figures[2]:
            self._find(f"{used} bytes are in use, {now.figures[2]} were before")
        # The system's own records have a reserve on a full store.
        for table, namespace in (("next", ""), ("", "s")):
            try:
                owner.put(table, namespace, "life", b"goes on")
                owner.commit()
                break
            except StoreFull:
                owner.abort()
        scope = owner.reader.scope(table, namespace)
        if owner.reader.get(scope, "life") != b"goes on":
            self._find("the successor's own record is not there")
        self._complain(owner)
        self._compare(
            self._ground.readers[0], now.contents, "a reader after the successor's first batch"
        )
        self._compare_pins(owner, now)

    def _complain(self, owner: Any) -> None:
        if complaints := owner.check():
            self._find(f"check says {complaints[:3]}")

    def _compare_pins(self, owner: Any, now: State) -> None:
        if pinned(owner, self._ground.memory) != now.pinned:
            self._find("other values are pinned than were, or they have changed")

    def _compare(self, reader: Any, expected: Sequence[Any], who: str) -> None:
        try:
            if contents(reader) != expected:
                self._find(f"{who} sees another state than was committed")
        except ShmstoreError as error:
            self._find(f"{who} met {error!r}")

    def _create(self) -> None:
        """Kill who lays a segment out: the next one begins anew, or takes over."""
        engine, self._where = self._engines[0], "creation"
        self._ground = ground = Ground(self._engines, MIB)
        empty = contents(ground.readers[0])
        try:
            whole = len(ground.memory)

            def create() -> None:
                ground.extents.release(0, whole)
                ground.own(engine.Owner.create)

            self._budget.disarm()
            if self._wait(in_child(create)) != 0:
                self._find("the undisturbed writer failed")
            stores = self._budget.spent
            for store in self._chosen(stores, self._effort.stores, self._effort.sample):
                self._where_killed = f"killed before store {store} of {stores}"
                self._budget.arm(store)
                if self._wait(in_child(create)) != -signal.SIGKILL:
                    self._find("the writer was not killed")
                self.report.add("stores at which the writer was killed")
                self._begin(engine, empty)
            self.report.add("operations")
        finally:
            ground.close()

    def _begin(self, engine: ModuleType, empty: Sequence[Any]) -> None:
        """Do what a writer does that finds the segment so."""
        formatted = engine.is_formatted(self._ground.memory)
        try:
            owner = self._ground.own(engine.Owner.take_over if formatted else engine.Owner.create)
        except ShmstoreError as error:
            self._find(f"the successor failed: {error!r}")
            return
        try:
            self._complain(owner)
            self._compare(owner.reader, empty, "the successor")
            owner.put("next", "", "life", b"goes on")
            owner.commit()
            self._complain(owner)
        finally:
            owner.close()
        self.report.add("states checked")

    def _wait(self, pid: int, meanwhile: Callable[[], Any] = lambda: None) -> int:
        """Wait for a child, doing something; return its exit status, as subprocess has it."""
        for _ in range(LOOKS_MAX):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                return os.waitstatus_to_exitcode(status)
            meanwhile()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _chosen(self, stores: int, most: int, sample: int) -> list[int]:
        """Choose stores, many of them at the end: what comes before is staged in free memory."""
        if stores <= most:
            return list(range(stores))
        last = stores - sample // 2
        return [*sorted(self._rng.sample(range(last), sample - sample // 2)), *range(last, stores)]

    def _find(self, what: str) -> None:
        if len(self.report.findings) < FINDINGS_MAX:
            self.report.findings.append(
                f"{self._engines[0].__name__}, seed {self._seed}: {self._where}, "
                f"{self._where_killed}: {what}"
            )
