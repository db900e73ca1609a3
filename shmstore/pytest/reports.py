"""What is shown of shared fixtures at the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..client import Client
from ..errors import ShmstoreError
from .ledger import FAILED, Ledger, is_unclosed
from .obtaining import Result

if TYPE_CHECKING:
    import pytest


def write_report(
    reporter: pytest.TerminalReporter, client: Client, *, with_durations: bool
) -> None:
    """Write who computed what and who used it, and always what could not be torn down."""
    ledger = Ledger(client, "")
    try:
        results = dict(ledger.results.items())
        readers = dict(ledger.readers.items())
    except ShmstoreError:
        return
    lines = _table(results, readers) if with_durations and results else []
    lines += [_left_open(result) for result in results.values() if is_unclosed(result)]
    if lines:
        reporter.section("shared fixtures")
        for line in lines:
            reporter.write_line(line)


def _left_open(result: Result) -> str:
    which = f"shared fixture {result['label']!r} ({result['location']})"
    ended = f"{result['worker']}, which computed it, was ended before"
    if result["releases"]:
        return f"{which} was not released: {ended}, and no other worker was left at the end"
    return (
        f"what follows the yield of {which} did not run: {ended}; what must be done whatever "
        f"happens goes into a function under @{result['name']}.teardown"
    )


def _table(results: dict[Any, Any], readers: dict[Any, Any]) -> list[str]:
    rows = [("fixture", "by", "seconds", "bytes", "readers", "waited")]
    for key, result in results.items():
        waits = {name: waited[key] for name, waited in readers.items() if key in waited}
        others = [name for name in waits if name != result["worker"]]
        if result["state"] == FAILED:
            figures = ("skipped" if result["failure"]["outcome"] == "skip" else "failed", "")
        else:
            figures = (f"{result['seconds']:.3f}", f"{result['bytes']:,}")
        rows.append(
            (
                result["label"],
                result["worker"],
                *figures,
                str(len(others)),
                f"{sum(waits.values()):.3f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if position < 2 else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
