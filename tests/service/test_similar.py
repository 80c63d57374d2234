"""Similar items: the model asked with one item alone, which is not among the answers."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient
from tests.service.test_api import event, recommend
from tests.service.test_refusals import refused


def similar(client: TestClient, item_id: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/v1/items/{item_id}/similar", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize("number", [0, 7, 250])
def test_as_a_user_with_this_item_alone(client: TestClient, bundle: Bundle, number: int) -> None:
    item = f"item-{number}"
    answer = similar(client, item, k=50)
    as_user = recommend(client, history=[item], k=50, exclude=[item])
    assert answer["items"] == as_user["items"]
    assert (answer["source"], answer["history_used"]) == ("model", 1)
    assert item not in {found["item_id"] for found in answer["items"]}
    assert answer["eligible_items"] == len(bundle.catalogue) - 1


def test_more_may_be_excluded_and_explained(client: TestClient) -> None:
    first = [item["item_id"] for item in similar(client, "item-7")["items"]]
    answer = similar(client, "item-7", exclude=first[:3], explain=True)
    ids = [item["item_id"] for item in answer["items"]]
    assert not {"item-7", *first[:3]} & set(ids)
    assert all(item["levels"] for item in answer["items"])


def test_a_filter(client: TestClient, bundle: Bundle) -> None:
    answer = similar(client, "item-7", k=200, filter={"brand": "brand-2"})
    assert {item["item_id"] for item in answer["items"]} == {
        f"item-{n}" for n in range(2, 300, 5) if n != 7
    }
    response = client.post("/v1/items/item-7/similar", json={"filter": {"colour": "red"}})
    refused(response, 422, "filter.colour")


def test_in_a_scene(make_client: MakeClient, scene_bundle: Bundle) -> None:
    client = make_client(bundle=scene_bundle.path)
    scores = [
        [item["score"] for item in similar(client, "item-7", **scene)["items"]]
        for scene in ({"scene": "home"}, {"scene": "cart"}, {})
    ]
    assert len({tuple(s) for s in scores}) == 3
    refused(client.post("/v1/items/item-7/similar", json={"scene": "moon"}), 422, "scene")


def test_an_engine_in_trouble_leaves_popular_items_but_this_one(client: TestClient) -> None:
    [top] = recommend(client, k=1)["items"]
    client.app_state["service"].holder.current.engine.fails = True
    answer = similar(client, top["item_id"])
    assert (answer["source"], answer["reason"]) == ("popular", "engine_error")
    assert top["item_id"] not in {item["item_id"] for item in answer["items"]}


def test_refusals(client: TestClient) -> None:
    refused(client.post("/v1/items/gone/similar", json={}), 404)
    refused(client.post("/v1/items/item-7/similar", json={"k": 0}), 422, "k")
    refused(client.post("/v1/items/item-7/similar", json={"user_id": "ann"}), 422, "user_id")
    refused(client.post("/v1/items/item-7/similar"), 422, "")
    client.post("/v1/events", json=[event(1)])


def test_an_id_with_slashes(client: TestClient) -> None:
    refused(client.post("/v1/items/a/similar/similar", json={}), 404)
