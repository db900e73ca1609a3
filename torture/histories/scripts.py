"""What a client does to the keys that are its own: a cycle of mutations, numbered without end.

Who knows the number of the last mutation knows all that there must be. A record says the number of
the mutation that wrote it, so a reader can tell between which mutations it looked.
"""

from __future__ import annotations

import random

from . import batches, mutations
from .mutations import Mutation
from .records import Ages, Row, Shape


class Script:
    """The mutations of one client. The state after each is known; that after 0 holds all slots."""

    def __init__(self, seed: str, shape: Shape, length: int = 120) -> None:
        self.shape = shape
        self.cycle: list[Mutation] = []
        rng = random.Random(seed)
        ages: Ages = [0] * shape.slots
        while len(self.cycle) < length or (left := _unsettled(ages, len(self.cycle))):
            ends = len(self.cycle) >= length
            self.cycle.append(
                mutations.restore(shape, left[0]) if ends else self._chosen(rng, ages)
            )
            ages = self.cycle[-1].after(ages)
        self.length = len(self.cycle)
        self._ages: list[Ages] = []
        for mutation in self.cycle:  # once more, with the ages that the first round leaves
            self._ages.append(ages)
            ages = mutation.after(ages)

    def _chosen(self, rng: random.Random, ages: Ages) -> Mutation:
        """Return a mutation that fits what is there."""
        if rng.random() < 0.3:
            return batches.of_many(rng, self.shape, ages)
        return mutations.of_slot(rng, self.shape, ages, rng.randrange(len(ages)))

    def mutation(self, number: int) -> Mutation:
        """Return the mutation of this number, which is 1 or more."""
        return self.cycle[(number - 1) % self.length]

    def ages(self, number: int) -> Ages:
        """Return how long ago each slot was written, when mutation ``number`` was the last."""
        return self._ages[number % self.length]

    def column(self, slot: int) -> list[int | None]:
        """Return the ages of one slot, for each remainder of the number."""
        return [ages[slot] for ages in self._ages]

    def plain_row(self, number: int) -> Row:
        """Return what is in the table when mutation ``number`` was the last."""
        return self._row(number, range(self.shape.plain))

    def stored_row(self, number: int) -> Row:
        """Return what is in the namespace then, newest first."""
        return self._row(number, range(self.shape.slots - 1, self.shape.plain - 1, -1))

    def _row(self, number: int, slots: range) -> Row:
        ages = self.ages(number)
        return [(slot, number - age) for slot in slots if (age := ages[slot]) is not None]


def _unsettled(ages: Ages, length: int) -> list[int]:
    """Return the slots that the next round would not find as this one did."""
    return [slot for slot, age in enumerate(ages) if age is None or age >= length]
