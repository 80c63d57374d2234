"""A text vector and what clicks say, joined into the one vector that is quantised."""

from dataclasses import dataclass

import numpy as np

from model_store.build.embed.base import Vectors, unit
from model_store.build.sids.config import Collaborative
from model_store.errors import BuildError


@dataclass(frozen=True, slots=True)
class Joint:
    """Joins two unit vectors, so that squared distances are mixed: (1 − weight) of the text's,
    weight of the clicks'. slope: (text dimensions, dimensions); intercept: (dimensions,)."""

    slope: Vectors
    intercept: Vectors
    weight: float

    @classmethod
    def fit(
        cls, text: Vectors, clicks: Vectors, settings: Collaborative, learn: np.ndarray
    ) -> "Joint":
        """Learns from the rows `learn` that have a click vector how a text predicts one.

        Raises `BuildError` if there are none.
        """
        from sklearn.linear_model import (
            Ridge,  # joining, which is all that serving does, needs none
        )

        known = np.flatnonzero(learn & clicks.any(1))
        if not len(known):
            raise BuildError("sids.collaborative: no item to learn from is clicked with another")
        ridge = Ridge().fit(text[known], clicks[known])
        return cls(
            np.ascontiguousarray(ridge.coef_.T, np.float32),
            np.asarray(ridge.intercept_, np.float32),
            settings.weight,
        )

    def join(self, text: Vectors, clicks: Vectors | None = None) -> Vectors:
        """(n, text dimensions + dimensions); rows of `clicks` that are zero are predicted."""
        joined = unit(text @ self.slope + self.intercept)
        if clicks is not None:
            joined = np.where(clicks.any(1, keepdims=True), clicks, joined)
        parts = [np.sqrt(1 - self.weight) * text, np.sqrt(self.weight) * joined]
        return np.concatenate(parts, 1).astype(np.float32)
