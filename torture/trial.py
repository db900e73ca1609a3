"""What a trial is given, and what it reports."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Budget:
    """How long a trial may take, and the seed of all that it chooses by chance."""

    seconds: float
    seed: int
    name: str = ""
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Return the seconds that are left; not positive when they are used up.

        A trial ends at the first whole step after that, or once it has done its least.
        """
        return self._end - time.monotonic()

    def say(self, text: str) -> None:
        """Show progress, on standard error."""
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


@dataclass
class Report:
    """What was done, in numbers, and what broke."""

    counts: dict[str, float] = field(default_factory=dict)
    """What was done how often, or how long it took: the unit is in the name."""
    findings: list[str] = field(default_factory=list)
    """Each a promise that did not hold, with what is needed to see it again."""

    def add(self, name: str, count: float = 1) -> None:
        """Count something that was done."""
        self.counts[name] = self.counts.get(name, 0) + count
