import importlib
import math

import numba
import numpy as np
import pytest

from model_store.build.dataset import UserSequence
from model_store.build.evaluate import (
    Case,
    bucket,
    by_bucket,
    cooccurrence_ranker,
    metrics,
    popularity,
    popularity_ranker,
)


def test_metrics_by_hand() -> None:
    found = metrics([[7, 8], [1, 2, 3], list(range(20)), [5]], [7, 3, 15, 6])
    assert found["HR@1"] == 0.25
    assert found["HR@5"] == found["HR@10"] == 0.5
    assert found["NDCG@1"] == 0.25
    assert found["NDCG@10"] == pytest.approx((1 + 1 / math.log2(4)) / 4)


def test_metrics_equal_their_definition_on_random_rankings() -> None:
    rng = np.random.default_rng(0)
    ranked = [rng.permutation(30)[:15].tolist() for _ in range(300)]
    targets = rng.integers(30, size=300).tolist()
    found = metrics(ranked, targets)
    for k in (1, 5, 10):
        gains = [
            1 / math.log2(2 + rows[:k].index(target)) if target in rows[:k] else 0.0
            for rows, target in zip(ranked, targets, strict=True)
        ]
        assert found[f"NDCG@{k}"] == pytest.approx(sum(gains) / 300)
        assert found[f"HR@{k}"] == pytest.approx(sum(g > 0 for g in gains) / 300)


def test_metrics_agree_with_ranx(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled, ranx takes seconds for what plain Python does at once.
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    ranx = importlib.import_module("ranx")
    rng = np.random.default_rng(1)
    ranked = [rng.permutation(40)[: rng.integers(1, 20)].tolist() for _ in range(400)]
    targets = rng.integers(40, size=400).tolist()
    run = {
        str(i): {str(row): 1 / (1 + rank) for rank, row in enumerate(rows)}
        for i, rows in enumerate(ranked)
    }
    qrels = {str(i): {str(target): 1} for i, target in enumerate(targets)}
    names = {f"HR@{k}": f"hit_rate@{k}" for k in (1, 5, 10)}
    names |= {f"NDCG@{k}": f"ndcg@{k}" for k in (1, 5, 10)}
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), list(names.values()))
    ours = metrics(ranked, targets)
    assert set(ours) == set(names)
    for name, value in ours.items():
        assert value == pytest.approx(theirs[names[name]], abs=1e-9)


def test_buckets_are_shown_as_ranges() -> None:
    edges = (1, 5, 20)
    shown = [bucket(n, edges) for n in (0, 1, 4, 5, 19, 20, 999)]
    assert shown == ["0", "1–4", "1–4", "5–19", "5–19", "20+", "20+"]
    assert [bucket(n, (1, 2, 3)) for n in (0, 1, 2, 3)] == ["0", "1", "2", "3+"]


def test_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(2)
    ranked = {name: [rng.permutation(12).tolist() for _ in range(90)] for name in "ab"}
    targets, values = rng.integers(12, size=(2, 90)).tolist()
    parts = by_bucket(ranked, targets, values, (2, 5, 9))
    assert list(parts) == ["0–1", "2–4", "5–8", "9+"]
    for name in "ab":
        for metric, whole in metrics(ranked[name], targets).items():
            weighted = sum(p["cases"] * p["metrics"][name][metric] for p in parts.values())
            assert weighted / 90 == pytest.approx(whole)


SEQUENCES = [UserSequence("a", (0, 1, 2)), UserSequence("b", (0, 1)), UserSequence("c", (3, 2))]


def test_popularity_counts_and_ranks() -> None:
    counts = popularity(SEQUENCES, 15)
    assert counts.tolist() == [2, 2, 2, 1] + [0] * 11
    ranked = popularity_ranker(counts)([Case(SEQUENCES[0], 0)] * 2)
    assert ranked[0] == ranked[1] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    cases = [Case(sequence, 0) for sequence in SEQUENCES]
    unseen = popularity_ranker(counts, exclude_seen=True)(cases)
    assert [rows[:3] for rows in unseen] == [[3, 4, 5], [2, 3, 4], [0, 1, 4]]
    assert all(len(rows) == 10 for rows in unseen)


def test_cooccurrence_by_hand() -> None:
    counts = popularity(SEQUENCES, 15)
    ranker = cooccurrence_ranker(SEQUENCES, counts, exclude_seen=True)
    [after_1] = ranker([Case(UserSequence("u", (1,)), 0)])
    assert after_1[:2] == [0, 2]  # 0 stood beside 1 twice, 2 once
    assert after_1[2] == 3  # nothing left but popularity
    assert 1 not in after_1  # seen
    [after_3_1] = ranker([Case(UserSequence("u", (3, 1)), 0)])
    # 2 gets 1 from item 1 and 0.8 from item 3; 0 gets 2 from item 1.
    assert after_3_1[:2] == [0, 2]
    [free] = cooccurrence_ranker(SEQUENCES, counts)([Case(UserSequence("u", (0, 1)), 0)])
    assert free[:3] == [0, 2, 1]  # 2 votes, 1.8 and 1.6
