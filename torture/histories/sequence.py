"""Many operations, each judged by the sequence of commits, while the writer is killed or not."""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import shmstore

from ..trial import Budget, Report
from .board import Board, Broken
from .crew import Job, Member, Post, Words, crew, gather, kill_writer, shared_words, wait_for
from .mutations import Hands, settled
from .records import Ages, Shape, key_of, record
from .scripts import Script
from .sights import Probe, Sight
from .turns import Turns

FEW_KEYS = Shape()
MANY_KEYS = Shape(plain=24, stored=90, capacity="4MiB")
"""So many that a list has several nodes, and an index more than a page."""
LARGE_RECORDS = Shape(stored=3, padding=40_000, capacity="2MiB")
"""So large that memory is used again while they are read."""
BATCH = 200
FINDINGS_MAX = 3
PIPELINE_MAX = 8
POLL_SECONDS = 0.005
ALIVE_SECONDS = (0.05, 0.8)
RUNNING_SECONDS = (0.001, 0.005)
STOPPED_SECONDS = (0.001, 0.01)


def play(budget: Budget, report: Report, shape: Shape, disturbance: str, seconds: float) -> int:
    """Play one game for so many seconds; return how many operations were judged."""
    seed = budget.rng.randrange(1 << 32)
    board = Board(shape)
    scripts = [Script(f"{seed}/{which}", shape) for which in range(shape.clients)]
    words = shared_words(board.size)
    parts = [act] * shape.clients + [watch] * shape.readers + [look_back]
    jobs: list[Job] = [
        partial(_take, part, words, board, scripts, f"{seed}/{process}", process)
        for process, part in enumerate(parts)
    ]
    with crew(jobs, shape.capacity) as (server, members):
        end = time.monotonic() + seconds
        times = DISTURBANCES[disturbance](budget.rng, server, members, end)
        words[board.stop] = 1
        *players, last = members
        findings = [finding for found in gather(players) for finding in found]
        last.send(None)
        findings += last.receive() + server.client.check()
    judged = sum(words[board.judged : board.judged + board.processes])
    compared = sum(words[board.compared : board.compared + board.processes])
    report.add("operations judged by commit sequence", judged)
    report.add("snapshots compared", compared)
    if times:
        report.add(disturbance, times)
    where = f"seed {budget.seed}, game {seed}, {shape}, {disturbance} {times} times"
    report.findings += [f"{finding} ({where})" for finding in findings[:FINDINGS_MAX]]
    return judged


def _take(
    part: Callable[[Player, Post], None],
    words: Words,
    board: Board,
    scripts: list[Script],
    seed: str,
    process: int,
    post: Post,
    client: shmstore.Client,
) -> None:
    """The job of a process: takes its part, and says what was broken."""
    player = Player(client, words, board, scripts, seed, process)
    try:
        part(player, post)
    except Exception:
        player.findings.append(traceback.format_exc())
    post.send(player.findings)


def _kill(rng: random.Random, server: shmstore.Server, members: list[Member], end: float) -> int:
    """Kill the writer again and again, most often in the midst of its work; return how often."""
    killed: list[int | None] = [None]
    while (left := end - time.monotonic()) > 0:
        in_takeover = rng.random() < 0.2
        time.sleep(min(left, POLL_SECONDS if in_takeover else rng.uniform(*ALIVE_SECONDS)))
        if wait_for(lambda: server.writer_pid not in (None, killed[-1])):
            killed.append(kill_writer(server))
    return sum(pid is not None for pid in killed)


def _stop(rng: random.Random, server: shmstore.Server, members: list[Member], end: float) -> int:
    """Stop the writer or another process, and let it go on; return how often."""
    stopped = 0
    while time.monotonic() < end:
        time.sleep(rng.uniform(*RUNNING_SECONDS))
        pid = server.writer_pid if rng.random() < 0.5 else rng.choice(members).pid
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(rng.uniform(*STOPPED_SECONDS))
            finally:
                os.kill(pid, signal.SIGCONT)
            stopped += 1
    return stopped


def _leave(rng: random.Random, server: shmstore.Server, members: list[Member], end: float) -> int:
    """Disturb nobody."""
    time.sleep(max(0.0, end - time.monotonic()))
    return 0


DISTURBANCES = {
    "nothing": _leave,
    "writers killed": _kill,
    "writers and readers stopped": _stop,
}
"""What befalls the processes of a game; what is counted of it has the same name."""


