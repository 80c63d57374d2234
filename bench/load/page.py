"""The report, as one HTML page without anything from elsewhere."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.load import plots
from bench.timing import digits


def page(report: Mapping[str, Any]) -> str:
    """`report` is what the JSON file holds."""
    pages = Environment(
        loader=PackageLoader("bench.load", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "number": lambda value: "–" if value is None else f"{value:,}",
        "figure": lambda value: "–" if value is None else digits(value),
        "percent": lambda value: f"{value:.2%}",
    }
    return pages.get_template("report.html").render(report, plots=_plots(report))


def _plots(report: Mapping[str, Any]) -> dict[str, Markup]:
    """Not escaped: they are made here, from numbers and our own words."""
    limit = report["settings"]["limits"]["p99"]
    drawn = {
        "latency": plots.latency(report["windows"], limit),
        "throughput": plots.throughput(report["windows"]),
    }
    if len({row["rate"] for row in report["steps"]}) > 1:
        drawn["by_rate"] = plots.by_rate(report["steps"], report["highest_rate"], limit)
    if report["stages"]:
        drawn["stages"] = plots.bars(report["stages"])
    return {name: Markup(svg) for name, svg in drawn.items()}
