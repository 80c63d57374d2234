"""Vectors to semantic IDs: residual k-means, and the extra token for items that collide.

Level 1 is the nearest of its centres; each further level quantises what the levels before left
over (residual quantisation, as in TIGER, Rajput et al., 2023, with k-means in place of the
RQ-VAE's learnt codebooks).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track
from safetensors.numpy import save_file
from sklearn.cluster import KMeans

from model_store.build.embed import TextEmbedder, Vectors
from model_store.sid import END, Codes, Level, SidSpec


@dataclass(frozen=True, slots=True)
class ResidualQuantizer:
    """codebooks: per level (codes, dimensions)."""

    codebooks: tuple[Vectors, ...]

    @classmethod
    def fit(cls, vectors: Vectors, *, levels: int, codes: int, seed: int) -> "ResidualQuantizer":
        """Learns one codebook after the other."""
        residual, codebooks = vectors.copy(), []
        for level in track(range(levels), "quantising"):
            kmeans = KMeans(min(codes, len(vectors)), n_init=4, random_state=seed + level)
            nearest = kmeans.fit_predict(residual)
            codebooks.append(kmeans.cluster_centers_.astype(np.float32))
            residual -= codebooks[-1][nearest]
        return cls(tuple(codebooks))

    def encode(self, vectors: Vectors) -> tuple[Codes, Vectors]:
        """Codes (n, levels), and what they leave of the vectors (n, dimensions)."""
        residual, columns = vectors.copy(), []
        for codebook in self.codebooks:
            # The nearest centre: |x|² is the same for all of them.
            distance = (codebook**2).sum(1) - 2 * residual @ codebook.T
            nearest = distance.argmin(1)
            columns.append(nearest)
            residual -= codebook[nearest]
        return np.stack(columns, 1).astype(np.int32), residual


def resolve_collisions(codes: Codes, weight: npt.NDArray[np.float64]) -> Codes:
    """Adds the extra level: items that share a SID are numbered by falling `weight`.

    An item alone on its SID gets `END`. Shape (n, levels) to (n, levels + 1).
    """
    _, sid, size = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    sid = sid.ravel()
    order = np.lexsort((-weight, sid))
    starts = np.concatenate([[0], np.cumsum(size)[:-1]])
    number = np.empty(len(codes), np.int32)
    number[order] = np.arange(len(codes)) - starts[sid[order]]
    extra = np.where(size[sid] > 1, number, END).astype(np.int32)
    return np.column_stack([codes, extra])


def spec_for(codes: Codes, sizes: Sequence[int]) -> SidSpec:
    """`<a_…><b_…>…` for codes whose last column is the extra level, empty or not."""
    extra = int(codes[:, -1].max()) + 1
    used = [*sizes, extra] if extra else sizes
    levels = [Level(f"<{chr(ord('a') + i)}_{{}}>", size) for i, size in enumerate(used)]
    return SidSpec(tuple(levels), extra=bool(extra))


def save_quantizer(
    folder: Path, embedder: TextEmbedder, quantizer: ResidualQuantizer, fields: Sequence[str]
) -> None:
    """Writes what is needed to give a new item its SID."""
    folder.mkdir(parents=True)
    tensors = {"idf": embedder.idf, "components": embedder.components}
    tensors |= {f"codebook.{i}": book for i, book in enumerate(quantizer.codebooks)}
    save_file(tensors, str(folder / "quantizer.safetensors"))
    about = {"embedder": "tfidf-svd", "quantizer": "residual-kmeans", "text": list(fields)}
    (folder / "quantizer.json").write_text(json.dumps(about, indent=2) + "\n")
