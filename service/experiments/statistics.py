"""Rates, their intervals, tests between them, and how many users a test needs. By scipy.

scipy is imported when first needed, which takes a second: call none of these on an event loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal

Test = Literal["chi-square", "fisher-exact"]

_SMALL = 5  # users that a cell of the chi-square test should expect (Cochran)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share, with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A rate against that of the control.

    difference: of the two rates, with its interval
    lift:       the same relative to the control's rate, None where that is 0
    p_value:    of a difference at least as large, if there were none
    """

    difference: Rate
    lift: float | None
    p_value: float
    test: Test


def rate(count: int, of: int, confidence: float = 0.95) -> Rate | None:
    """With Wilson's score interval; None of nobody."""
    from scipy.stats import binomtest

    if of == 0:
        return None
    interval = binomtest(count, of).proportion_ci(confidence, method="wilson")
    return Rate(count / of, float(interval.low), float(interval.high))


def compare(
    count: int, of: int, control: int, of_control: int, confidence: float = 0.95
) -> Comparison | None:
    """A rate against the control's: Pearson's chi-square test without correction, which is the
    pooled z-test of two rates; Fisher's exact test where some cell expects less than 5 users. None
    where one of them has nobody."""
    from scipy.stats import chi2_contingency, fisher_exact
    from scipy.stats.contingency import expected_freq

    one, other = rate(count, of, confidence), rate(control, of_control, confidence)
    if one is None or other is None:
        return None
    table = [[count, of - count], [control, of_control - control]]
    test: Test
    if expected_freq(table).min() < _SMALL:
        test, p_value = "fisher-exact", fisher_exact(table).pvalue
    else:
        test, p_value = "chi-square", chi2_contingency(table, correction=False).pvalue
    lift = None if other.value == 0 else one.value / other.value - 1
    return Comparison(_newcombe(one, other), lift, float(p_value), test)


def _newcombe(one: Rate, other: Rate) -> Rate:
    """The interval of a difference from those of its parts: Newcombe, "Interval estimation for the
    difference between independent proportions", Statistics in Medicine 17 (1998), method 10."""
    value = one.value - other.value
    low = value - sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)
    high = value + sqrt((one.high - one.value) ** 2 + (other.value - other.low) ** 2)
    return Rate(value, low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several comparisons, adjusted so that all of them together raise a false alarm
    no more often than one would (Holm, 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted


def same_ratio(counts: Sequence[int], shares: Sequence[float]) -> float | None:
    """How likely numbers of users at least as far from their shares are, by chance; None of
    nobody. One below 0.001 says that something else than the hash decides who is counted."""
    from scipy.stats import chisquare

    total, whole = sum(counts), sum(shares)
    if total == 0:
        return None
    return float(chisquare(counts, [share / whole * total for share in shares]).pvalue)


def users_needed(
    base_rate: float, lift: float, *, alpha: float = 0.05, power: float = 0.8, ratio: float = 1.0
) -> tuple[int, int] | None:
    """Users of the control, and `ratio` times as many of the other arm, with which the two-sided
    test at `alpha` finds a relative lift with probability `power`; None where the lifted rate would
    be 1 or more. (Fleiss, Levin, Paik: "Statistical methods for rates and proportions", 4.14)"""
    from scipy.special import ndtri

    if base_rate * (1 + lift) >= 1:
        return None
    difference, pooled, apart = _spreads(base_rate, lift, ratio)
    users = ((ndtri(1 - alpha / 2) * pooled + ndtri(power) * apart) / difference) ** 2
    return ceil(users), ceil(users * ratio)


def power_of(
    control_users: float, base_rate: float, lift: float, *, alpha: float = 0.05, ratio: float = 1.0
) -> float:
    """The probability of finding a relative lift with so many users in the control, and `ratio`
    times as many in the other arm."""
    from scipy.special import ndtr, ndtri

    difference, pooled, apart = _spreads(base_rate, lift, ratio)
    shift = difference * sqrt(control_users)
    return float(ndtr((shift - ndtri(1 - alpha / 2) * pooled) / apart))


def _spreads(base_rate: float, lift: float, ratio: float) -> tuple[float, float, float]:
    """The difference of the two rates, and its standard deviation with one user in the control:
    as the test takes it, for which both are the same, and as it is."""
    other = base_rate * (1 + lift)
    both = (base_rate + ratio * other) / (1 + ratio)
    pooled = sqrt(both * max(0.0, 1 - both) * (1 + 1 / ratio))
    apart = sqrt(base_rate * (1 - base_rate) + other * max(0.0, 1 - other) / ratio)
    return abs(other - base_rate), pooled, apart


def lift_found(
    base_rate: float, control_users: int, *, alpha: float = 0.05, power: float = 0.8, ratio: float
) -> float | None:
    """The smallest relative lift that so many users find with probability `power`; None where
    no lift is large enough."""
    from scipy.optimize import brentq

    if control_users == 0:
        return None
    most = (1 - 1e-9) / base_rate - 1

    def missing(lift: float) -> float:
        return power_of(control_users, base_rate, lift, alpha=alpha, ratio=ratio) - power

    # Above a base rate next to 1, or with users without end, there is nothing between the two.
    least = 1e-9
    if most <= least or missing(most) < 0:
        return None
    return least if missing(least) >= 0 else float(brentq(missing, least, most))
