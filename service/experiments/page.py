"""The report for people, as one HTML page without anything from elsewhere."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from service.experiments.report import Difference, RateShown, Report


def page(report: Report) -> str:
    return _template().render(report=report)


@cache
def _template() -> Template:
    pages = Environment(
        loader=PackageLoader("service.experiments", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "number": lambda value: f"{value:,}",
        "percent": percent,
        "interval": interval,
        "difference": difference,
        "ms": lambda value: "–" if value is None else f"{value:,.1f} ms",
    }
    return pages.get_template("report.html")


def percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def interval(rate: RateShown) -> str:
    """Such as `4.90% (4.61% to 5.21%)`."""
    if rate.value is None:
        return "–"
    return f"{percent(rate.value)} ({percent(rate.low)} to {percent(rate.high)})"


def difference(found: Difference | None) -> str:
    """Such as `+9.8%, +0.08 to +0.91 points, p = 0.019`."""
    if found is None:
        return "–"
    lift = "" if found.lift is None else f"{found.lift:+.1%}, "
    points = f"{100 * found.low:+.2f} to {100 * found.high:+.2f} points"
    return f"{lift}{points}, p {probability(found.adjusted_p_value)}"


def probability(p_value: float) -> str:
    return "< 0.0001" if p_value < 0.0001 else f"= {p_value:.2g}"
