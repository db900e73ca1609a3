"""The plots of the docs, drawn from the files of results and nothing else. Readable in grey."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import results
from .rivals import LIMIT, OURS, WHERE
from .sharing_fixtures import ways
from .tables import ORDER, load_all, shown_bytes, shown_time

FOLDER = Path(__file__).parent.parent / "docs" / "img"
OUR_COLOUR, LIMIT_COLOUR, OTHER_COLOUR = "#1f1f1f", "#ffffff", "#b8b8b8"
MARKERS = "osD^v<>PX*hdp8"
Files = dict[str, tuple[dict[str, Any], list[results.Cell]]]


def draw_all(folder: Path, target: Path = FOLDER) -> int:
    """Draw every plot whose results are there; 0, or 1 where nothing can be drawn."""
    try:
        import matplotlib
    except ImportError as error:
        print(f"no plots: {error}")
        return 1
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "shmstore", "font.size": 9, "svg.fonttype": "none"})
    target.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for name, draw in PLOTS.items():
        figure = draw(load_all(folder))
        if figure is not None:
            figure.savefig(target / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
            print(target / f"{name}.svg")
            drawn += 1
    return 0 if drawn else 1


def chosen(files: Files, group: str, **wanted: Any) -> dict[str, results.Cell]:
    """Return the measured cells of one case, by rival, in the order of the rivals."""
    cells = files[group][1] if group in files else []
    found = {
        cell.rival: cell
        for cell in cells
        if cell.skipped is None and all(getattr(cell, k) == v for k, v in wanted.items())
    }
    return {name: found[name] for name in WHERE if name in found}


def size_of(files: Files, group: str, most: int = 100_000) -> int | None:
    """Return the number of records that a plot of one size shows."""
    cells = files[group][1] if group in files else []
    sizes = {cell.records for cell in cells if cell.value == "160 B" and cell.records <= most}
    return max(sizes, default=None)


def bars_plot(files: Files, group: str, panels: list[tuple[str, str]], title: str) -> Any:
    """Return a figure with a panel for each workload: a bar per rival, time on a log scale."""
    records = size_of(files, group)
    cases = [
        (
            label,
            chosen(files, group, workload=workload, records=records, value="160 B", processes=1),
        )
        for workload, label in panels
    ]
    cases = [(label, cells) for label, cells in cases if cells]
    if not cases:
        return None
    height = 0.4 + 0.24 * max(len(cells) for _, cells in cases)
    figure, axes = new_figure(len(cases), 4.1 * len(cases), height + 0.6)
    for axis, (label, cells) in zip(axes, cases, strict=True):
        one_panel(axis, cells, label)
    figure.suptitle(f"{title}: {records:,} records of 160 bytes; shorter is faster", y=1.0)
    figure.tight_layout()
    return figure


def one_panel(axis: Any, cells: dict[str, results.Cell], label: str) -> None:
    """Draw horizontal bars, fastest on top, each with its time."""
    names = sorted(cells, key=lambda name: cells[name].ns or 0, reverse=True)
    times = [cells[name].ns or 0 for name in names]
    drawn = axis.barh(names, times, edgecolor="black", linewidth=0.6, height=0.72)
    for name, bar in zip(names, drawn, strict=True):
        bar.set_facecolor(colour_of(name))
        if name == LIMIT:
            bar.set_hatch("////")
    axis.bar_label(drawn, [f" {shown_time(time)}" for time in times], fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(min(times) / 2, max(times) * 12)
    axis.set_xlabel("time per operation (log scale)")
    axis.set_title(label, fontsize=10)
    axis.tick_params(axis="y", length=0)
    powers = [power for power in range(1, 10) if min(times) / 2 < 10**power < max(times) * 12]
    axis.set_xticks([10.0**power for power in powers[:: 1 + len(powers) // 5]])
    axis.set_xticklabels([shown_time(tick) for tick in axis.get_xticks()], fontsize=8)
    axis.minorticks_off()
    axis.set_xlim(min(times) / 2, max(times) * 12)
    axis.spines[["top", "right"]].set_visible(False)


def lines_plot(
    files: Files, group: str, workloads: list[str], x: str, figure_of: str, titles: dict[str, Any]
) -> Any:
    """Return a figure with a panel for each workload: a marked line per rival, log scales."""
    cells = files[group][1] if group in files else []
    cells = [cell for cell in cells if cell.value == "160 B" or group == ways.GROUP]
    cells = [cell for cell in cells if (getattr(cell, figure_of) or 0) > 0]
    panels = [(name, [cell for cell in cells if cell.workload == name]) for name in workloads]
    panels = [(name, some) for name, some in panels if some]
    if not panels:
        return None
    figure, axes = new_figure(len(panels), 2.9 * len(panels) + 1.6, 4.6)
    drawn_values = [getattr(cell, figure_of) for _, some in panels for cell in some]
    lowest, highest = math.log10(min(drawn_values)), math.log10(max(drawn_values))
    powers = range(math.floor(lowest), math.ceil(highest) + 1)
    for axis, (workload, some) in zip(axes, panels, strict=True):
        for place, name in enumerate(ORDER):
            own = sorted((c for c in some if c.rival == name), key=lambda c: getattr(c, x))
            if own:
                axis.plot(
                    [getattr(cell, x) for cell in own],
                    [getattr(cell, figure_of) for cell in own],
                    label=name,
                    **style_of(name, place),
                )
        ticks = sorted({getattr(cell, x) for cell in some})
        axis.set(xscale="log", yscale="log", title=workload)
        axis.set(xlabel=titles["x"], ylabel=titles["y"])
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.set_yticks([10.0**power for power in powers])
        axis.set_yticklabels([titles["unit"](10.0**power) for power in powers])
        axis.set_ylim(10.0 ** powers[0], 10.0 ** powers[-1])
        axis.minorticks_off()
        axis.grid(axis="y", linewidth=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles: dict[str, Any] = {}
    for axis in axes:
        drawn, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    figure.tight_layout()
    ordered = [name for name in ORDER if name in handles]
    figure.legend(
        [handles[name] for name in ordered], ordered, loc="center left",
        bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=3,
    )  # fmt: skip
    return figure


def thousands(value: float) -> str:
    """Return a power of ten as a reader says it."""
    if value >= 1e6:
        return f"{value / 1e6:,.0f} M"
    return f"{value / 1e3:,.0f} k" if value >= 1e3 else f"{value:,.0f}"


def style_of(name: str, place: int) -> dict[str, Any]:
    """Return how the line of a rival looks: told apart by marker and dashes, not by colour."""
    if name == OURS:
        return {"color": "black", "linewidth": 2.6, "marker": "o", "markersize": 7}
    shade = ("0.25", "0.45", "0.6")[place % 3]
    return {
        "color": shade,
        "linewidth": 1.0,
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": ("-", "--", ":", "-.")[place % 4],
        "markerfacecolor": "white" if place % 2 else shade,
        "markersize": 5,
    }


def colour_of(name: str) -> str:
    """Return the filling of a bar."""
    return {OURS: OUR_COLOUR, LIMIT: LIMIT_COLOUR}.get(name, OTHER_COLOUR)


def new_figure(panels: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """Return a figure with so many panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def fixtures_plot(files: Files, figure_of: str, y: str, unit: Callable[[float], str]) -> Any:
    """Return a figure of the runs of pytest, by number of workers."""
    titles = {"x": "workers", "y": y, "unit": unit}
    return lines_plot(files, ways.GROUP, FIXTURES[figure_of], "processes", figure_of, titles)


