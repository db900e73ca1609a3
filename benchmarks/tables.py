"""The tables of docs/benchmarks.md: written from the results, between marks, so that they agree.

A block of the page begins with ``<!-- table: GROUP/WORKLOAD as FIGURE -->`` and ends with
``<!-- end -->``; what stands between them is replaced. ``<!-- table: bars -->`` and
``<!-- table: setting -->`` are the bars and what was measured where, for a group of its own
``<!-- table: setting of GROUP -->``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import results
from .records import MAKERS
from .rivals import WHERE
from .sharing_fixtures import ways

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
GROUPS = ("reading", "sharing", "writing", "listing", "starting", "memory", "growing")
ORDER = list(dict.fromkeys([*WHERE, *ways.WAYS]))
"""All rivals, in the order in which they are shown."""
COUNTED = {ways.GROUP: "worker"}
"""What the processes of a group are called."""
PLURALS = {"process": "processes", "worker": "workers"}


def fill_in(folder: Path, page: Path = PAGE) -> int:
    """Rewrite the tables of the page from the results in ``folder``; 0, or 1 without a page."""
    if not page.exists():
        print(f"{page} is not there: no tables are written")
        return 1
    files = load_all(folder)
    text = page.read_text()
    filled = BLOCK.sub(lambda found: found[1] + table_of(found[2], folder, files) + found[3], text)
    if filled != text:
        page.write_text(filled)
    print(f"{page}: {len(BLOCK.findall(text))} tables")
    return 0


def load_all(folder: Path) -> dict[str, tuple[dict[str, Any], list[results.Cell]]]:
    """Return (header, cells) of the files of results that are there, by group."""
    paths = {group: folder / f"{group}.json" for group in (*GROUPS, ways.GROUP)}
    return {group: results.load(path) for group, path in paths.items() if path.exists()}


def table_of(
    wanted: str, folder: Path, files: dict[str, tuple[dict[str, Any], list[results.Cell]]]
) -> str:
    """Return one table, with its empty lines; what was not measured yet says so."""
    if wanted == "bars":
        return bars_table(folder / "bars.json")
    if wanted == "setting":
        return setting_table([files[group][0] for group in GROUPS if group in files])
    if wanted.startswith("setting of "):
        group = wanted.removeprefix("setting of ")
        return setting_table([files[group][0]] if group in files else [])
    place, _, figure = wanted.partition(" as ")
    group, _, workload = place.partition("/")
    cells = (
        [cell for cell in files[group][1] if cell.workload == workload] if group in files else []
    )
    if not cells:
        return "\nNot measured yet.\n\n"
    return cells_table(cells, FIGURES[figure or "time"], COUNTED.get(group, "process"))


def cells_table(
    cells: list[results.Cell], figure: Callable[[results.Cell], str], counted: str = "process"
) -> str:
    """Return a table of one workload: a row for each rival, a column for each case."""
    kinds = list(dict.fromkeys(["160 B", *MAKERS, *(cell.value for cell in cells)]))
    cases = sorted({c.case for c in cells}, key=lambda case: (kinds.index(case[2]), case[1:]))
    by_place = {(cell.rival, cell.case): cell for cell in cells}
    able = [name for name in ORDER if any(of_rival(cells, name))]
    unable = [name for name in ORDER if name not in able and (name in {c.rival for c in cells})]
    rows = [["", *(title(case, cases, counted) for case in cases)]]
    for name in able:
        found = [by_place.get((name, case)) for case in cases]
        label = f"**{name}**" if name == "shmstore" else name
        rows.append([label, *("" if cell is None else figure(cell) for cell in found)])
    text = markdown(rows)
    if unable:
        text += f"Cannot do this: {', '.join(unable)}.\n\n"
    return text


def of_rival(cells: list[results.Cell], name: str) -> list[bool]:
    """Return whether each cell of a rival says more than that it cannot."""
    return [cell.skipped != "unsupported" for cell in cells if cell.rival == name]


def title(
    case: tuple[str, int, str, int], cases: list[tuple[str, int, str, int]], counted: str
) -> str:
    """Return the title of a column: what differs between the cases."""
    _, records, value, processes = case
    parts = []
    if len({other[3] for other in cases}) > 1:
        parts.append(f"{processes} {counted if processes == 1 else PLURALS[counted]}")
    if len({other[1:3] for other in cases}) > 1 or not parts:
        parts.append(f"{records:,} x {value}")
    return ", ".join(parts)


def time_of(cell: results.Cell) -> str:
    """Return the median time of an operation."""
    return short(cell) if cell.ns is None else shown_time(cell.ns)


def tail_of(cell: results.Cell) -> str:
    """Return median, p99 and p99.9 of single calls."""
    if cell.p50 is None:
        return short(cell)
    some = [cell.p50, cell.p99, cell.p999]
    return " / ".join("-" if value is None else shown_time(value) for value in some)


def rate_of(cell: results.Cell) -> str:
    """Return operations per second, of all processes."""
    return short(cell) if cell.rate is None else f"{cell.rate:,.0f}/s"


def processor_of(cell: results.Cell) -> str:
    """Return the processor time of caller and server."""
    if cell.cpu_ns is None:
        return short(cell)
    server = f" + {shown_time(cell.server_cpu_ns)}" if cell.server_cpu_ns else ""
    return shown_time(cell.cpu_ns) + server


def bytes_of(cell: results.Cell) -> str:
    """Return the memory of a record or of a reader."""
    return short(cell) if cell.bytes is None else shown_bytes(cell.bytes)


def reader_of(cell: results.Cell) -> str:
    """Return the processor time and the memory of a process that only reads."""
    extra = cell.extra or {}
    if "reader bytes" not in extra:
        return short(cell)
    return f"{shown_time(extra['reader cpu ns'])}, {shown_bytes(extra['reader bytes'])}"


def hand_of(cell: results.Cell) -> str:
    """Return how long a value takes from one process to another: the median, and the longest."""
    if cell.p50 is None or cell.highest is None:
        return short(cell)
    return f"{shown_time(cell.p50)} / {shown_time(cell.highest)}"


def worst_of(cell: results.Cell) -> str:
    """Return p99.9, p99.99 and the slowest write."""
    if cell.highest is None:
        return short(cell)
    some = [cell.p999, cell.p9999, cell.highest]
    return " / ".join("-" if value is None else shown_time(value) for value in some)


FIGURES: dict[str, Callable[[results.Cell], str]] = {
    "time": time_of,
    "tail": tail_of,
    "rate": rate_of,
    "processor": processor_of,
    "bytes": bytes_of,
    "worst": worst_of,
    "reader": reader_of,
    "hand": hand_of,
}


def short(cell: results.Cell) -> str:
    """Return why there is no figure."""
    if cell.skipped is None:
        return ""
    return "no" if cell.skipped == "unsupported" else cell.skipped.replace("|", "/")[:60]


def shown_time(nanoseconds: float) -> str:
    """Return a time in the unit that suits it, with three digits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


