"""Draws the engine benchmark: bars for a cell or two, lines along every list of settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from bench.report import COLOURS, figure, logarithmic
from bench.timing import digits

Row = Mapping[str, Any]

_KEYS = ("tokens", "beams", "in_flight")
_LABELS = {"tokens": "tokens", "beams": "beams", "in_flight": "in flight"}


def draw(rows: Sequence[Row], out: Path, name: str) -> None:
    """Milliseconds a query, always less is better. Writes `out/name.png`."""
    first = rows[0]
    along = [key for key in _KEYS if len({row[key] for row in rows}) > 2]
    if not along:
        cells = list(dict.fromkeys(tuple(row[key] for key in _KEYS) for row in rows))
        with figure(out, name, len(cells)) as axes:
            for axis, cell in zip(axes, cells, strict=True):
                _bars(axis, [row for row in rows if tuple(row[key] for key in _KEYS) == cell])
        return
    with figure(out, name, len(along)) as axes:
        for axis, key in zip(axes, along, strict=True):
            others = [other for other in _KEYS if other != key]
            _lines(axis, [r for r in rows if all(r[o] == first[o] for o in others)], key)
            fixed = ", ".join(f"{first[other]} {_LABELS[other]}" for other in others)
            axis.set_title(fixed, fontsize="medium")
        axes[0].set_ylabel("ms a query")
        axes[-1].legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def _bars(axis: Axes, rows: Sequence[Row]) -> None:
    """One cell: a bar a contestant with its quartiles, and the floor."""
    names = [row["contestant"] for row in rows]
    scale = 1e3 / rows[0]["in_flight"]
    median, low, high = (
        [row["seconds"][key] * scale for row in rows] for key in ("median", "low", "high")
    )
    errors = [
        [m - value for m, value in zip(median, low, strict=True)],
        [value - m for m, value in zip(median, high, strict=True)],
    ]
    bars = axis.barh(names, median, 0.6, xerr=errors, color=COLOURS[: len(names)])
    axis.bar_label(bars, [digits(value) for value in median], padding=6)
    floor = rows[0]["floor_seconds"] * scale
    axis.axvline(floor, color="black", linestyle="--", linewidth=1)
    axis.annotate(
        f"floor {digits(floor)}",
        (floor, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(4, 2),
        textcoords="offset points",
        fontsize="small",
    )
    axis.invert_yaxis()
    axis.margins(x=0.18)
    row = rows[0]
    axis.set_title(
        f"{row['in_flight']} in flight, {row['tokens']} tokens, {row['beams']} beams: ms a query",
        fontsize="medium",
        pad=16,
    )


def _lines(axis: Axes, rows: Sequence[Row], key: str) -> None:
    """Along one setting: a line a contestant with its quartiles as a band, and the floor."""
    for name in dict.fromkeys(row["contestant"] for row in rows):
        own = sorted((row for row in rows if row["contestant"] == name), key=lambda r: int(r[key]))
        x = [row[key] for row in own]
        low, median, high = (
            [row["seconds"][part] * 1e3 / row["in_flight"] for row in own]
            for part in ("low", "median", "high")
        )
        [line] = axis.plot(x, median, marker="o", label=name)
        axis.fill_between(x, low, high, alpha=0.2, color=line.get_color())
    floors = sorted({row[key]: row["floor_seconds"] / row["in_flight"] for row in rows}.items())
    axis.plot(
        [x for x, _ in floors],
        [seconds * 1e3 for _, seconds in floors],
        *("k--",),
        linewidth=1,
        label="floor",
    )
    logarithmic(axis)
    axis.set_xticks([x for x, _ in floors], [str(x) for x, _ in floors])
    axis.minorticks_off()
    axis.set_xlabel(_LABELS[key])
