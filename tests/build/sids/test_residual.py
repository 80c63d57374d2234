import numpy as np
import pytest

from model_store.build.sids.config import ResidualKMeans
from model_store.build.sids.kmeans import fit_residual_kmeans
from model_store.build.sids.residual import Dense, ResidualQuantizer
from tests.build.sids.clusters import clusters


def random_quantizer(rng: np.random.Generator) -> ResidualQuantizer:
    """Two layers, three levels of different size, two layers back."""

    def dense(inputs: int, outputs: int) -> Dense:
        weight, bias = rng.normal(size=(inputs, outputs)), rng.normal(size=outputs)
        return Dense(weight.astype(np.float32), bias.astype(np.float32))

    books = tuple(rng.normal(size=(size, 4)).astype(np.float32) for size in (5, 3, 7))
    return ResidualQuantizer(books, (dense(6, 8), dense(8, 4)), (dense(4, 8), dense(8, 6)))


def test_codes_are_the_nearest_centres_level_by_level() -> None:
    rng = np.random.default_rng(3)
    quantizer = random_quantizer(rng)
    points = rng.normal(size=(50, 6)).astype(np.float32)
    codes = quantizer.encode(points)
    decoded, errors = quantizer.decode(codes), quantizer.errors(points, codes)
    last = quantizer.last_distances(points, codes)
    first, second = quantizer.encoder
    back, out = quantizer.decoder
    for i, point in enumerate(points):
        residual = np.maximum(point @ first.weight + first.bias, 0) @ second.weight + second.bias
        total = np.zeros(4)
        for level, book in enumerate(quantizer.codebooks):
            distances = ((book - residual) ** 2).sum(1)
            assert codes[i, level] == distances.argmin()
            if level == 2:
                assert last[i] == pytest.approx(distances, rel=1e-3, abs=1e-4)
            residual, total = residual - book[codes[i, level]], total + book[codes[i, level]]
        expected = np.maximum(total @ back.weight + back.bias, 0) @ out.weight + out.bias
        assert decoded[i] == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert errors[i] == pytest.approx(((point - expected) ** 2).sum(), rel=1e-3)


def test_residual_kmeans_recovers_hierarchical_clusters() -> None:
    points, label = clusters()
    quantizer = fit_residual_kmeans(points, (4, 4), ResidualKMeans(), seed=1)
    codes = quantizer.encode(points)
    for level in range(2):
        assert len(np.unique(np.stack([codes[:, level], label[:, level]]), axis=1).T) == 4
    assert quantizer.errors(points, codes).mean() < 0.05


def test_a_seed_gives_the_same_codebooks() -> None:
    points, _ = clusters()
    once, again = (fit_residual_kmeans(points, (4, 3), ResidualKMeans(), seed=1) for _ in "ab")
    for one, other in zip(once.codebooks, again.codebooks, strict=True):
        assert (one == other).all()


def test_no_codebook_is_larger_than_what_is_left_to_tell_apart() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    quantizer = fit_residual_kmeans(points, (8, 8), ResidualKMeans(), seed=0)
    assert quantizer.sizes == (3, 1)
    assert len(np.unique(quantizer.encode(points), axis=0)) == 3
