"""The model and the counted neighbours as one ranking.

Both say how likely each item is to be next: the model by the probability of its SID, the
neighbours by their share of all votes. What is served is the mixture of the two distributions,

    score = log((1 - weight) · P(SID | prompt) + weight · votes / all votes)

so an item that only one of them knows needs no made-up score from the other, and a score stays a
log-probability. The items of one SID, which a model cannot tell apart, are told apart by the votes.
Where nothing votes, the model alone decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from model_store.neighbours import Neighbours, Rows, Voting
from model_store.sid import Eligibility

Scored = Sequence[tuple[int, float]]
"""Rows, best first, and a log-probability of each."""


class BlendSpec(Voting):
    """How a bundle blends."""

    weight: float = Field(gt=0, lt=1, description="of the neighbours; the rest is the model's")


@dataclass(frozen=True)
class Blend:
    """A bundle's table of neighbours, and how strongly it counts."""

    spec: BlendSpec
    neighbours: Neighbours

    def shares(self, history: Sequence[int]) -> tuple[Rows, npt.NDArray[np.float64]]:
        """The rows that a history (rows, oldest first) speaks for, the most wanted first, and the
        share of all votes that each has; whatever an answer may contain, so that a filter changes
        no score."""
        rows, votes = self.neighbours.votes(history, self.spec)
        return rows, votes / votes.sum() if len(votes) else votes

    def ranked(
        self, found: Scored, history: Sequence[int], k: int, eligible: Eligibility | None = None
    ) -> list[tuple[int, float]]:
        """The first `k` eligible rows by both: `found` is what a search among the eligible found,
        all of it; `history` has rows, oldest first."""
        return mixed(found, *self.shares(history), self.spec.weight, k, eligible)


def mixed(
    found: Scored,
    rows: Rows,
    shares: npt.NDArray[np.float64],
    weight: float,
    k: int,
    eligible: Eligibility | None = None,
) -> list[tuple[int, float]]:
    """`found` and the `rows` with their `shares`, best share first, as one ranking. What `found`
    has comes first among equals."""
    if not len(rows):
        return list(found[:k])
    share = dict(zip(rows.tolist(), shares.tolist(), strict=True))
    model = dict(found)
    # Of the others the share alone decides: these are more of them than can be needed.
    most = k + len(model)
    first = rows[:most].tolist() if eligible is None else eligible.among(rows, most)
    both = list(dict.fromkeys([*model, *first]))
    with np.errstate(divide="ignore"):  # a share of 0 is a logarithm of minus infinity
        counted = np.log([share.get(row, 0.0) for row in both]) + np.log(weight)
    learnt = np.array([model.get(row, -np.inf) for row in both]) + np.log1p(-weight)
    score = np.logaddexp(learnt, counted)
    best = np.argsort(-score, kind="stable")[:k]
    return [(both[i], float(score[i])) for i in best]
