"""HR@k and NDCG@k over full rankings, and the two baselines that a model has to beat.

A *ranker* turns cases (a user, a history, a held-out target) into ranked catalogue rows. The model
searches through the serving engine; its *finder* is handed in from outside, because the model store
does not know the service.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from model_store.blend import Scored
from model_store.build.dataset import UserSequence
from model_store.bundle import Bundle
from model_store.neighbours import Counting, Neighbours, Voting

CUTOFFS = (1, 5, 10)

T = TypeVar("T")

Buckets = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a user, and the row of the item that came next."""

    user: UserSequence
    target: int


@dataclass(frozen=True, slots=True)
class Split:
    """Sequences to learn from, cases to choose by while learning, cases to judge by at the end."""

    learn: list[UserSequence]
    valid: list[Case]
    test: list[Case]


Ranker = Callable[[Sequence[Case]], Sequence[Sequence[int]]]


Finder = Callable[[Sequence[Case]], Sequence[Scored]]
"""What a search finds for each case: all of it, best first, with the score of its SID."""


class FinderFor(Protocol):
    """Makes a finder of catalogue rows by the bundle's own model, through a serving engine."""

    def __call__(self, bundle: Bundle, *, exclude_seen: bool = False) -> Finder:
        """`exclude_seen` leaves the items of a case's history out of what is found."""


def metrics(ranked: Sequence[Sequence[int]], targets: Sequence[int]) -> dict[str, float]:
    """HR@k, the share of cases with the target among the first k, and NDCG@k, which for one
    target is 1/log2(1 + its rank) or 0."""
    ranks = np.array(
        [
            next((i for i, row in enumerate(rows[: max(CUTOFFS)], 1) if row == target), np.inf)
            for rows, target in zip(ranked, targets, strict=True)
        ]
    )
    found = {f"HR@{k}": float((ranks <= k).mean()) for k in CUTOFFS}
    gain = 1 / np.log2(1 + ranks)
    return found | {f"NDCG@{k}": float(np.where(ranks <= k, gain, 0).mean()) for k in CUTOFFS}


def bucket(value: int, edges: Sequence[int]) -> str:
    """The bucket of a count, as it is shown: edges 1, 5 and 20 make 0, 1–4, 5–19 and 20+."""
    after = next((i for i, edge in enumerate(edges) if value < edge), len(edges))
    low = edges[after - 1] if after else 0
    if after == len(edges):
        return f"{low}+"
    return str(low) if edges[after] - 1 == low else f"{low}–{edges[after] - 1}"


def by_bucket(
    ranked: Mapping[str, Sequence[Sequence[int]]],
    targets: Sequence[int],
    values: Sequence[int],
    edges: Sequence[int],
) -> Buckets:
    """The metrics of each ranking within each bucket of `values`, one of them a case; buckets
    in order, each with its number of `cases` and the `metrics` by ranker."""
    buckets: dict[str, list[int]] = {}
    for i in np.argsort(values, kind="stable"):
        buckets.setdefault(bucket(int(values[i]), edges), []).append(int(i))
    return {name: _part(ranked, targets, inside) for name, inside in buckets.items()}


def by_scene(ranked: Mapping[str, Sequence[Sequence[int]]], cases: Sequence[Case]) -> Buckets:
    """The same of the cases of each scene; none where no case has one."""
    scenes: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        if case.user.scene is not None:
            scenes.setdefault(case.user.scene, []).append(i)
    targets = [case.target for case in cases]
    return {scene: _part(ranked, targets, scenes[scene]) for scene in sorted(scenes)}


def _part(
    ranked: Mapping[str, Sequence[Sequence[int]]], targets: Sequence[int], inside: Sequence[int]
) -> dict[str, Any]:
    return {
        "cases": len(inside),
        "metrics": {
            ranker: metrics([rows[i] for i in inside], [targets[i] for i in inside])
            for ranker, rows in ranked.items()
        },
    }


def in_scenes(
    base: Callable[[Sequence[Case]], Sequence[T]],
    of_scene: Mapping[str, Callable[[Sequence[Case]], Sequence[T]]],
) -> Callable[[Sequence[Case]], Sequence[T]]:
    """Each case by the finder of its scene, and by `base` where the scene has none."""

    def find(cases: Sequence[Case]) -> list[T]:
        found: dict[int, T] = {}
        chosen = [of_scene.get(case.user.scene or "", base) for case in cases]
        for finder in (base, *of_scene.values()):
            mine = [i for i, one in enumerate(chosen) if one is finder]
            found |= zip(mine, finder([cases[i] for i in mine]) if mine else (), strict=True)
        return [found[i] for i in range(len(cases))]

    return find


def popularity(sequences: Sequence[UserSequence], n_items: int) -> npt.NDArray[np.int64]:
    """How often each row occurs: (items,)."""
    rows = [row for user in sequences for row in user.items]
    return np.bincount(np.array(rows, np.int64), minlength=n_items)


def popularity_ranker(counts: npt.NDArray[np.int64], *, exclude_seen: bool = False) -> Ranker:
    """The same list for everybody, with `exclude_seen` less the items of the history."""
    best = [int(row) for row in np.argsort(-counts, kind="stable")]

    def rank(case: Case) -> list[int]:
        seen = set(case.user.items) if exclude_seen else set()
        return list(islice((row for row in best if row not in seen), max(CUTOFFS)))

    return lambda cases: [rank(case) for case in cases]


def cooccurrence_ranker(
    sequences: Sequence[UserSequence],
    counts: npt.NDArray[np.int64],
    counting: Counting | None = None,
    *,
    exclude_seen: bool = False,
) -> Ranker:
    """Item to item: the newest items of a history vote for their neighbours; ties and gaps go by
    popularity."""
    neighbours = Neighbours.count(
        [user.items for user in sequences], len(counts), counting or Counting()
    )
    popular, voting = np.argsort(-counts, kind="stable").tolist(), Voting()

    def rank(case: Case) -> list[int]:
        wanted = neighbours.votes(case.user.items, voting)[0].tolist()
        seen = set(case.user.items) if exclude_seen else set()
        best = [row for row in wanted if row not in seen][: max(CUTOFFS)]
        more = (row for row in popular if row not in seen and row not in best)
        return [*best, *islice(more, max(CUTOFFS) - len(best))]

    return lambda cases: [rank(case) for case in cases]
