"""What many processes see can be put in one order: the short form, and that lies are noticed."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest

import shmstore
from shmstore import engine
from torture.histories import run, short
from torture.histories.board import Board, Broken
from torture.histories.mutations import Shelves
from torture.histories.plans import CALM, Plan
from torture.histories.records import Shape, key_of
from torture.histories.scripts import Script
from torture.histories.sequence import FEW_KEYS, LARGE_RECORDS, MANY_KEYS, Actor, Player
from torture.trial import Budget, Report
from torture.wing_gong import Operation

SHAPE = Shape(clients=1, readers=1)


@pytest.mark.timeout(300)
def test_a_short_run_breaks_nothing() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    operations = 200_000 if engine.NAME == "native" else 30_000
    report = run(Budget(3, seed), operations, histories=120)
    print(report.counts)
    assert report.findings == []
    counts = report.counts
    assert counts["operations judged by commit sequence"] >= operations
    assert counts["short histories that could be put in order"] >= 120
    assert counts["short histories with the writer killed in their midst"] > 0
    assert counts["pairs of operations that overlapped"] > 0
    assert counts["snapshots compared"] > 0
    assert counts["writers killed"] > 0


@pytest.mark.parametrize("shape", [FEW_KEYS, MANY_KEYS, LARGE_RECORDS])
def test_a_script_comes_round_to_what_it_began_with(shape: Shape) -> None:
    for seed in range(20):
        script = Script(str(seed), shape)
        ages = script.ages(0)
        for number in range(1, 2 * script.length + 1):
            ages = script.mutation(number).after(ages)
            assert ages == script.ages(number)
        assert len(script.plain_row(0)) == shape.plain
        assert len(script.stored_row(0)) == shape.stored


# What those who judge say of a lie


class Game:
    """A game of one process, which is client and reader; it plays some mutations first."""

    def __init__(self, client: shmstore.Client) -> None:
        board = Board(SHAPE)
        self.words = memoryview(bytearray(8 * board.size)).cast("Q")
        script = Script("seed", SHAPE)
        self.player = Player(client, self.words, board, [script], "seed", 0)
        self.sight = self.player.sights[0]
        self.actor = Actor(self.player)
        self.number = board.begun
        self.marks = board.numbers(self.words, 0)
        with shmstore.namespace(self.sight.namespace):
            self.actor.install()
            for played in range(2 * script.length):
                self.actor.play()
                assert played % 7 or self.complaints() == []

    def complaints(self) -> list[str]:
        """Do every read there is; return what was said."""
        said = []
        with shmstore.namespace(self.sight.namespace):
            for probe in self.sight.singles + self.sight.snapshots:
                try:
                    probe()
                except Broken as error:
                    said.append(str(error))
        return said


@pytest.fixture
def game(client: shmstore.Client) -> Game:
    return Game(client)


def test_an_acknowledged_mutation_that_is_not_there(game: Game) -> None:
    for _ in range(game.player.script.length):
        game.words[game.number] += 1
        game.marks[0] += 1
    assert len(game.complaints()) > 10


def test_a_mutation_that_nobody_began(game: Game) -> None:
    client = game.player.client
    client.table(game.sight.namespace)["k000"] = game.words[game.number] + 1
    assert any("get('k000')" in said for said in game.complaints())


def test_a_record_of_two_mutations(game: Game) -> None:
    table = game.player.client.table(game.sight.namespace)
    key, torn = next((key, one) for key, one in table.items() if key != "k000")
    torn["again"] -= 1
    table[key] = torn
    assert any(f"get({key!r})" in said for said in game.complaints())


def test_a_record_of_a_list_that_is_gone(game: Game) -> None:
    with shmstore.namespace(game.sight.namespace):
        (gone, *_) = game.player.script.stored_row(game.words[game.number])
        Shelves(game.player.client).delete(key_of(gone[0]))
    said = " ".join(game.complaints())
    assert "count of" in said
    assert "list(" in said
    assert "find(" in said


def test_a_version_that_goes_back(game: Game) -> None:
    board = game.player.board
    for slot in range(SHAPE.plain):
        board.versions(game.words, 0, slot)[1] = 1 << 40
    assert any("get_versioned" not in said and "version" in said for said in game.complaints())


def test_turns_that_are_lost_or_half_done(game: Game) -> None:
    player, turns = game.player, game.player.turns
    table = player.client.table("turns")
    for _ in range(20):
        player.do([partial(turns.take, player.rng)])
        player.do([*turns.looks, turns.settle, turns.add_up])
    assert player.findings == []
    table["who"], table["twin"] = [0, 3], [0, 3]
    for lie in (
        lambda: table.put("who", [0, 4]),
        lambda: table.put("who", [0, 1000]),
        lambda: table.increment("turn"),
        lambda: table.put("turn", 1),
        lambda: player.client.table("doubles").increment("double"),
    ):
        lie()
        player.findings.clear()
        for look in (*turns.looks, turns.settle, turns.add_up):
            player.do([look])
        player.do([partial(turns.take, player.rng)])
        assert player.findings


def test_what_was_written_with_a_turn_is_another_thing(game: Game) -> None:
    player, turns = game.player, game.player.turns
    player.do([partial(turns.take, player.rng)])
    player.client.table("turns").update({"who": [0, 0], "twin": [0, 0]})
    player.do(turns.looks)
    player.do([turns.settle])
    assert "there was" in player.findings[0]


def test_a_short_history_without_an_order_is_shown() -> None:
    plan, report = Plan.made(7, 0, CALM), Report()
    history = [
        Operation(0, "put", (0, 1), 10, 20, 5),
        Operation(1, "get", (0,), 30, 40, None),
    ]
    short._judge(plan, history, 7, report)
    assert "history 0 of seed 7" in report.findings[0]
    assert "process 1 30 to 40: get(0,) -> None" in report.findings[0]
    short._judge(plan, [replace(history[1], result=1), history[0]], 7, report)
    assert len(report.findings) == 1


def test_plans_are_made_of_their_seed_alone() -> None:
    assert Plan.made(7, 3, CALM) == Plan.made(7, 3, CALM) != Plan.made(7, 4, CALM)
