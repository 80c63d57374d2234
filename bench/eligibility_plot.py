"""Draws the eligibility benchmark: what each kind of restriction adds, against what it may add."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import COLOURS, figure


def draw(rows: Sequence[Mapping[str, Any]], limits: Mapping[str, float], out: Path) -> None:
    """Writes `out/eligibility.png`: one panel a size of catalogue."""
    sizes = sorted({row["items"] for row in rows})
    with figure(out, "eligibility", len(sizes), height=5) as axes:
        for axis, size in zip(axes, sizes, strict=True):
            own = [row for row in rows if row["items"] == size]
            for (kind, limit), colour in zip(limits.items(), COLOURS, strict=False):
                bars = [(place, row) for place, row in enumerate(own) if row["kind"] == kind]
                places = [place for place, _ in bars]
                # A search among few items may take less time than one among all.
                added = [max(row["added_ms"]["median"], 1e-3) for _, row in bars]
                axis.barh(places, added, color=colour, label=f"{kind}, may add {limit} ms")
                axis.plot([limit] * 2, [min(places) - 0.4, max(places) + 0.4], ":", color=colour)
            axis.set_yticks(range(len(own)), [row["contestant"] for row in own], fontsize="small")
            axis.invert_yaxis()
            axis.set_xscale("log")
            axis.set_xlabel(f"ms added to a search among {size:,} items")
            axis.legend(
                frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1)
            )
