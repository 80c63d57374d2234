"""Items over HTTP: put, deleted, refused, and what recommendations make of it."""

from typing import Any

import pytest
import redis
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient

ITEM = {"title": "Veltrix mechanical keyboard", "attributes": {"category": "keyboards"}}


@pytest.fixture
def client(make_client: MakeClient, demo: Bundle) -> TestClient:
    return make_client(bundle=demo.path, max_items=5)


def recommended(client: TestClient, **wanted: Any) -> list[str]:
    response = client.post("/v1/recommendations", json={"k": 200, "beam_width": 512, **wanted})
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def test_an_item_from_its_birth_to_its_end(client: TestClient) -> None:
    made = client.put("/v1/items/new", json=ITEM)
    assert made.status_code == 200
    assert made.json() == {
        "item_id": "new",
        "status": "added",
        "sid": made.json()["sid"],
        "catalogue_version": 1,
    }
    read = client.get("/v1/items/new").json()
    assert (read["title"], read["sid"]) == (ITEM["title"], made.json()["sid"])
    assert read["attributes"]["category"] == "keyboards"
    assert read["attributes"]["price"] is None
    body = {"title": read["title"], "sid": read["sid"], "attributes": read["attributes"]}
    assert client.put("/v1/items/new", json=body).json()["status"] == "unchanged"
    [only] = recommended(client, history=["new"], filter={"item_id": "new"})
    assert only == "new"
    dearer = client.put("/v1/items/new", json={"attributes": {"price": 7}})
    assert dearer.json()["status"] == "changed"
    cheap = {"price": {"lt": 8}, "category": "keyboards"}
    assert "new" in recommended(client, history=["p00001"], filter=cheap)
    assert client.delete("/v1/items/new").status_code == 204
    assert client.delete("/v1/items/new").status_code == 204
    assert client.get("/v1/items/new").status_code == 404
    assert recommended(client, history=["new"], filter={"item_id": "new"}) == []
    metrics = client.get("/metrics").text
    assert "sidrec_catalogue_version 3.0" in metrics
    assert "sidrec_catalogue_items 2600.0" in metrics
    assert "sidrec_catalogue_apply_seconds_count 3.0" in metrics


def test_a_deleted_item_stays_in_the_prompt(client: TestClient) -> None:
    asked = {"history": ["p00001"], "k": 10}
    before = client.post("/v1/recommendations", json=asked).json()
    best = before["items"][0]["item_id"]
    assert best != "p00001"
    client.delete("/v1/items/p00001")
    client.delete(f"/v1/items/{best}")
    answer = client.post("/v1/recommendations", json=asked).json()
    assert (answer["source"], answer["history_used"], answer["unknown_items"]) == ("model", 1, 0)
    # The same prompt: the same scores. Where something has left, a beam may find others too.
    scores = {item["item_id"]: item["score"] for item in before["items"]}
    found = {item["item_id"]: item["score"] for item in answer["items"]}
    assert not {best, "p00001"} & set(found)
    both = sorted(set(scores) & set(found))
    assert len(both) >= 5
    assert [found[i] for i in both] == pytest.approx([scores[i] for i in both], abs=1e-4)
    assert len(answer["items"]) == 10


