"""The evaluation: every ranker on every test case, in parts; `examination` is the stage.

Writes `metrics.json` with
    overall      by ranker, HR and NDCG at 1, 5 and 10
    history      the same by the length of the history
    popularity   the same by how often the target occurs in what was learnt from
    cold         the same where nothing is known but profile and scene (see `cold`)
    scene        the same by the scene of the case; empty where there are no scenes
    free         share of generated texts that are no SID, where nothing constrains the search
    titles       share of titles that the model writes exactly, if it was trained on titles
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import Field

from model_store.build.evaluate import (
    Case,
    Ranker,
    Split,
    by_bucket,
    by_scene,
    cooccurrence_ranker,
    metrics,
    popularity,
    popularity_ranker,
)
from model_store.build.generation import FreeGeneration
from model_store.build.sasrec import SasRecSettings, sasrec_ranker, train_sasrec
from model_store.build.section import Section
from model_store.bundle import Bundle
from model_store.neighbours import Counting

T = TypeVar("T")

HISTORY = (1, 3, 6, 11, 21)
POPULARITY = (1, 5, 20, 100)


class Evaluation(Section):
    """What is measured beside the rankings of the model."""

    sasrec: SasRecSettings | None = None
    cold: bool = Field(default=True, description="whether the model is also asked cold")
    exclude_seen: bool = Field(
        default=False,
        description="no ranker answers with an item of the history; else each of them may",
    )
    sample: int = Field(
        default=100, ge=0, description="cases, and titles, that are written freely; 0: none"
    )
    seed: int = 20


def baselines(
    split: Split, n_items: int, settings: Evaluation, counting: Counting
) -> dict[str, Ranker]:
    """The rankers that a model has to beat, fitted to what was learnt from."""
    counts, rule = popularity(split.learn, n_items), {"exclude_seen": settings.exclude_seen}
    rankers = {
        "popularity": popularity_ranker(counts, **rule),
        "co-occurrence": cooccurrence_ranker(split.learn, counts, counting, **rule),
    }
    if settings.sasrec:
        model = train_sasrec(split.learn, n_items, settings.sasrec, split.valid, **rule)
        rankers["SASRec"] = sasrec_ranker(model, **rule)
    return rankers


def measure(rankers: Mapping[str, Ranker], split: Split, n_items: int) -> dict[str, Any]:
    """The metrics of each ranker over the test cases, as a whole and in parts."""
    ranked = {name: ranker(split.test) for name, ranker in rankers.items()}
    targets = [case.target for case in split.test]
    counts = popularity(split.learn, n_items)
    lengths = [len(case.user.items) for case in split.test]
    occurrences = [int(counts[target]) for target in targets]
    return {
        "overall": {name: metrics(rows, targets) for name, rows in ranked.items()},
        "history": by_bucket(ranked, targets, lengths, HISTORY),
        "popularity": by_bucket(ranked, targets, occurrences, POPULARITY),
        "scene": by_scene(ranked, split.test),
    }


def write_freely(
    bundle: Bundle, cases: Sequence[Case], settings: Evaluation, *, max_history: int, titles: bool
) -> dict[str, Any]:
    """What the model does without constraints, on a sample of cases of the bundle's own rows."""
    if not settings.sample or not cases:
        return {}
    rng = np.random.default_rng(settings.seed)
    model = FreeGeneration(bundle)
    found: dict[str, Any] = {
        "free": model.invalid_sids(sample(cases, settings.sample, rng), max_history)
    }
    titled = [row for row, title in enumerate(bundle.catalogue.titles) if title]
    if titles and titled:
        found["titles"] = model.right_titles(sample(titled, settings.sample, rng))
    return found


def sample(values: Sequence[T], size: int, rng: np.random.Generator) -> list[T]:
    """At most `size` of the values, in their order."""
    chosen = rng.choice(len(values), min(size, len(values)), replace=False)
    return [values[i] for i in sorted(chosen)]


def write_metrics(found: Mapping[str, Any], folder: Path) -> None:
    (folder / "metrics.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
