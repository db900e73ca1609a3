"""What all clients change at once: keys that are written together, and a count of the times.

Each change takes the next turn, in the same transaction. So a look at the keys and the count in one
snapshot says which change it is that was last, and a ledger that those who made it write says what
there must have been to see.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import shmstore

from .board import LEDGER, Board, Broken
from .crew import Words
from .records import Shape

GONE = 0
PENDING_MAX = 4096


class Turns:
    """The part of one process in them."""

    def __init__(
        self, client: shmstore.Client, words: Words, board: Board, shape: Shape, process: int
    ) -> None:
        self._client = client
        self._table, self._other = client.table("turns"), client.table("doubles")
        self._process = process
        self._begun = words[board.turns_begun : board.turns_begun + shape.clients]
        self._marks = board.turns(words)
        self._versions = board.turn_versions(words)
        self._ledger = board.ledger(words)
        self._pending: deque[tuple[int, int]] = deque(maxlen=PENDING_MAX)
        self.looks = [self._together, self._alone, self._double, self._versioned]

    def take(self, rng: random.Random) -> None:
        """As a client: take a turn."""
        own = self._begun[self._process] + 1
        low = max(self._marks)
        self._begun[self._process] = own
        leaves = rng.random() < 0.25
        with self._client.transaction() as tx:
            table = tx.table("turns")
            turn = table.increment("turn")
            double = tx.table("doubles").increment("double", by=2)
            if rng.random() < 0.5:
                table.delete_many(["who", "twin"])
            version: Any = None
            if leaves:
                table.delete("who")
                table.delete("twin")
            elif rng.random() < 0.5:
                version = table.put_many(
                    {"who": [self._process, own], "twin": [self._process, own]}
                )
            else:
                table["twin"] = [self._process, own]
                version = table.put("who", [self._process, own])
        self._took(turn.result(), double.result(), low, GONE if leaves else self._code(own))
        if version is not None:
            _mark(self._versions, self._process, version.result())

    def _took(self, turn: int, double: int, low: int, code: int) -> None:
        at = 2 * (turn % LEDGER)
        if not low < turn <= sum(self._begun) or double != 2 * turn or self._ledger[at] == turn:
            raise Broken(
                f"an increment made it turn {turn} and {double}, after turn {low} was taken and "
                f"with {sum(self._begun)} begun"
            )
        self._ledger[at] = 0
        self._ledger[at + 1] = code
        self._ledger[at] = turn
        _mark(self._marks, self._process, turn)

    def _code(self, own: int, process: int | None = None) -> int:
        return 1 + own * 64 + (self._process if process is None else process)

    def _passed(self, what: str, turn: int, low: int) -> None:
        """Judge a turn that was read."""
        high = sum(self._begun)
        if not low <= turn <= high:
            raise Broken(f"{what} gave turn {turn}, after turn {low} and with {high} begun")
        _mark(self._marks, self._process, turn)

    def _together(self) -> None:
        low = max(self._marks)
        found = self._table.get_many(["who", "turn", "twin"])
        who, turn = found.get("who"), found.get("turn", 0)
        if who != found.get("twin"):
            raise Broken(f"keys that are written together were seen apart: {found}")
        self._passed("get_many", turn, low)
        if turn:
            self._pending.append((turn, self._seen(who)))

    def _seen(self, who: Any) -> int:
        if who is None:
            return GONE
        process, own = who
        if own > self._begun[process]:
            raise Broken(f"what client {process} did not begin was seen: {own}")
        return self._code(own, process)

    def _alone(self) -> None:
        low = max(self._marks)
        self._passed("get", self._table.get("turn", 0), low)

    def _double(self) -> None:
        low = max(self._marks)
        double = self._other.get("double", 0)
        self._passed("get of the double", double // 2 if double % 2 == 0 else -1, low)

    def _versioned(self) -> None:
        low = max(self._versions)
        version, who = self._table.get_versioned("who")
        self._seen(who)
        if who is not None and version < low:
            raise Broken(f"version {version} was seen after version {low}")
        _mark(self._versions, self._process, version)

    def settle(self) -> None:
        """Compare what was seen with what those who wrote it say; what they have not yet stays."""
        for _ in range(len(self._pending)):
            turn, seen = self._pending.popleft()
            at = 2 * (turn % LEDGER)
            before, code, after = self._ledger[at], self._ledger[at + 1], self._ledger[at]
            if before == after == turn:
                if code != seen:
                    raise Broken(f"with turn {turn} there was {seen} to see, not {code}")
            elif max(before, after) < turn:
                self._pending.append((turn, seen))

    def add_up(self) -> None:
        """When nothing is under way: each turn that was begun was applied once."""
        begun, turn = sum(self._begun), self._table.get("turn", 0)
        if turn != begun:
            raise Broken(f"{begun} turns were begun and acknowledged, and {turn} were applied")


def _mark(marks: Words, process: int, number: int) -> None:
    if number > marks[process]:
        marks[process] = number
