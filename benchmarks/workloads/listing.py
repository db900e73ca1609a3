"""Pages, counts and finds: what they cost must not depend on how many records there are."""

from __future__ import annotations

from ..harness import Run
from ..records import Dataset
from .reading import on_dataset

EVERY = ("list 10 newest", "count", "find 10")


def measure(run: Run) -> None:
    """Measure on stores of every size."""
    for records in run.settings.sizes:
        on_dataset(run, Dataset(records, indexed=True), EVERY)
