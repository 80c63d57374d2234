"""The blend stage: the weight that validation likes best, and a bundle that blends by it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.blend import Blend, BlendSpec
from model_store.build.blend import Blending, blended, choose_weight
from model_store.build.config import BuildConfig, load_config
from model_store.build.dataset import UserSequence
from model_store.build.evaluate import Case, metrics
from model_store.build.ingest import read_items, read_split
from model_store.build.pipeline import build
from model_store.build.rows import reordered
from model_store.bundle import Bundle
from model_store.errors import BuildError
from model_store.neighbours import Counting, Neighbours
from model_store.store import Store
from service.offline import engine_finder, engine_ranker
from tests.build.test_pipeline import TINY, TINY_MODEL, TINY_TRAIN

N = 50


def cases(rng: np.random.Generator, count: int) -> list[Case]:
    """What comes next stands one item on."""
    starts = rng.integers(N - 2, size=count).tolist()
    return [Case(UserSequence("u", (row, row + 1)), row + 2) for row in starts]


def test_the_better_of_both_gets_the_weight() -> None:
    rng = np.random.default_rng(0)
    walks = [list(range(start, min(N, start + 5))) for start in range(N)]
    table = Neighbours.count(walks, N, Counting(backward=0, reach=1))
    valid = cases(rng, 200)
    settings = Blending(weights=(0.1, 0.9), cases=100)

    def wrong(asked: Sequence[Case]) -> list[list[tuple[int, float]]]:
        return [[((c.target + 7 + i) % N, -0.5 - i) for i in range(10)] for c in asked]

    def right(asked: Sequence[Case]) -> list[list[tuple[int, float]]]:
        return [[(c.target, -0.01)] for c in asked]

    bad = choose_weight(settings, table, wrong, valid)
    good = choose_weight(settings, table, right, valid, exclude_seen=True)
    assert bad[0.9] > bad[0.1]
    assert good[0.1] >= good[0.9] > 0
    # By hand, over the very cases.
    blend = Blend(BlendSpec(weight=0.9), table)
    everyone = choose_weight(Blending(weights=(0.9,), cases=999), table, wrong, valid)
    ranked = blended(wrong, blend)(valid)
    assert everyone[0.9] == metrics(ranked, [case.target for case in valid])["NDCG@10"]


def test_it_needs_cases_to_choose_by() -> None:
    table = Neighbours.count([[0, 1]], N, Counting())
    with pytest.raises(BuildError, match="blend needs validation cases"):
        choose_weight(Blending(), table, lambda _: [], [])


def test_a_build_blends_measures_and_publishes(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    raw = load_config(TINY).model_dump() | {
        "model": TINY_MODEL,
        "train": TINY_TRAIN,
        "blend": {"weights": (0.2, 0.5, 0.8), "keep": 7},
        "neighbours": {"reach": 1, "backward": 0.5},
        "evaluate": {"exclude_seen": True, "sample": 0, "cold": False},
    }
    config = BuildConfig.model_validate(raw)
    bundle = Bundle.load(build(config, Store(tmp_path / "s"), tmp_path / "w", engine_finder))
    record = json.loads((tmp_path / "w/blend/blend.json").read_text())
    assert bundle.blend is not None
    assert bundle.blend.spec.model_dump() == record["spec"]
    scores = {float(weight): score for weight, score in record["scores"].items()}
    assert list(scores) == [0.2, 0.5, 0.8]
    assert scores[bundle.blend.spec.weight] == max(scores.values())
    assert np.diff(bundle.blend.neighbours.first).max() == 7

    found = bundle.manifest.metrics
    assert list(found) == ["popularity", "co-occurrence", "tiny model", "model alone"]
    assert found["tiny model"] != found["model alone"]
    items = read_items(tmp_path / "w/sids")
    test = read_split(tmp_path / "w/ingest", items).test
    ranked = reordered(engine_ranker(bundle, exclude_seen=True), bundle, items)(test)
    expected = metrics(ranked, [case.target for case in test])
    assert found["tiny model"] == pytest.approx(expected, abs=1e-12)
    report = (bundle.path / "report/report.md").read_text()
    assert f"| neighbours | {bundle.blend.spec.weight:g} of the mixture |" in report
