"""Cold starts: rankings of users of whom nothing is known but profile and scene.

hidden  the held-out item of each test case, the history hidden: the same question as in the full
        ranking, so the difference is what the history is worth
first   the first item of each test user, as one meets a new user; only where test users were not
        learnt from (split by users), for else their first items were
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from model_store.build.dataset import UserSequence
from model_store.build.evaluate import (
    CUTOFFS,
    Case,
    Ranker,
    Split,
    metrics,
    popularity,
    popularity_ranker,
)


def hidden(cases: Sequence[Case]) -> list[Case]:
    """The same cases without their histories."""
    return [Case(_stranger(case.user, case.user.scene), case.target) for case in cases]


def first(cases: Sequence[Case]) -> list[Case]:
    """The first item of each case's user, in the scene of that item where it is known."""
    return [
        Case(_stranger(user, user.scenes[0] if user.scenes else None), user.items[0])
        for user in (case.user for case in cases)
        if user.items
    ]


def scene_popularity_ranker(sequences: Sequence[UserSequence], n_items: int) -> Ranker:
    """What is popular in the scene of a case; ties, and other scenes, go by popularity overall."""
    overall = popularity(sequences, n_items)
    rows: dict[str | None, list[int]] = defaultdict(list)
    for user in sequences:
        scenes = user.scenes or (user.scene,) * len(user.items)
        for row, scene in zip(user.items, scenes, strict=True):
            rows[scene].append(row)
    best = {
        scene: np.lexsort((-overall, -np.bincount(inside, minlength=n_items)))[: max(CUTOFFS)]
        for scene, inside in rows.items()
        if scene is not None
    }
    [elsewhere] = popularity_ranker(overall)([Case(UserSequence("", ()), 0)])
    ranked = {scene: [int(row) for row in rows] for scene, rows in best.items()}
    return lambda cases: [ranked.get(case.user.scene or "", list(elsewhere)) for case in cases]


def measure_cold(
    name: str, ranker: Ranker, split: Split, n_items: int, *, strangers: bool
) -> dict[str, Any]:
    """HR and NDCG of a model by `hidden` and, with `strangers`, `first`; each beside popularity
    and, where scenes are known, popularity in the scene."""
    rankers: dict[str, Ranker] = {"popularity": popularity_ranker(popularity(split.learn, n_items))}
    if any(user.scene or any(user.scenes) for user in split.learn):
        rankers["popularity in the scene"] = scene_popularity_ranker(split.learn, n_items)
    rankers[name] = ranker
    cases: Mapping[str, Sequence[Case]] = {"hidden": hidden(split.test)}
    if strangers:
        cases = {**cases, "first": first(split.test)}
    return {
        kind: {
            "cases": len(asked),
            "metrics": {
                name: metrics(ranker(asked), [case.target for case in asked])
                for name, ranker in rankers.items()
            },
        }
        for kind, asked in cases.items()
        if asked
    }


def _stranger(user: UserSequence, scene: str | None) -> UserSequence:
    return replace(user, items=(), scene=scene, scenes=())
