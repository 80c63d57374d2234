"""The division of users, and the statistics: `sidrec bench experiment` in a short form."""

import numpy as np
import pytest

from bench.experiment import independent, numbers, p_values, uniform
from service.experiments.statistics import users_needed
from tests.bench.conftest import Measure

USERS = [f"user-{n}" for n in range(5_000)]


def test_it_runs_to_the_end(measure: Measure) -> None:
    sizes = ("--users", 1000, "--experiments", 5, "--lifted", 5, "--base-rate", 0.4)
    found = measure("experiment", *sizes, "--lift", 0.3)
    rows = {row["what"]: row for row in found["rows"]}
    assert len(rows) == 5
    assert rows["A/A: a difference found"]["expected"] == 0.05


def test_users_are_divided_evenly_and_anew_by_each_salt() -> None:
    even = [uniform(USERS, 10, f"salt-{n}")["found"] for n in range(40)]
    apart = [independent(USERS, f"one-{n}", f"other-{n}")["found"] for n in range(40)]
    # Under 1 in 5,000 is not chance any more.
    for found in (even, apart):
        assert min(found) > 0.0002
        assert 0.3 < np.mean(found) < 0.7


def test_a_division_that_is_not_even_or_not_independent_is_noticed() -> None:
    assert independent(USERS, "same", "same")["found"] < 1e-9
    arms = numbers("any", {"control": 0.55, "other": 0.45}, USERS)
    assert abs(np.mean(arms) - 0.45) < 0.03
    assert set(numbers("any", {"control": 0.05, "other": 0.05}, USERS)) == {-1, 0, 1}


def test_where_nothing_differs_one_in_twenty_finds_a_difference() -> None:
    found = p_values(USERS, 600, np.random.default_rng(1), 0.1, 0.0, "a/a")
    assert np.mean(found <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_a_lift_is_found_as_often_as_planned() -> None:
    needed = users_needed(0.3, 0.2)
    assert needed is not None
    visitors = [f"visitor-{n}" for n in range(sum(needed))]
    found = p_values(visitors, 600, np.random.default_rng(2), 0.3, 0.2, "a/b")
    assert np.mean(found <= 0.05) == pytest.approx(0.8, abs=0.05)
