"""Plans at the bounds of what may be planned, over rates at the bounds of what may be observed."""

import itertools

import pytest

from service.experiments.statistics import lift_found, users_needed


@pytest.mark.parametrize("base_rate", [1e-9, 1e-6, 0.05, 0.9, 1 - 1e-6, 1 - 1e-10])
@pytest.mark.parametrize("ratio", [1e-4, 1, 1e4])
def test_any_plan_that_may_be_made_has_an_answer(base_rate: float, ratio: float) -> None:
    """Observed rates are what they are; lift, alpha and power are within the bounds of a plan."""
    extremes = itertools.product((1e-8, 0.05, 0.4999), (0.5, 0.8, 0.9999))
    for alpha, power in extremes:
        for users in (1, 100, 10**6, 10**12):
            found = lift_found(base_rate, users, alpha=alpha, power=power, ratio=ratio)
            assert found is None or found > 0
        for lift in (1e-4, 0.1, 10):
            needed = users_needed(base_rate, lift, alpha=alpha, power=power, ratio=ratio)
            assert (needed is None) == (base_rate * (1 + lift) >= 1)
            assert needed is None or min(needed) >= 1
