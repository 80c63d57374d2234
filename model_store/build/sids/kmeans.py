"""Residual k-means: the plain way to codebooks, seconds where an RQ-VAE takes minutes."""

from collections.abc import Sequence

import numpy as np
from rich.progress import track
from sklearn.cluster import KMeans

from model_store.build.embed.base import Vectors
from model_store.build.sids.config import ResidualKMeans
from model_store.build.sids.residual import ResidualQuantizer


def fit_residual_kmeans(
    vectors: Vectors, sizes: Sequence[int], settings: ResidualKMeans, seed: int
) -> ResidualQuantizer:
    """Learns one codebook after the other; none is larger than there are distinct vectors left."""
    codebooks = []
    residual = vectors
    for level, size in enumerate(track(sizes, "quantising", transient=True)):
        centres, nearest = cluster(residual, size, settings.restarts, seed + level)
        codebooks.append(centres)
        residual = residual - centres[nearest]
    return ResidualQuantizer(tuple(codebooks))


def cluster(
    points: Vectors, size: int, restarts: int, seed: int
) -> tuple[Vectors, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """K-means with at most `size` centres, and the centre of each point."""
    kmeans = KMeans(_distinct(points, size), n_init=restarts, random_state=seed)
    nearest = kmeans.fit_predict(points)
    return kmeans.cluster_centers_.astype(np.float32), nearest.astype(np.int64)


def _distinct(points: Vectors, enough: int) -> int:
    """How many points differ; stops counting at `enough`, which mostly takes as many rows."""
    seen: set[bytes] = set()
    for point in points:
        seen.add(point.tobytes())
        if len(seen) == enough:
            break
    return len(seen)
