"""A bundle that blends, over HTTP: the answers of offline evaluation, under any eligibility."""

import math
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from model_store.blend import Blend
from model_store.build.dataset import UserSequence
from model_store.build.evaluate import Case
from model_store.bundle import Bundle
from service.offline import engine_ranker
from tests.service.conftest import MakeClient
from tests.service.test_api import recommend
from tests.tiny import make_bundle, random_blend, random_items

N = 300


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """SIDs name several items, and a third of the items has no neighbours."""
    items = random_items(N, (4, 4, 4), extra_share=0.1)
    return make_bundle(tmp_path_factory.mktemp("blend"), items, blend=random_blend(N, weight=0.4))


@pytest.fixture
def client(make_client: MakeClient, bundle: Bundle) -> TestClient:
    return make_client(engine="torch", threads=1, bundle=bundle.path)


def histories() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(N, size=n).tolist() for n in (1, 1, 2, 3, 5, 9, 14, 20) for _ in range(3)]


@pytest.mark.parametrize("seen", ["nothing", "history"])
def test_http_answers_as_offline_evaluation(client: TestClient, bundle: Bundle, seen: str) -> None:
    ranker = engine_ranker(bundle, exclude_seen=seen == "history")
    offline = ranker([Case(UserSequence("u", tuple(history)), 0) for history in histories()])
    ids = bundle.catalogue.item_ids
    for history, rows in zip(histories(), offline, strict=True):
        asked = {"history": [ids[row] for row in history], "exclude_seen": seen}
        answer = recommend(client, k=10, **asked)
        assert answer["source"] == "model"
        assert [item["item_id"] for item in answer["items"]] == [ids[row] for row in rows]


def test_it_is_the_mixture_of_both(client: TestClient, bundle: Bundle) -> None:
    """Of all items, so that nothing is left out by a search."""
    blend = bundle.blend
    assert isinstance(blend, Blend)
    ids, row_of = bundle.catalogue.item_ids, bundle.catalogue.row_of
    history = ["item-1", "item-7", "item-30"]
    brand = {"brand": {"in": ["brand-0", "brand-1"]}}
    rows, shares = blend.shares([row_of[item] for item in history])
    share = dict(zip((ids[row] for row in rows), shares.tolist(), strict=True))
    wide = {"k": 200, "beam_width": 200, "exclude": ["item-5"], "explain": True}
    answer = recommend(client, history=history, filter=brand, **wide)
    found = {item["item_id"]: item for item in answer["items"]}
    assert len(found) == answer["eligible_items"] == 119
    assert any(share.get(item, 0) > 0 for item in found)
    for item_id, item in found.items():
        model = math.exp(sum(level["log_probability"] for level in item["levels"]))
        mixture = 0.6 * model + 0.4 * share.get(item_id, 0)
        assert item["score"] == pytest.approx(math.log(mixture), abs=1e-4)
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_neighbours_that_no_beam_has_are_found(client: TestClient, bundle: Bundle) -> None:
    answer = recommend(client, k=10, beam_width=10, history=["item-1"], explain=True)
    counted = [item for item in answer["items"] if "levels" not in item]
    assert counted
    assert all(item["source"] == "model" and item["score"] < 0 for item in counted)


def test_a_history_without_neighbours_is_answered_by_the_model(
    make_client: MakeClient, client: TestClient, bundle: Bundle, tmp_path: Path
) -> None:
    items = random_items(N, (4, 4, 4), extra_share=0.1)
    plain = make_client(
        engine="torch", threads=1, bundle=make_bundle(tmp_path, items, name="plain").path
    )
    for history in (["item-290"], ["item-250", "item-299"]):
        one, other = (recommend(c, k=10, history=history)["items"] for c in (client, plain))
        assert one == other


def test_the_live_catalogue_moves_rows_and_the_neighbours_follow(client: TestClient) -> None:
    asked = {"history": ["item-1", "item-7"], "k": 10, "beam_width": 100}
    before = recommend(client, **asked)["items"]
    gone = before[0]["item_id"]
    assert client.delete(f"/v1/items/{gone}").status_code == 204
    for name in ("new-1", "new-2"):  # new rows: those behind them move
        item = {"title": "new", "sid": "<a_0><b_0><c_0>", "attributes": {}}
        assert client.put(f"/v1/items/{name}", json=item).status_code == 200
    after = recommend(client, **asked)["items"]
    scores = {item["item_id"]: item["score"] for item in after}
    assert gone not in scores
    for item in before[1:]:
        assert scores[item["item_id"]] == pytest.approx(item["score"], abs=1e-4)
