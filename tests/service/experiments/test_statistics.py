"""The statistics beside those of statsmodels, a library of its own kind."""

from itertools import product

import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
    proportions_ztest,
    samplesize_proportions_2indep_onetail,
)

from service.experiments import statistics

COUNTS = [(1200, 10_000, 1100, 10_050), (30, 60, 10, 55), (999, 1000, 900, 1000)]


@pytest.mark.parametrize(("count", "of"), [(0, 10), (5, 100), (10, 10), (123_456, 1_000_000)])
def test_rates(count: int, of: int) -> None:
    rate = statistics.rate(count, of)
    assert rate is not None
    expected = proportion_confint(count, of, method="wilson")
    assert (rate.low, rate.high) == pytest.approx(expected, abs=1e-12)
    assert rate.value == count / of


@pytest.mark.parametrize("counts", COUNTS)
def test_comparisons(counts: tuple[int, int, int, int]) -> None:
    count, of, control, of_control = counts
    found = statistics.compare(*counts)
    assert found is not None
    _, p_value = proportions_ztest([count, control], [of, of_control])
    assert found.test == "chi-square"
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    expected = confint_proportions_2indep(count, of, control, of_control, method="newcomb")
    assert (found.difference.low, found.difference.high) == pytest.approx(expected, abs=1e-12)
    assert found.lift == pytest.approx(count / of / (control / of_control) - 1)


def test_few_users_and_none() -> None:
    few = statistics.compare(3, 10, 0, 10)
    assert few is not None
    assert (few.test, few.lift) == ("fisher-exact", None)
    assert few.p_value == pytest.approx(0.2105, abs=1e-4)
    assert statistics.compare(0, 0, 1, 10) is None
    assert statistics.rate(0, 0) is None
    nobody = statistics.compare(0, 50, 0, 50)
    assert nobody is not None
    assert nobody.p_value == 1


@pytest.mark.parametrize(
    ("base", "lift", "power", "alpha", "ratio"),
    list(product((0.02, 0.3), (0.05, -0.2), (0.8, 0.95), (0.05, 0.01), (1, 0.25))),
)
def test_the_planner(base: float, lift: float, power: float, alpha: float, ratio: float) -> None:
    needed = statistics.users_needed(base, lift, alpha=alpha, power=power, ratio=ratio)
    assert needed is not None
    if ratio == 1:
        expected = samplesize_proportions_2indep_onetail(
            base * lift, base, power, alpha=alpha, alternative="two-sided"
        )
        assert needed[0] == pytest.approx(expected, abs=1)
    reached = statistics.power_of(needed[0], base, lift, alpha=alpha, ratio=ratio)
    assert reached == pytest.approx(power, abs=1e-3)
    if lift > 0:
        found = statistics.lift_found(base, needed[0], alpha=alpha, power=power, ratio=ratio)
        assert found == pytest.approx(lift, rel=1e-2)


def test_what_cannot_be_planned() -> None:
    assert statistics.users_needed(0.6, 1) is None
    assert statistics.lift_found(0.5, 0, ratio=1) is None
    assert statistics.lift_found(0.9, 5, ratio=1) is None


@pytest.mark.parametrize("p_values", [[], [0.03], [0.04, 0.01, 0.03], [0.5, 0.9, 0.001, 0.02]])
def test_several_comparisons(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1].tolist() if p_values else []
    assert statistics.holm(p_values) == pytest.approx(expected)


def test_numbers_that_do_not_fit_the_shares() -> None:
    fair = statistics.same_ratio([5010, 4990], [0.1, 0.1])
    skewed = statistics.same_ratio([5300, 4700], [0.1, 0.1])
    assert fair is not None
    assert skewed is not None
    assert fair > 0.5
    assert skewed < 1e-6
    assert statistics.same_ratio([0, 0], [0.5, 0.5]) is None
