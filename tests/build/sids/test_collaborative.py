"""Items that are clicked together get vectors that lie close, whatever their texts say."""

import numpy as np
import pytest

from model_store.build.embed import TextEmbedder
from model_store.build.sids.collaborative import click_vectors
from model_store.build.sids.config import Collaborative
from model_store.build.sids.joint import Joint
from model_store.errors import BuildError

SETTINGS = Collaborative(dimensions=4, weight=0.5, reach=2)


def walks(rng: np.random.Generator, groups: int, size: int) -> list[list[int]]:
    """Users who each stay within one group of items."""
    return [
        (rng.integers(size, size=6) + size * int(rng.integers(groups))).tolist() for _ in range(200)
    ]


def test_items_of_one_group_lie_close() -> None:
    clicks = walks(np.random.default_rng(0), groups=4, size=5)
    vectors = click_vectors(clicks, 22, SETTINGS, seed=0)
    near = vectors[:20] @ vectors[:20].T
    group = np.arange(20) // 5
    same = group[:, None] == group
    assert near[same].min() > 0.8
    assert near[~same].max() < 0.3
    assert not vectors[20:].any()  # never clicked


def test_pmi_is_what_counting_by_hand_gives() -> None:
    """Dimensions of full rank give back the shifted positive PMI matrix, up to the unit length."""
    clicks = [[0, 1, 2], [0, 1], [3, 4], [3, 4, 0], [2, 2, 1]]
    counts = np.zeros((5, 5))
    for user in clicks:
        for i, one in enumerate(user):
            for other in user[i + 1 : i + 2]:
                if one != other:
                    counts[one, other] += 1
                    counts[other, one] += 1
    total = counts.sum(1)
    with np.errstate(divide="ignore"):
        pmi = np.log(counts * counts.sum() / np.outer(total, total) / 1.1)
    left, values, _ = np.linalg.svd(np.maximum(pmi, 0))
    expected = left[:, :3] * np.sqrt(values[:3])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    settings = Collaborative(dimensions=3, reach=1, shift=1.1)
    vectors = click_vectors(clicks, 5, settings, seed=0)
    assert vectors @ vectors.T == pytest.approx(expected @ expected.T, abs=1e-4)


def test_joint_distances_are_mixed_by_weight_and_later_items_predicted() -> None:
    rng = np.random.default_rng(1)
    texts = [f"kind{i // 5} model{i}" for i in range(20)]
    text = TextEmbedder.fit(texts, dimensions=8).embed(texts)
    clicks = click_vectors(walks(rng, groups=4, size=5), 20, SETTINGS, seed=0)
    settings = SETTINGS.model_copy(update={"weight": 0.25})
    joint = Joint.fit(text, clicks, settings, np.ones(20, bool))
    joined = joint.join(text, clicks)

    def squared(points: np.ndarray) -> np.ndarray:
        return np.asarray(((points[:, None] - points) ** 2).sum(2))

    expected = 0.75 * squared(text) + 0.25 * squared(clicks)
    assert squared(joined) == pytest.approx(expected, abs=1e-4)
    later = joint.join(text)  # the same items, as if nobody had clicked them
    predicted = later[:, 8:] / np.sqrt(0.25)
    assert (predicted * clicks).sum(1).min() > 0.7
    silent = clicks.copy()
    silent[3] = 0
    assert joint.join(text, silent)[3] == pytest.approx(later[3])


def test_too_few_clicks_are_named() -> None:
    with pytest.raises(BuildError, match=r"too few for 4 dimensions"):
        click_vectors([[0, 1], [2]], 3, SETTINGS, seed=0)
    with pytest.raises(BuildError, match=r"too few"):
        click_vectors([], 3, SETTINGS, seed=0)