class Player:
    """What a process needs in a game."""

    def __init__(
        self,
        client: shmstore.Client,
        words: Words,
        board: Board,
        scripts: list[Script],
        seed: str,
        process: int,
    ) -> None:
        self.rng = random.Random(seed)
        self.client = client
        self.words = words
        self.board = board
        self.script = scripts[process % len(scripts)]
        self.process = process
        self.turns = Turns(client, words, board, self.script.shape, process)
        self.sights = [
            Sight(client, words, board, script, whose, process)
            for whose, script in enumerate(scripts)
        ]
        self.findings: list[str] = []

    def goes_on(self) -> bool:
        """Tell whether there is more to do."""
        return not self.words[self.board.stop] and len(self.findings) < FINDINGS_MAX

    def do(self, probes: list[Probe], snapshots: int = 0) -> None:
        """Do these and count them, so many of them as snapshots; keep what was broken."""
        try:
            for probe in probes:
                probe()
        except Exception as error:  # what is read from memory that was overwritten may be anything
            kind = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
            self.findings.append(f"{kind}{error}")
        self.words[self.board.judged + self.process] += len(probes)
        self.words[self.board.compared + self.process] += snapshots


def watch(player: Player, post: Post) -> None:
    """The part of a reader."""
    begun = [player.board.numbers(player.words, i) for i in range(len(player.sights))]
    while not all(map(max, begun)):
        post.stay()
        time.sleep(POLL_SECONDS)
    few = player.script.shape.stored < BATCH // 4
    singles, snapshots, looks = (150, 12, 38) if few else (20, 150, 30)
    while player.goes_on():
        post.stay()
        sight = player.rng.choice(player.sights)
        with shmstore.namespace(sight.namespace):
            player.do(player.rng.choices(sight.singles, k=singles))
            player.do(player.rng.choices(sight.snapshots, k=snapshots), snapshots)
        player.do(player.rng.choices(player.turns.looks, k=looks))
        player.do([player.turns.settle])


def act(player: Player, post: Post) -> None:
    """The part of a client: plays its script, takes turns, reads what it wrote."""
    sight = player.sights[player.process]
    with shmstore.namespace(sight.namespace):
        actor = Actor(player)
        actor.install()
        while player.goes_on():
            post.stay()
            chance = player.rng.random()
            if chance < 0.25:
                player.do([partial(player.turns.take, player.rng)])
            elif chance < 0.35:
                actor.play_together(player.rng.randint(2, PIPELINE_MAX))
            elif chance < 0.45:
                player.do([player.rng.choice(sight.singles)])
                player.do([player.rng.choice(sight.snapshots)], 1)
            else:
                player.do([actor.play])


def look_back(player: Player, post: Post) -> None:
    """The part of who looks when all others have ended: all can be in one state only."""
    post.receive()
    for sight in player.sights:
        with shmstore.namespace(sight.namespace):
            player.do(sight.singles)
            player.do(sight.snapshots, len(sight.snapshots))
    player.do([*player.turns.looks, player.turns.settle, player.turns.add_up])


class Actor:
    """Plays the script of a client."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._script = player.script
        self._words = player.words
        self._begun = player.board.begun + player.process
        self._marks = player.board.numbers(player.words, player.process)
        self._namespace = f"c{player.process}"
        self._hands = Hands.of(player.client, self._namespace)
        self._number = self._script.length

    def install(self) -> None:
        """Store what there is before the first mutation."""
        number, shape = self._number, self._script.shape
        self._words[self._begun] = number
        with self._player.client.transaction() as tx:
            hands = Hands.of(tx, self._namespace)
            for slot, wrote in self._script.plain_row(number):
                hands.plain.put(key_of(slot), record(slot, shape, wrote))
            for slot, wrote in self._script.stored_row(number):
                hands.shelves.insert(record(slot, shape, wrote))
        self._done()

    def play(self) -> None:
        """Play the next mutation."""
        number, before = self._begin()
        result = self._script.mutation(number).call(self._hands, number, before)
        self._judge(number, result)
        self._done()

    def play_together(self, count: int) -> None:
        """Play up to so many mutations without waiting for each."""
        replies: list[tuple[int, Any]] = []
        with self._player.client.pipeline() as pipeline:
            hands = Hands.of(pipeline, self._namespace)
            while len(replies) < count and not self._script.mutation(self._number + 1).alone:
                number, before = self._begin()
                call = self._script.mutation(number).call
                replies.append((number, call(hands, number, before)))
        self._player.do([partial(self._judge, number, settled(reply)) for number, reply in replies])
        self._done()

    def _begin(self) -> tuple[int, Ages]:
        self._number += 1
        self._words[self._begun] = self._number
        return self._number, self._script.ages(self._number - 1)

    def _judge(self, number: int, result: Any) -> None:
        mutation = self._script.mutation(number)
        if not mutation.right(result, number, self._script.ages(number - 1)):
            raise Broken(
                f"mutation {number} of {self._namespace}, {mutation.name}: {result!r:.300}"
            )

    def _done(self) -> None:
        self._marks[self._player.process] = self._number
