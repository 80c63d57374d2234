"""A frozen residual quantizer in numpy: vectors to codes and back, in microseconds an item.

Level 1 is the nearest of its centres; each further level quantises what the levels before left
over (RQ-VAE, Lee et al., 2022; SIDs by it: TIGER, Rajput et al., 2023). Residual k-means quantises
the vectors themselves; an RQ-VAE has an encoder in front and a decoder behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_store.build.embed.base import Vectors
from model_store.sid import Codes

_ROWS = 32_768
"""Items at once, so that the distances to a codebook stay within some tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Dense:
    """One layer of a perceptron. weight: (inputs, outputs); bias: (outputs,)."""

    weight: Vectors
    bias: Vectors


@dataclass(frozen=True, slots=True)
class ResidualQuantizer:
    """codebooks: per level (codes, latent dimensions). No layers: latent is the vector itself."""

    codebooks: tuple[Vectors, ...]
    encoder: tuple[Dense, ...] = ()
    decoder: tuple[Dense, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The codebook size of each level."""
        return tuple(len(book) for book in self.codebooks)

    def encode(self, vectors: Vectors) -> Codes:
        """Codes (n, levels) of vectors (n, dimensions)."""
        codes = np.empty((len(vectors), len(self.codebooks)), np.int32)
        for start in range(0, len(vectors), _ROWS):
            rows = slice(start, start + _ROWS)
            residual = _perceptron(vectors[rows], self.encoder)
            for level, book in enumerate(self.codebooks):
                codes[rows, level] = _distances(residual, book).argmin(1)
                residual = residual - book[codes[rows, level]]
        return codes

    def decode(self, codes: Codes) -> Vectors:
        """What codes (n, levels) stand for: vectors (n, dimensions)."""
        return _perceptron(self._latent(codes), self.decoder)

    def errors(self, vectors: Vectors, codes: Codes) -> Vectors:
        """Squared distances (n,) between vectors and what their codes stand for."""
        return np.asarray(((vectors - self.decode(codes)) ** 2).sum(1), np.float32)

    def last_distances(self, vectors: Vectors, codes: Codes) -> Vectors:
        """Squared distances (n, size of the last level) of what the levels before have left."""
        residual = _perceptron(vectors, self.encoder) - self._latent(codes[:, :-1])
        book = self.codebooks[-1]
        distances = (residual**2).sum(1, keepdims=True) + _distances(residual, book)
        return np.asarray(np.maximum(distances, 0), np.float32)

    def _latent(self, codes: Codes) -> Vectors:
        """The sum of the centres (n, latent dimensions)."""
        total = np.zeros((len(codes), self.codebooks[0].shape[1]), np.float32)
        for book, column in zip(self.codebooks, codes.T, strict=False):
            total += book[column]
        return total


def _distances(points: Vectors, book: Vectors) -> Vectors:
    """Squared distances (n, codes) without |x|², which is the same for every code."""
    return np.asarray((book**2).sum(1) - 2 * points @ book.T, np.float32)


def _perceptron(x: Vectors, layers: Sequence[Dense]) -> Vectors:
    """ReLU between the layers, none behind the last."""
    for number, layer in enumerate(layers):
        x = (np.maximum(x, 0) if number else x) @ layer.weight + layer.bias
    return x
