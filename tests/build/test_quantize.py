import numpy as np
import pytest

from model_store.build.embed import TextEmbedder
from model_store.build.quantize import ResidualQuantizer, resolve_collisions, spec_for
from model_store.sid import END


def clusters(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sixteen points around each of 4 × 4 centres: far apart first, close together second."""
    coarse, fine = rng.normal(size=(4, 8)) * 10, rng.normal(size=(4, 8))
    label = np.stack(np.meshgrid(range(4), range(4), indexing="ij"), -1).reshape(-1, 2)
    label = np.repeat(label, 16, axis=0)
    points = coarse[label[:, 0]] + fine[label[:, 1]] + rng.normal(size=(256, 8)) * 0.05
    return points.astype(np.float32), label


def test_hierarchical_clusters_are_recovered() -> None:
    points, label = clusters(np.random.default_rng(0))
    quantizer = ResidualQuantizer.fit(points, levels=2, codes=4, seed=1)
    codes, left = quantizer.encode(points)
    for level in range(2):
        pairs = {(int(a), int(b)) for a, b in zip(codes[:, level], label[:, level], strict=True)}
        assert len(pairs) == 4
    assert (left**2).sum(1).mean() < 0.05


def test_codes_are_the_nearest_centres_level_by_level() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(50, 6)).astype(np.float32)
    quantizer = ResidualQuantizer.fit(points, levels=3, codes=5, seed=0)
    codes, left = quantizer.encode(points)
    for point, row, rest in zip(points, codes, left, strict=True):
        residual = point.copy()
        for code, book in zip(row, quantizer.codebooks, strict=True):
            assert code == ((book - residual) ** 2).sum(1).argmin()
            residual = residual - book[code]
        assert rest == pytest.approx(residual, abs=1e-5)


def test_a_seed_gives_the_same_codes() -> None:
    points, _ = clusters(np.random.default_rng(0))
    once, again = (ResidualQuantizer.fit(points, levels=2, codes=4, seed=1) for _ in range(2))
    assert (once.encode(points)[0] == again.encode(points)[0]).all()


def test_collisions_are_numbered_by_weight_and_others_end() -> None:
    codes = np.array([[1, 2], [3, 4], [1, 2], [1, 2], [5, 6]], np.int32)
    solved = resolve_collisions(codes, np.array([5.0, 1, 9, 7, 0]))
    assert solved.tolist() == [[1, 2, 2], [3, 4, END], [1, 2, 0], [1, 2, 1], [5, 6, END]]
    assert spec_for(solved, [8, 8]).format(solved[0]) == "<a_1><b_2><c_2>"


def test_without_collisions_there_is_no_extra_level() -> None:
    solved = resolve_collisions(np.array([[0, 1], [1, 0]], np.int32), np.zeros(2))
    spec = spec_for(solved, [2, 2])
    assert not spec.extra
    assert spec.depth == 2


def test_texts_about_the_same_thing_lie_close() -> None:
    texts = [
        "red cotton shirt",
        "blue cotton shirt",
        "wireless phone charger",
        "无线 充电器 白色",
    ] * 3
    vectors = TextEmbedder.fit(texts, dimensions=4).embed(
        ["green cotton shirt", "cotton shirt", "phone charger", "充电器", "", "zzz qqq"]
    )
    near = vectors @ vectors.T
    assert near[0, 1] > 0.9
    assert near[0, 2] < 0.3
    assert near[2, 3] < near[0, 1]
    assert vectors[4].tolist() == [0.0] * vectors.shape[1]
