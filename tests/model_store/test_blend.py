"""A mixture of two distributions, against one that is written down item by item."""

import math

import numpy as np
import pytest

from model_store.blend import Blend
from model_store.sid import Eligibility
from tests.tiny import random_blend

N = 60


def naive(
    found: list[tuple[int, float]], history: list[int], k: int, blend: Blend, allowed: set[int]
) -> list[tuple[int, float]]:
    """Every allowed item of the catalogue, scored by the formula."""
    table, spec = blend.neighbours, blend.spec
    votes = [0.0] * N
    for age, row in enumerate(reversed(history[-spec.last :])):
        for at in range(table.first[row], table.first[row + 1]):
            votes[table.rows[at]] += spec.decay**age * float(table.weights[at])
    if not sum(votes):
        return found[:k]
    model = {row: math.exp(score) for row, score in found}
    mixture = {
        row: (1 - spec.weight) * model.get(row, 0) + spec.weight * votes[row] / sum(votes)
        for row in allowed
    }
    likely = [row for row in mixture if mixture[row] > 0]
    ranked = sorted(likely, key=lambda row: -mixture[row])[:k]
    return [(row, math.log(mixture[row])) for row in ranked]


@pytest.mark.parametrize("weight", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_mixture_of_all_eligible_items(weight: float, masked: bool) -> None:
    rng, blend = np.random.default_rng(1), random_blend(N, weight=weight)
    for _ in range(150):
        mask = rng.random(N) < (0.3 if masked else 2)
        history = rng.integers(N, size=rng.integers(0, 14)).tolist()
        excluded = set(history) if rng.random() < 0.5 else set()
        allowed = set(np.flatnonzero(mask).tolist()) - excluded
        beams = rng.permutation(sorted(allowed))[: rng.integers(0, 12)].tolist()
        scores = np.sort(rng.normal(-5, 2, len(beams)))[::-1].tolist()
        found, k = list(zip(beams, scores, strict=True)), int(rng.integers(1, 25))
        eligible = Eligibility.of(mask, sorted(excluded)) if masked or excluded else None
        mine = blend.ranked(found, history, k, eligible)
        expected = naive(found, history, k, blend, allowed)
        assert [score for _, score in mine] == pytest.approx([score for _, score in expected])
        rows = [row for row, _ in mine]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= allowed
        # Equal scores may stand in either order.
        clear = np.round([score for _, score in expected], 9).tolist()
        for at, row in enumerate(rows[:-1]):
            if clear.count(clear[at]) == 1:
                assert row == expected[at][0]


def test_scores_stay_log_probabilities_and_no_filter_changes_them() -> None:
    blend = random_blend(N)
    found = [(3, math.log(0.5)), (50, math.log(0.25))]
    everything = dict(blend.ranked(found, [1, 2, 3], N))
    assert sum(map(math.exp, everything.values())) == pytest.approx(0.5 * (0.75 + 1))
    some = blend.ranked(found[:1], [1, 2, 3], N, Eligibility.of(np.arange(N) < 20))
    assert dict(some) == pytest.approx({row: s for row, s in everything.items() if row < 20})


def test_where_nothing_votes_the_model_decides_alone() -> None:
    found = [(3, -1.0), (50, -2.0), (7, -3.0)]
    assert random_blend(N).ranked(found, [N - 1], 2) == found[:2]
    assert random_blend(N).ranked(found, [], 5) == found


def test_a_probability_too_small_for_a_float_is_no_trouble() -> None:
    row, score = random_blend(N).ranked([(N - 1, -5000.0)], [1], N)[-1]
    assert row == N - 1
    assert score == pytest.approx(-5000, abs=1)
