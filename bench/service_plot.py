"""Draws the service benchmark: where a request's time goes, and what saturation gives."""

from pathlib import Path
from typing import Any

from bench.report import COLOURS, figure


def draw(single: dict[str, Any], full: dict[str, Any], below: dict[str, Any], out: Path) -> None:
    """Writes `out/service.png`."""
    with figure(out, "service", 3, height=3.2) as (left, middle, right):
        start = 0.0
        for (stage, value), colour in zip(single["stages_ms"].items(), COLOURS, strict=False):
            left.barh("over HTTP", value["median"], left=start, color=colour, label=stage)
            start += value["median"]
        left.barh("engine alone", single["engine_ms"]["median"], color="#bbbbbb")
        left.set_title("one in flight, ms", fontsize="medium")
        left.legend(frameon=False, fontsize="small", ncols=3, loc="upper center")
        left.margins(y=0.5)
        names = ("engine alone", "over HTTP")
        values = [full[key]["median"] for key in ("engine_per_second", "service_per_second")]
        middle.bar_label(middle.barh(names, values, color=COLOURS[:2]), fmt="%.1f", padding=4)
        middle.set_title(f"saturation, {full['in_flight']} in flight, answers/s", fontsize="medium")
        middle.margins(x=0.15)
        keys = ("p50_ms", "p99_ms")
        bars = right.barh(("p50", "p99"), [below[key]["median"] for key in keys], color=COLOURS[:2])
        right.bar_label(bars, fmt="%.3g", padding=4)
        right.set_title("ms at a constant rate below saturation", fontsize="medium")
        right.margins(x=0.15)
