"""What every benchmark leaves behind: a table, a JSON file, a plot."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

OUT = Path("bench/out")

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's bright scheme, which colour-blind readers can tell apart."""

# A log file has no width of its own, and the usual guess cuts tables to pieces.
console = Console(width=None if sys.stdout.isatty() else 120)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first column is text, the others figures."""
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def write_json(
    out: Path,
    name: str,
    *,
    machine: Mapping[str, Any],
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    **more: Any,
) -> Path:
    """Writes `out/name.json`: what ran, on which machine, with which settings (`out` itself left
    out), and a row a measurement."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    document = {
        "bench": name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "settings": {name: value for name, value in settings.items() if name != "out"},
        **more,
        "rows": rows,
    }
    path.write_text(json.dumps(document, indent=1, default=str) + "\n")
    console.print(f"written: {path}")
    return path


@contextmanager
def figure(out: Path, name: str, panels: int, *, height: float = 4) -> Iterator[list[Axes]]:
    """Axes side by side, saved as `out/name.png` when the block ends."""
    drawn, axes = plt.subplots(1, panels, figsize=(5.5 * panels, height), squeeze=False)
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_prop_cycle(color=COLOURS)
    try:
        yield list(axes[0])
        drawn.tight_layout()
        out.mkdir(parents=True, exist_ok=True)
        drawn.savefig(out / f"{name}.png", dpi=130)
    finally:
        plt.close(drawn)
    console.print(f"drawn: {out / name}.png")


def logarithmic(axis: Axes) -> None:
    """Both scales logarithmic, with plain numbers."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        scale.set_minor_formatter(FuncFormatter(lambda value, _: ""))
