"""Drift speaks up when items change, and only then."""

import numpy as np

from model_store.build.sids.drift import Drift
from model_store.build.sids.quantizer import Quantizer
from tests.build.sids.conftest import Split


def test_new_items_of_the_same_kind_need_no_retraining(made: Quantizer, split: Split) -> None:
    assert made.reference is not None
    drift = Drift.measure(made.sids(made.texts(split.same))[1], made.reference)
    assert not drift.retrain, drift
    assert drift.as_json()["retrain"] is False


def test_items_of_another_kind_do(made: Quantizer, split: Split) -> None:
    assert made.reference is not None
    drift = Drift.measure(made.sids(made.texts(split.other))[1], made.reference)
    assert drift.retrain, drift
    assert drift.above > 0.3
    assert "retrain" in drift.advice


def test_chance_is_no_drift() -> None:
    """Samples of one distribution: hardly one is called a drift, of any size."""
    rng = np.random.default_rng(0)
    for size in (1, 5, 50, 1000):
        found = [
            Drift.measure(*(rng.gamma(3, size=n).astype(np.float32) for n in (size, 300))).retrain
            for _ in range(100)
        ]
        assert sum(found) <= 1, size


def test_smaller_errors_and_hairs_breadths_are_no_drift() -> None:
    rng = np.random.default_rng(1)
    reference = rng.gamma(3, size=5000).astype(np.float32)
    for factor in (0.5, 1.05):
        new = (rng.gamma(3, size=100_000) * factor).astype(np.float32)
        assert not Drift.measure(new, reference).retrain
    assert Drift.measure(reference * np.float32(1.5), reference).retrain
