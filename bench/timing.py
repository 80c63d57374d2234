"""Contestants in turn, again and again, so that whatever else the machine does hits them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.progress import track

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spread:
    """The quartiles of repeated measurements, and how many there were."""

    low: float
    median: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value; a single one is all three quartiles."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high, len(values))

    def scaled(self, factor: float) -> "Spread":
        return Spread(self.low * factor, self.median * factor, self.high * factor, self.count)

    def json(self) -> dict[str, float]:
        return {"low": self.low, "median": self.median, "high": self.high, "count": self.count}

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(self.low)} to {digits(self.high)})"


def digits(value: float) -> str:
    """Three significant digits, never in exponents: 0.0123, 1.23, 12.3, 1,234."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if abs(value) >= 1e-3 else f"{value:.6f}"


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came back."""
    started = time.perf_counter()
    value = work()
    return time.perf_counter() - started, value


def alternate(
    contestants: Mapping[str, Callable[[int], tuple[float, Any]]],
    rounds: int,
    *,
    warm_up: int = 1,
    title: str = "",
) -> dict[str, list[tuple[float, Any]]]:
    """Every contestant once a round, for `warm_up` rounds that do not count and `rounds` that do.

    A contestant gets the number of the round, from 0 and warm-up included, and returns its seconds
    and its answer. Who begins moves on from round to round.
    """
    names = list(contestants)
    taken: dict[str, list[tuple[float, Any]]] = {name: [] for name in names}
    for number in track(range(warm_up + rounds), title, disable=not title, transient=True):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            result = contestants[name](number)
            if number >= warm_up:
                taken[name].append(result)
    return taken