FIXTURES = {
    "ns": ["computing", "records", "array", "many fixtures"],
    "cpu_ns": ["computing", "records", "array", "many fixtures"],
    "bytes": ["records", "array"],
    "p50": ["computing", "records", "array", "many fixtures"],
}
"""The workloads that are drawn, by the figure of theirs."""
PLOTS: dict[str, Callable[[Files], Any]] = {
    "reading": lambda files: bars_plot(
        files,
        "reading",
        [("get raw", "bytes"), ("get decoded", "decoded")],
        "One lookup",
    ),
    "writing": lambda files: bars_plot(
        files,
        "writing",
        [("put", "one, acknowledged"), ("put in batches", "in batches of 1,000")],
        "One record replaced",
    ),
    "sharing": lambda files: lines_plot(
        files,
        "sharing",
        ["get raw", "get decoded"],
        "processes",
        "rate",
        {"x": "reading processes", "y": "lookups per second, all together", "unit": thousands},
    ),
    "listing": lambda files: lines_plot(
        files,
        "listing",
        ["list 10 newest", "count", "find 10"],
        "records",
        "ns",
        {"x": "records", "y": "time of a call", "unit": shown_time},
    ),
    "fixtures": lambda files: fixtures_plot(files, "ns", "time of the run", shown_time),
    "fixtures-cpu": lambda files: fixtures_plot(
        files, "cpu_ns", "processor time of all processes", shown_time
    ),
    "fixtures-memory": lambda files: fixtures_plot(
        files, "bytes", "private memory of a worker", shown_bytes
    ),
    "fixtures-hand": lambda files: fixtures_plot(files, "p50", "from ready to in hand", shown_time),
}
