"""Draws the service benchmark."""

from pathlib import Path
from typing import Any

from bench.report import COLOURS, figure


def draw(
    single: dict[str, Any], full: dict[str, Any], below: dict[str, Any], rate: float, out: Path
) -> None:
    """Writes `out/service.png`."""
    with figure(out, "service", 3, height=3) as (left, middle, right):
        # The search is as long as the engine's own; what the rest takes is the point.
        stages = {k: v["median"] for k, v in single["stages_ms"].items() if k != "search"}
        bars = left.barh(list(stages), list(stages.values()), color=COLOURS[0])
        left.bar_label(bars, fmt="%.2f", padding=4)
        search = single["engine_ms"]["median"]
        left.set_title(f"one in flight: ms around {search:.1f} ms of search", fontsize="medium")
        names = ("engine alone", "over HTTP")
        values = [full[key]["median"] for key in ("engine_per_second", "service_per_second")]
        middle.bar_label(middle.barh(names, values, color=COLOURS[:2]), fmt="%.1f", padding=4)
        middle.set_title(f"{full['in_flight']} in flight: answers a second", fontsize="medium")
        keys = ("p50_ms", "p99_ms")
        bars = right.barh(("p50", "p99"), [below[key]["median"] for key in keys], color=COLOURS[:2])
        right.bar_label(bars, fmt="%.3g", padding=4)
        right.set_title(f"{rate:.1f} a second: ms", fontsize="medium")
        for axis in (left, middle, right):
            axis.invert_yaxis()
            axis.margins(x=0.15)
