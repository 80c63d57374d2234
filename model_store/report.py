"""Tables that people look at."""

from collections.abc import Mapping

from rich.table import Table


def metrics_table(results: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """One row per ranker, one column per metric."""
    table = Table(title=title)
    table.add_column("")
    names = list(next(iter(results.values())))
    for name in names:
        table.add_column(name, justify="right")
    for ranker, values in results.items():
        table.add_row(ranker, *(f"{values[name]:.4f}" for name in names))
    return table
