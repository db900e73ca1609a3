"""The header line: free clock F, committed sequence K, reuse horizon R.

The functions carry the names of the protocol's steps in docs/concurrency.md. In this engine
program order is enough (x86 keeps loads in order and stores in order); the native twin puts
acquire, release and the two fences where the comments say.
"""

from __future__ import annotations

from ..layout import COMMITTED_WORD, FREE_CLOCK_WORD, HORIZON_WORD


class Clock:
    """The writer's view of the header line; readers use the two functions below."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    @property
    def free_clock(self) -> int:
        return int(self._words[FREE_CLOCK_WORD])

    @property
    def committed(self) -> int:
        return int(self._words[COMMITTED_WORD])

    @property
    def horizon(self) -> int:
        return int(self._words[HORIZON_WORD])

    def reuse(self, stamp: int) -> None:
        """Step 1: turn away the readers that may still be in a block of this stamp.

        A release fence follows in the native engine: a reader that sees a byte of the block's
        next life must also see this horizon.
        """
        if stamp > self._words[HORIZON_WORD]:
            self._words[HORIZON_WORD] = stamp

    def commit(self, sequence: int) -> None:
        """Step 4, the one commit point: everything stored for ``sequence`` becomes visible."""
        self._words[COMMITTED_WORD] = sequence

    def retire(self) -> int:
        """Step 5: advance the free clock; return the stamp for the blocks this batch replaced.

        It must follow the commit: a reader that began at this clock has seen the commit, and
        reaches none of these blocks.
        """
        stamp = int(self._words[FREE_CLOCK_WORD]) + 1
        self._words[FREE_CLOCK_WORD] = stamp
        return stamp


def read_begin(words: memoryview) -> tuple[int, int]:
    """Return (free clock, committed sequence), loaded in this order; never the other way round."""
    clock = words[FREE_CLOCK_WORD]
    return clock, words[COMMITTED_WORD]


def read_accept(words: memoryview, clock: int) -> bool:
    """Tell whether nothing read since ``read_begin`` gave ``clock`` can have been overwritten.

    An acquire fence stands before the load in the native engine.
    """
    return bool(words[HORIZON_WORD] <= clock)
