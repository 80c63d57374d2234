"""The plots of the report, as SVG that a page can hold: its text is text, in the page's own font
and colour."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from bench.load.findings import Row
from bench.report import COLOURS

_INK = "#0b0b0d"
"""Is no other colour of a plot, and becomes that of the page's text."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sidrec",
    "font.size": 10,
    **{
        f"{what}.{part}": _INK
        for what, part in (("text", "color"), ("axes", "labelcolor"), ("axes", "edgecolor"))
    },
    "xtick.color": _INK,
    "ytick.color": _INK,
}
Rows = Sequence[Row]


def latency(windows: Rows, limit_ms: float | None) -> str:
    """Percentiles over time."""
    with _figure(3.2) as (axis, made):
        at = [row["at"] for row in windows]
        for name, colour in (("p50", 0), ("p95", 3), ("p99", 1)):
            values = [row[f"{name}_ms"] or float("nan") for row in windows]
            axis.plot(at, values, "-o", markersize=2.5, color=COLOURS[colour], label=name)
        if limit_ms is not None:
            axis.axhline(limit_ms, color=_INK, linestyle="--", linewidth=1, label="limit of p99")
        axis.set_yscale("log")
        _plain(axis)
        _label(axis, "seconds", "ms from when it was due")
    return made[0]


def throughput(windows: Rows) -> str:
    """What was due, and what became of it, over time."""
    with _figure(2.6) as (axis, made):
        at = [row["at"] for row in windows]
        parts = [[row[f"{name}_per_second"] for row in windows] for name in _PARTS]
        colours = [COLOURS[place] for place in (2, 3, 1)]
        axis.stackplot(at, parts, labels=list(_PARTS.values()), colors=colours, alpha=0.75)
        due = [row["due_per_second"] for row in windows]
        axis.plot(at, due, color=_INK, linewidth=1, label="due")
        axis.set_ylim(bottom=0)
        _label(axis, "seconds", "requests a second")
    return made[0]


_PARTS = {"answered": "answered", "fallbacks": "answered by a fallback", "failed": "failed"}


def by_rate(steps: Rows, found: float | None, limit_ms: float | None) -> str:
    """Percentiles over the rate."""
    with _figure(3.2) as (axis, made):
        rows = sorted(steps, key=lambda row: float(row["rate"]))
        for name, colour in (("p50", 0), ("p95", 3), ("p99", 1)):
            known = [(row["rate"], row[f"{name}_ms"]) for row in rows if row[f"{name}_ms"]]
            axis.plot(*zip(*known, strict=True), "o-", color=COLOURS[colour], label=name)
        if limit_ms is not None:
            axis.axhline(limit_ms, color=_INK, linestyle="--", linewidth=1, label="limit of p99")
        if found is not None:
            axis.axvline(found, color=COLOURS[2], linewidth=1.5, label=f"found: {found:.4g}")
        axis.set_yscale("log")
        _plain(axis)
        _label(axis, "requests a second", "ms from when it was due")
    return made[0]


def bars(stages: Rows) -> str:
    """Medians of stages."""
    with _figure(0.5 + 0.32 * len(stages)) as (axis, made):
        drawn = axis.barh(
            [row["stage"] for row in stages], [row["p50_ms"] for row in stages], color=COLOURS[0]
        )
        axis.bar_label(drawn, fmt="%.3g", padding=4, color=_INK)
        axis.invert_yaxis()
        axis.margins(x=0.1)
        axis.set_xlabel("ms, median")
    return made[0]


@contextmanager
def _figure(height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Axes, and a list that holds the SVG when the block has ended."""
    made: list[str] = []
    with mpl.rc_context(_STYLE):
        drawn, axis = plt.subplots(figsize=(9, height))
        axis.spines[["top", "right"]].set_visible(False)
        try:
            yield axis, made
            drawn.tight_layout()
            file = io.StringIO()
            drawn.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        finally:
            plt.close(drawn)
    made.append(_inline(file.getvalue()))


def _inline(svg: str) -> str:
    """Without the XML declaration, and as wide as there is room."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: (\d+)px [^;\"]*", r"font-size: \1px", svg)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"|height="[^"]*pt"', r"\1", svg, count=2)


def _plain(axis: Axes) -> None:
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axis.grid(axis="y", alpha=0.2)


def _label(axis: Axes, x: str, y: str) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.legend(frameon=False, fontsize="small", ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