def shown_bytes(size: float) -> str:
    """Return a size in the unit that suits it."""
    return f"{size:,.0f} bytes" if size < 1e5 else f"{size / 1e6:,.1f} MB"


def bars_table(path: Path) -> str:
    """Return the bars, measured and wanted."""
    if not path.exists():
        return "\nNot measured yet.\n\n"
    rows = [["", "measured", "bar", ""]]
    for bar in json.loads(path.read_text())["bars"]:
        measured = "-" if bar["ratio"] is None else f"{bar['ratio']:.3g} {bar['unit']}"
        held = {True: "holds", False: "**missed**", None: "not measured"}[bar["holds"]]
        rows.append([bar["what"], measured, f"{bar['bar']} {bar['unit']}", held])
    return markdown(rows)


def setting_table(headers: list[dict[str, Any]]) -> str:
    """Return machine, versions and rivals of the first file of results."""
    if not headers:
        return "\nNot measured yet.\n\n"
    header = headers[0]
    machine, versions = header["machine"], header["versions"]
    rows = [["", ""], ["date", header["made"]["date"]]]
    rows.append(["machine", f"{machine['cores']} cores of {machine['processor']}"])
    rows.append(["system", f"{machine['system']}, Linux {machine['kernel']}"])
    rows.append(["shmstore", f"{versions['engine']} engine, commit {versions['commit']}"])
    rows.append(["Python, msgpack", f"{versions['python']}, {versions.get('msgpack', '')}"])
    rows.append(["the clock adds", f"{header['clock']['overhead_ns']} ns to each single call"])
    common = [f"{name} {versions[name]}" for name in ("pytest-xdist", "numpy") if name in versions]
    rows += [["all", ", ".join(common)]] if common else []
    rows += [[name, said] for name, said in header["rivals"].items() if name != "shmstore"]
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """Return a table, with an empty line before and after."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n" + "\n".join(lines) + "\n\n"
