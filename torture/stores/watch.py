"""What a reader may see of an operation: the state before it, then the one after, and no other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shmstore.errors import ShmstoreError


class Watch:
    """Compares what is seen, answer by answer, each of which is of one snapshot.

    If ``atomic`` the answers that are new must stay new, all of them; else each for itself.
    """

    def __init__(self, before: Sequence[Any], after: Sequence[Any], atomic: bool = True) -> None:
        self._pairs = list(zip(before, after, strict=True))
        self._atomic = atomic
        self._new: set[int] = set()
        self.looks = 0
        self.problem = ""

    def look(self, answers: Iterable[Any]) -> list[Any]:
        """Take in all answers, note what must not be, and return them."""
        self.looks += 1
        seen: list[Any] = []
        try:
            for answer in answers:
                self._note(len(seen), answer)
                seen.append(answer)
        except ShmstoreError as error:
            self.problem = f"a reader met {error!r}"
        return seen

    def _note(self, number: int, answer: Any) -> None:
        before, after = self._pairs[number]
        if answer not in (before, after):
            self.problem = f"answer {number} was neither that before nor that after"
        elif before != after:
            row = 0 if self._atomic else number
            if answer == after:
                self._new.add(row)
            elif row in self._new:
                self.problem = f"answer {number} went back to the state before"
