"""What the processes tell each other past the store: what is begun, acknowledged and seen."""

from __future__ import annotations

from .crew import Words
from .records import Shape

LEDGER = 1 << 14
"""How many of the last turns are kept."""


class Broken(Exception):
    """A promise that did not hold."""


class Board:
    """Where in the shared words each thing is. Each word has one process that writes it.

    Of what many processes tell, each has a word of its own, and the highest counts: *marks*.
    """

    def __init__(self, shape: Shape) -> None:
        self.size = 0
        self.processes = shape.clients + shape.readers + 1  # the last one looks back
        self.stop = self._take(1)
        self.judged = self._take(self.processes)
        """Operations that each process has judged."""
        self.compared = self._take(self.processes)
        """Snapshots among them."""
        self.begun = self._take(shape.clients)
        """The last mutation that each client has begun."""
        self._numbers = [self._take(self.processes) for _ in range(shape.clients)]
        self._versions = [
            [self._take(self.processes) for _ in range(shape.plain)] for _ in range(shape.clients)
        ]
        self.turns_begun = self._take(shape.clients)
        self._turns = self._take(self.processes)
        self._turn_versions = self._take(self.processes)
        self._ledger = self._take(2 * LEDGER)

    def _take(self, count: int) -> int:
        start = self.size
        self.size += count
        return start

    def numbers(self, words: Words, client: int) -> Words:
        """Return the marks of a client's mutations: acknowledged, by itself, or seen."""
        return self._marks(words, self._numbers[client])

    def versions(self, words: Words, client: int, slot: int) -> Words:
        """Return the marks of the versions of a record of a client's table."""
        return self._marks(words, self._versions[client][slot])

    def turns(self, words: Words) -> Words:
        """Return the marks of the turns that clients have in common."""
        return self._marks(words, self._turns)

    def turn_versions(self, words: Words) -> Words:
        """Return the marks of the versions of what the last of them wrote."""
        return self._marks(words, self._turn_versions)

    def ledger(self, words: Words) -> Words:
        """Return two words per turn: its number, and what was written."""
        return words[self._ledger : self._ledger + 2 * LEDGER]

    def _marks(self, words: Words, start: int) -> Words:
        return words[start : start + self.processes]
