"""Latencies in buckets whose width grows with the value, as HdrHistogram has them.

A bucket is at most 1/128 as wide as its values: a percentile is off by less than 1 %, whatever its
size. Histograms of several processes and repetitions are added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

PRECISION_BITS = 7


class Histogram:
    """Counts of whole, non-negative values."""

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter(counts or {})

    @classmethod
    def of(cls, values: Iterable[int]) -> Histogram:
        """Return the histogram of these values."""
        return cls(Counter(map(bucket_of, values)))

    def add(self, other: Histogram) -> None:
        """Take in the counts of another histogram."""
        self.counts.update(other.counts)

    def __len__(self) -> int:
        return self.counts.total()

    def percentile(self, percent: float) -> int | None:
        """Return a value that ``percent`` of the values do not exceed; None if there are none.

        None as well where so few values cannot tell: p99.9 needs 1,000 of them.
        """
        total = len(self)
        if total == 0 or (percent > 50 and total * (100 - percent) < 99.999):
            return None
        wanted = total * percent / 100
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return highest_of(bucket)
        return self.highest()

    def highest(self) -> int | None:
        """Return the largest value, rounded up to its bucket's end; None if there are none."""
        return highest_of(max(self.counts)) if self.counts else None


def bucket_of(value: int) -> int:
    """Return the number of the bucket of a value."""
    shift = max(0, value.bit_length() - PRECISION_BITS - 1)
    return (shift << PRECISION_BITS) + (value >> shift)


def highest_of(bucket: int) -> int:
    """Return the largest value of a bucket."""
    if bucket < 2 << PRECISION_BITS:
        return bucket
    shift = (bucket >> PRECISION_BITS) - 1
    return ((bucket - (shift << PRECISION_BITS) + 1) << shift) - 1
