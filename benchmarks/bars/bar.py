"""A bar: two figures, what their ratio may be, and whether it holds. No measuring here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, le, lt

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "at most": le,
    "at least": ge,
    "under": lt,
}


@dataclass(frozen=True)
class Bar:
    """One row of the design's figures to reach.

    The ratio of ``figure`` to ``against`` is compared with ``limit``; without ``against`` it is
    the figure itself, in ``unit``.
    """

    what: str
    figure: str
    against: str | None
    comparison: str
    limit: float
    unit: str = "x"


@dataclass(frozen=True)
class Verdict:
    """What became of a bar; ``ratio`` and ``holds`` are None where a figure is missing."""

    bar: Bar
    ratio: float | None
    holds: bool | None

    def __str__(self) -> str:
        unit = self.bar.unit if self.bar.unit in ("x", "%") else f" {self.bar.unit}"
        measured = "-" if self.ratio is None else f"{self.ratio:,.3g}{unit}"
        wanted = f"{self.bar.comparison} {self.bar.limit:,g}{unit}"
        held = {True: "holds", False: "MISSED", None: "not measured"}[self.holds]
        return f"{self.bar.what:<66}{measured:>12}  {wanted:<22} {held}"


def judge(bar: Bar, figures: Mapping[str, float]) -> Verdict:
    """Compare the figures of a bar with its limit."""
    figure = figures.get(bar.figure)
    against = figures.get(bar.against) if bar.against else 1.0
    if figure is None or not against:
        return Verdict(bar, None, None)
    ratio = figure / against
    return Verdict(bar, ratio, COMPARISONS[bar.comparison](ratio, bar.limit))
