"""Many operations, each judged by the sequence of commits, while the writer is killed or not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import shmstore

from ..trial import Budget, Report
from .board import Board, Broken
from .crew import Job, Post, Words, crew, gather, kill_writer, shared_words, wait_for
from .mutations import Ages, Hands, key_of, record, settled
from .scripts import Script, Shape
from .sights import Probe, Sight
from .turns import Turns

FEW_KEYS = Shape()
MANY_KEYS = Shape(plain=24, stored=90, capacity="4MiB")
"""So many that a list has several nodes, and an index more than a page."""
BATCH = 200
FINDINGS_MAX = 3
PIPELINE_MAX = 8
POLL_SECONDS = 0.005


def play(budget: Budget, report: Report, shape: Shape, seconds: float, kills: bool) -> int:
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
        killed = _disturb(budget.rng if kills else None, server, seconds)
        words[board.stop] = 1
        *players, last = members
        findings = [finding for found in gather(players) for finding in found]
        last.send(None)
        findings += last.receive() + server.client.check()
    judged = sum(words[board.judged : board.judged + board.processes])
    compared = sum(words[board.compared : board.compared + board.processes])
    report.add("operations judged by commit sequence", judged)
    report.add("snapshots compared", compared)
    report.add("writers killed", killed)
    where = f"seed {budget.seed}, game {seed}, {shape}, {killed} writers killed"
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
    part(player, post)
    post.send(player.findings)


def _disturb(rng: random.Random | None, server: shmstore.Server, seconds: float) -> int:
    """Let time pass; with ``rng`` kill the writer again and again; return how often."""
    end = time.monotonic() + seconds
    killed: list[int | None] = [None]
    while (left := end - time.monotonic()) > 0:
        if rng is None:
            time.sleep(left)
            continue
        # Most often in the midst of its work, now and then in its takeover.
        time.sleep(min(left, rng.uniform(0.05, 0.8) if rng.random() < 0.8 else POLL_SECONDS))
        if wait_for(lambda: server.writer_pid not in (None, killed[-1])):
            killed.append(kill_writer(server))
    return sum(pid is not None for pid in killed)


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
        except Broken as error:
            self.findings.append(str(error))
        self.words[self.board.judged + self.process] += len(probes)
        self.words[self.board.compared + self.process] += snapshots


def watch(player: Player, post: Post) -> None:
    """The part of a reader."""
    begun = [player.board.numbers(player.words, i) for i in range(len(player.sights))]
    while not all(map(max, begun)):
        post.stay()
        time.sleep(POLL_SECONDS)
    few = player.script.shape.stored < BATCH // 4
    singles, snapshots, looks = (165, 25, 10) if few else (20, 150, 30)
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
            if chance < 0.15:
                player.do([partial(player.turns.take, player.rng)])
            elif chance < 0.25:
                actor.play_together(player.rng.randint(2, PIPELINE_MAX))
            elif chance < 0.35:
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
        number, plain = self._number, self._script.shape.plain
        self._words[self._begun] = number
        with self._player.client.transaction() as tx:
            hands = Hands.of(tx, self._namespace)
            for slot, wrote in self._script.plain_row(number):
                hands.plain.put(key_of(slot), record(slot, plain, wrote))
            for slot, wrote in self._script.stored_row(number):
                hands.shelves.insert(record(slot, plain, wrote))
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