def test_a_batch(client: TestClient) -> None:
    items = [
        {"item_id": "a", **ITEM},
        {"item_id": "b", "title": ""},
        {"item_id": "a", "attributes": {"price": 1.5}},
        {"item_id": "p00001", "deleted": True},
        {"item_id": "nobody", "deleted": True},
    ]
    answer = client.put("/v1/items", json={"items": items})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["catalogue_version"], body["refused"]) == (2, 1)
    statuses = [item["status"] for item in body["items"]]
    assert statuses == ["added", None, "changed", "deleted", "absent"]
    assert body["items"][1]["error"]["field"] == "items.1.title"
    assert client.get("/v1/items/a").json()["attributes"]["price"] == 1.5
    again = client.put("/v1/items", json={"items": items}).json()
    assert [i["status"] for i in again["items"]] == ["unchanged", None, "unchanged"] + [
        "absent"
    ] * 2
    assert again["catalogue_version"] == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "title"),
        ({"title": " "}, "title"),
        ({"attributes": {"price": 3}}, "title"),
        ({**ITEM, "attributes": {"colour": "red"}}, "attributes.colour"),
        ({**ITEM, "attributes": {"price": "3"}}, "attributes.price"),
        ({**ITEM, "attributes": {"price": True}}, "attributes.price"),
        ({**ITEM, "attributes": {"popularity": 1.5}}, "attributes.popularity"),
        ({**ITEM, "attributes": {"popularity": 2**70}}, "attributes.popularity"),
        ({**ITEM, "attributes": {"brand": ["x"]}}, "attributes.brand"),
        ({**ITEM, "attributes": {"item_id": "other"}}, "attributes.item_id"),
        (
            {**ITEM, "attributes": {"popularity_by_scene": {"home": "x"}}},
            "attributes.popularity_by_scene.home",
        ),
        (
            {**ITEM, "attributes": {"popularity_by_scene": {"attic": 1}}},
            "attributes.popularity_by_scene",
        ),
        ({**ITEM, "sid": "<a_1>"}, "sid"),
        ({**ITEM, "sid": "<a_1><b_2><c_3><d_128>"}, "sid"),
        ({**ITEM, "price": 3}, "price"),
        ({"title": 3}, "title"),
    ],
)
def test_refusals(client: TestClient, body: dict[str, Any], field: str) -> None:
    refused = client.put("/v1/items/new", json=body)
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert client.get("/v1/items/new").status_code == 404


def test_values_that_json_knows_and_text_does_not(client: TestClient) -> None:
    for name, value, field in (
        ("brand", r'"\ud800"', "attributes.brand"),
        ("price", "NaN", "attributes.price"),
        ("price", "1e999", "attributes.price"),
    ):
        content = f'{{"title": "x", "attributes": {{"{name}": {value}}}}}'
        refused = client.put(
            "/v1/items/new", content=content, headers={"Content-Type": "application/json"}
        )
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == field


def test_refusals_of_a_batch(client: TestClient) -> None:
    for body, field in (
        ({"items": []}, "items"),
        ({"items": [{"item_id": f"n{n}", "deleted": True} for n in range(6)]}, "items"),
        ({"items": [{"title": "x"}]}, "items.0.item_id"),
        ({"items": [{"item_id": "x", "deleted": True, "title": "x"}]}, "items.0"),
    ):
        refused = client.put("/v1/items", json=body)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == field


def test_a_bundle_without_a_quantizer_wants_sids(make_client: MakeClient) -> None:
    client = make_client()
    refused = client.put("/v1/items/new", json={"title": "a text"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0] == {
        "field": "sid",
        "message": "bundle tiny 1 has no quantizer, so a new item must bring its SID",
    }
    assert client.put("/v1/items/new", json={"sid": "<a_0><b_1><c_2>"}).status_code == 200


def test_without_redis_changes_are_refused_and_the_rest_goes_on(
    make_client: MakeClient, demo: Bundle
) -> None:
    client = make_client(bundle=demo.path, redis_url="redis://127.0.0.1:1", redis_timeout_ms=200)
    for refused in (
        client.put("/v1/items/new", json=ITEM),
        client.delete("/v1/items/new"),
        client.put("/v1/items", json={"items": [{"item_id": "new", **ITEM}]}),
        client.get("/readyz"),
    ):
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:sidrec:problem:catalogue-unavailable"
        assert refused.headers["retry-after"] == "1"
    assert recommended(client, history=["p00001"])


def test_what_redis_holds_that_is_not_ours(
    make_client: MakeClient, demo: Bundle, redis_url: str
) -> None:
    client = make_client(bundle=demo.path)
    with redis.Redis.from_url(redis_url) as other:
        other.zadd("sidrec:catalogue:{default}:order", {"x": 1})
        other.hset("sidrec:catalogue:{default}:items", "x", "{")
        assert client.put("/v1/items/new", json=ITEM).status_code == 503
        other.delete("sidrec:catalogue:{default}:order")
    assert client.put("/v1/items/new", json=ITEM).status_code == 200
