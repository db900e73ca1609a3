"""The files of results: what is in them, and how they are written, read and checked.

A file holds one group of workloads, or the bars::

    format     1
    group      "reading"
    made       when, by which command, in how many seconds, quick or not, with which seed
    machine    processor, cores, memory, kernel
    versions   python, shmstore, its engine, msgpack, the commit
    clock      {"overhead_ns": what timing a single call adds to it}
    rivals     name -> version, or "not available: reason"
    cells      a list of Cell
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = 1
FOLDER = Path(__file__).parent / "results"
HEADER = ("format", "group", "made", "machine", "versions", "clock", "rivals", "cells")


@dataclass
class Cell:
    """What one rival did in one workload; nanoseconds are per operation."""

    workload: str
    rival: str
    records: int
    value: str
    processes: int = 1
    ns: float | None = None
    """The median block."""
    rate: float | None = None
    """Operations per second of all processes together; the median repetition."""
    p50: int | None = None
    p99: int | None = None
    p999: int | None = None
    p9999: int | None = None
    highest: int | None = None
    """Percentiles of single calls, the clock's overhead included; as far as they can be told. In
    runs of pytest: of the times from ready to in hand."""
    cpu_ns: float | None = None
    """Processor time of the calling processes."""
    server_cpu_ns: float | None = None
    """Processor time of the server side."""
    bytes: float | None = None
    """Where a workload measures memory."""
    extra: dict[str, float] | None = None
    """Further figures, by name."""
    skipped: str | None = None
    """Why there are no figures; "unsupported" if the rival cannot do this."""

    @property
    def case(self) -> tuple[str, int, str, int]:
        """What the cells of all rivals have in common."""
        return self.workload, self.records, self.value, self.processes


def save(path: Path, header: dict[str, Any], cells: list[Cell]) -> None:
    """Write a file of results; what is None in a cell is left out."""
    rows = [
        {name: value for name, value in asdict(cell).items() if value is not None} for cell in cells
    ]
    document = {"format": FORMAT, **header, "cells": rows}
    complaints = complaints_of(document)
    if complaints:
        raise ValueError(f"results not written: {complaints[0]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = json.dumps({**document, "cells": []}, indent=1)[: -len("[]\n}")]
    body = ",\n  ".join(json.dumps(row) for row in rows)
    path.write_text(f"{lines}[\n  {body}\n ]\n}}\n" if rows else f"{lines}[]\n}}\n")


def load(path: Path) -> tuple[dict[str, Any], list[Cell]]:
    """Return (header, cells) of a file. Raises ValueError if it is no file of results."""
    document = json.loads(path.read_text())
    complaints = complaints_of(document)
    if complaints:
        raise ValueError(f"{path}: {complaints[0]}")
    cells = [Cell(**row) for row in document.pop("cells")]
    return document, cells


def complaints_of(document: Any) -> list[str]:
    """Return what is wrong with a document; nothing if it is one of results."""
    if not isinstance(document, dict):
        return ["it is no object"]
    if document.get("format") != FORMAT:
        return [f"format {document.get('format')}, this is {FORMAT}"]
    wrong = [f"{name} is missing" for name in HEADER if name not in document]
    names = {field.name for field in fields(Cell)}
    for row in document.get("cells", []):
        label = f"cell {row.get('workload')!r} of {row.get('rival')!r}"
        wrong += [f"{label}: unknown {name!r}" for name in row if name not in names]
        wrong += [
            f"{label}: no {name!r}"
            for name in ("workload", "rival", "records", "value")
            if name not in row
        ]
        if row.get("rival") not in document.get("rivals", {}):
            wrong.append(f"{label}: the rival's version is missing")
        measured = [name for name in ("ns", "rate", "bytes", "extra", "p50") if name in row]
        if bool(measured) == ("skipped" in row):
            wrong.append(f"{label}: has neither figures nor a reason, or both")
    return wrong
