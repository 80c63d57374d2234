"""Points whose SIDs are known: clusters of clusters."""

import numpy as np

from model_store.build.embed import Vectors

COARSE, FINE = 4, 4


def clusters(seed: int = 0, each: int = 16) -> tuple[Vectors, np.ndarray]:
    """Points around 4 × 4 centres, far apart first, close together second; and their labels."""
    rng = np.random.default_rng(seed)
    coarse, fine = rng.normal(size=(COARSE, 8)) * 10, rng.normal(size=(FINE, 8))
    label = np.stack(np.meshgrid(range(COARSE), range(FINE), indexing="ij"), -1).reshape(-1, 2)
    label = np.repeat(label, each, axis=0)
    noise = rng.normal(size=(len(label), 8)) * 0.05
    points = coarse[label[:, 0]] + fine[label[:, 1]] + noise
    return points.astype(np.float32), label
