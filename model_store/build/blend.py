"""The blend stage: neighbours counted over what was learnt from, and how much they are to count
beside the model, chosen on the validation cases.

Writes `neighbours.parquet`, whose rows are those of the items file, and `blend.json`: `spec`, and
the validation NDCG@10 by weight.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from rich.console import Console
from rich.table import Table

from model_store.blend import Blend, BlendSpec, Scored
from model_store.build.evaluate import CUTOFFS, Case, Finder, Ranker, Split, metrics
from model_store.build.evaluation import sample
from model_store.build.section import Section
from model_store.errors import BuildError
from model_store.neighbours import NEIGHBOURS, Counting, Neighbours, Voting
from model_store.sid import Eligibility

_RECORD = "blend.json"


class Blending(Section):
    """Whether and how the bundle blends its model with its neighbours."""

    keep: int = Field(default=100, ge=1, description="neighbours of an item, the strongest")
    voting: Voting = Voting()
    weights: tuple[float, ...] = Field(
        default=tuple(round(0.1 * n, 1) for n in range(1, 10)), min_length=1
    )
    cases: int = Field(default=2000, ge=1, description="validation cases that choose the weight")
    seed: int = 20


def counted(split: Split, n_items: int, counting: Counting, most: int) -> Neighbours:
    """The table of a bundle, over what was learnt from."""
    return Neighbours.count([u.items for u in split.learn], n_items, counting).strongest(most)


def choose_weight(
    settings: Blending,
    neighbours: Neighbours,
    finder: Finder,
    valid: Sequence[Case],
    *,
    exclude_seen: bool = False,
) -> dict[float, float]:
    """NDCG@10 by weight; `neighbours`, `finder` and the cases speak of the same rows. One search
    serves all weights. Raises `BuildError` without validation cases."""
    if not valid:
        raise BuildError("blend needs validation cases: see split.kind and valid_share")
    cases = sample(valid, settings.cases, np.random.default_rng(settings.seed))
    targets, found = [case.target for case in cases], finder(cases)

    def score(weight: float) -> float:
        blend = Blend(BlendSpec(weight=weight, **vars(settings.voting)), neighbours)
        ranker = blended(lambda _: found, blend, exclude_seen=exclude_seen)
        return metrics(ranker(cases), targets)["NDCG@10"]

    return {weight: score(weight) for weight in settings.weights}


def blended(finder: Finder, blend: Blend | None, *, exclude_seen: bool = False) -> Ranker:
    """What a bundle with this `blend` shows first of what a search finds."""

    def rank(case: Case, found: Scored) -> list[int]:
        if blend is None:
            return [row for row, _ in found[: max(CUTOFFS)]]
        eligible = Eligibility.of(excluded=case.user.items) if exclude_seen else None
        best = blend.ranked(found, case.user.items, max(CUTOFFS), eligible)
        return [row for row, _ in best]

    return lambda cases: [rank(*pair) for pair in zip(cases, finder(cases), strict=True)]


def write_blend(
    folder: Path, settings: Blending, neighbours: Neighbours, scores: dict[float, float]
) -> None:
    """`scores` is NDCG@10 by weight; the best weight is taken."""
    spec = BlendSpec(weight=max(scores, key=lambda w: scores[w]), **vars(settings.voting))
    neighbours.write(folder / NEIGHBOURS)
    record = {"spec": spec.model_dump(), "scores": {str(w): s for w, s in scores.items()}}
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")


def read_blend(folder: Path) -> Blend:
    """What the stage left in its folder, over the rows of the items file."""
    record: dict[str, Any] = json.loads((folder / _RECORD).read_text())
    return Blend(BlendSpec.model_validate(record["spec"]), Neighbours.read(folder / NEIGHBOURS))


def show(scores: dict[float, float], console: Console) -> None:
    table = Table("weight", "NDCG@10", title="neighbours beside the model, validation")
    for weight, score in scores.items():
        table.add_row(f"{weight:g}", f"{score:.4f}")
    console.print(table)
