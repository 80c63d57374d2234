"""The highest rate at which everything holds, by bisection.

The rate doubles until something breaks, then the gap is halved until it is narrow; what was found
is then held some more times.
"""

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

LOWEST_RATE = 0.5


class Probe(Protocol):
    """What a rate gave."""

    @property
    def holds(self) -> bool: ...


P = TypeVar("P", bound=Probe)


def highest(
    probe: Callable[[float], P], start: float, within: float, repeats: int
) -> tuple[float | None, list[P]]:
    """The highest rate that holds, and the probes that confirm it; None where no rate does.

    A rate is confirmed by `repeats` probes of which more than half hold; else the next one is
    lower by `within`.
    """
    low, rate = 0.0, start
    while probe(rate).holds:
        low, rate = rate, rate * 2
    high = rate
    while low == 0.0:
        rate /= 2
        if rate < LOWEST_RATE:
            return None, []
        if probe(rate).holds:
            low = rate
        else:
            high = rate
    while high / low > 1 + within:
        middle = math.sqrt(low * high)
        if probe(middle).holds:
            low = middle
        else:
            high = middle
    while low >= LOWEST_RATE:
        held = [probe(low) for _ in range(repeats)]
        if sum(one.holds for one in held) * 2 > repeats:
            return low, held
        low /= 1 + within
    return None, []
