"""Real SIDs from outside the repository: real collisions, real prefixes. Skips where they are not.

The data lies beside a checkout (`../shared/data`) and is never committed.
"""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from bench.hugging_face import HuggingFaceSearch
from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.app import create_app
from service.engine import Query, create_engine
from service.prompt import PromptBuilder
from service.ranking import best_items
from service.settings import Settings
from tests.check_eligibility import check
from tests.engine.reference import assert_same, beams_of
from tests.tiny import make_bundle

DATA = Path(__file__).parents[2] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")


def real_bundle(name: str, folder: Path) -> Bundle:
    """The catalogue of a data set, under a model of random weights."""
    with gzip.open(DATA / name / "items.jsonl.gz") as lines:
        items: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return make_bundle(folder, items, name=name)


def test_beauty_agrees_with_hugging_face(tmp_path: Path) -> None:
    bundle = real_bundle("beauty", tmp_path)
    assert len(bundle.catalogue) == 12_101
    builder, rng = PromptBuilder(bundle), np.random.default_rng(5)
    prompts = [
        builder.build(rng.integers(12_101, size=int(rng.integers(1, 30))).tolist())[0]
        for _ in range(60)
    ]
    reference = HuggingFaceSearch.of(bundle)
    with create_engine("torch", bundle) as engine:
        answers = engine.search_batch([Query(prompt, 20) for prompt in prompts])
    for prompt, answer in zip(prompts, answers, strict=True):
        assert_same(beams_of(answer), reference.search(prompt, 20))


def test_beauty_over_http_shows_nothing_seen_and_all_of_few(tmp_path: Path, redis_url: str) -> None:
    """Two hundred users; `python -m tests.check_eligibility` asks for any number of them."""
    bundle = real_bundle("beauty", tmp_path)
    settings = Settings(bundle=bundle.path, redis_url=redis_url, redis_timeout_ms=10_000, threads=1)
    with TestClient(create_app(settings)) as client:
        check(client, DATA / "beauty", users=200)


@pytest.fixture(scope="module")
def yelp(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """20,033 items on 19,201 SIDs, one of them shared by 65."""
    return real_bundle("yelp", tmp_path_factory.mktemp("yelp"))


def test_yelp_gives_a_hundred_distinct_items(yelp: Bundle, redis_url: str) -> None:
    ids = yelp.catalogue.item_ids
    settings = Settings(bundle=yelp.path, redis_url=redis_url, redis_timeout_ms=10_000)
    with TestClient(create_app(settings)) as client:
        for history in (ids[:3], ids[5000:5010], ids[-1:]):
            answer = client.post("/v1/recommendations", json={"history": history, "k": 100}).json()
            items = [item["item_id"] for item in answer["items"]]
            assert answer["source"] == "model"
            assert len(items) == len(set(items)) == 100
            assert set(items) <= set(ids)


def test_yelps_most_crowded_sid_names_all_of_its_items(yelp: Bundle) -> None:
    [(sid, count)] = Counter(yelp.sids).most_common(1)
    assert count == 65
    mask = np.array([each == sid for each in yelp.sids])
    prompt, _ = PromptBuilder(yelp).build([0, 1, 2])
    with create_engine("torch", yelp) as engine:
        [[beam]] = engine.search_batch([Query(prompt, 20, Eligibility.of(mask))])
    rows = [row for row, _ in best_items([beam], 100)]
    assert [yelp.sids[row] for row in rows] == [sid] * 65
