"""The HTTP surface: what each route answers. Refusals are in `test_refusals.py`."""

import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient

HISTORY = ["item-1", "item-2", "item-3"]


def event(number: int, **more: Any) -> dict[str, Any]:
    defaults = {
        "event_id": f"e{number}",
        "user_id": "ann",
        "item_id": f"item-{number}",
        "timestamp": 1_750_000_000 + number,
    }
    return defaults | more


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/recommendations", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_recommendation(client: TestClient, bundle: Bundle) -> None:
    answer = recommend(client, user_id="ann", history=[*HISTORY, "gone"], k=5)
    assert list(answer) == [
        "request_id",
        "user_id",
        "bundle",
        "source",
        "reason",
        "items",
        "history_used",
        "unknown_items",
        "eligible_items",
        "seen_items",
        "timing_ms",
    ]
    assert answer["user_id"] == "ann"
    assert answer["bundle"] == {"name": "tiny", "version": 1}
    assert (answer["source"], answer["reason"]) == ("model", None)
    assert (answer["history_used"], answer["unknown_items"]) == (3, 1)
    assert set(answer["timing_ms"]) == {
        "history",
        "eligibility",
        "prompt",
        "search",
        "items",
        "total",
    }
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3, 4, 5]
    for item in answer["items"]:
        row = bundle.catalogue.row_of[item["item_id"]]
        assert item["title"] == bundle.catalogue.titles[row]
        assert item["sid"] == bundle.sids[row]
        assert item["score"] < 0


def test_the_real_engine_answers(make_client: MakeClient) -> None:
    client = make_client(engine="torch", threads=1)
    answer = recommend(client, history=HISTORY, k=100, beam_width=20)
    scores = [item["score"] for item in answer["items"]]
    assert answer["source"] == "model"
    assert len({item["item_id"] for item in answer["items"]}) == 100
    assert scores == sorted(scores, reverse=True)


def test_a_filter_and_exclusions(client: TestClient, bundle: Bundle) -> None:
    client.post("/v1/events", json=[event(n, type="purchase") for n in (5, 10, 11)])
    wanted = {"brand": {"in": ["brand-0", "brand-1"]}, "price": {"gte": 20, "lt": 80.5}}
    may = {
        item["item_id"]
        for item in bundle.catalogue.table.to_pylist()
        if item["brand"] in ("brand-0", "brand-1") and 20 <= item["price"] < 80.5
    }
    out = sorted(may)[:3]
    answer = recommend(client, user_id="ann", k=200, filter=wanted, exclude=out)
    bought = {"item-5", "item-10", "item-11"}
    assert {item["item_id"] for item in answer["items"]} == may - set(out) - bought
    assert answer["source"] == "model"
    assert answer["eligible_items"] == len(answer["items"]) < 200
    assert answer["seen_items"] == 3
    nothing = recommend(client, history=HISTORY, filter={"price": {"gt": 5, "lt": 4}})
    assert (nothing["items"], nothing["eligible_items"]) == ([], 0)
    assert nothing["reason"] == "nothing_eligible"


def test_rules_hold_for_every_answer(make_client: MakeClient, bundle: Bundle) -> None:
    client = make_client(rules='{"price": {"gt": 30}}', exclude_seen="nothing")
    price = {item["item_id"]: item["price"] for item in bundle.catalogue.table.to_pylist()}
    for body in ({}, {"history": HISTORY}, {"history": HISTORY, "filter": {"price": {"lt": 60}}}):
        answer = recommend(client, k=50, **body)
        assert len(answer["items"]) == 50
        assert all(price[item["item_id"]] > 30 for item in answer["items"])


def test_defaults(client: TestClient) -> None:
    answer = recommend(client)
    assert len(answer["items"]) == 10
    assert (answer["user_id"], answer["source"]) == (None, "popular")
    assert answer["reason"] == "no_history"
    assert {item["score"] for item in answer["items"]} == {None}


def test_events_become_the_history_of_the_next_answer(client: TestClient) -> None:
    batch = {"events": [event(n) for n in (1, 2, 3)]}
    assert client.post("/v1/events", json=batch).json() == {"accepted": 3, "duplicates": 0}
    assert client.post("/v1/events", json=batch).json() == {"accepted": 0, "duplicates": 3}
    stored = recommend(client, user_id="ann")
    assert (stored["source"], stored["history_used"]) == ("model", 3)
    assert stored["items"] == recommend(client, history=HISTORY)["items"]


def test_a_bare_list_of_events(client: TestClient) -> None:
    answer = client.post("/v1/events", json=[event(1), event(2, user_id="bob")])
    assert answer.json() == {"accepted": 2, "duplicates": 0}


def test_a_history_is_read_in_order_and_removed(client: TestClient) -> None:
    client.post("/v1/events", json=[event(2), event(1, type="buy"), event(3, item_id="gone")])
    answer = client.get("/v1/users/ann/history").json()
    assert answer["user_id"] == "ann"
    assert answer["events"][0] == {
        "event_id": "e1",
        "item_id": "item-1",
        "type": "buy",
        "timestamp": "2025-06-15T15:06:41Z",
    }
    assert [found["event_id"] for found in answer["events"]] == ["e1", "e2", "e3"]
    assert answer["events"][1]["type"] == "click"
    for _ in range(2):
        response = client.delete("/v1/users/ann")
        assert (response.status_code, response.content) == (204, b"")
    assert client.get("/v1/users/ann/history").json() == {"user_id": "ann", "events": []}


@pytest.mark.parametrize(
    "user_id",
    ["a/b", "a b", "用户", "%", "a\0b", "?x=1#y", "{}", "a/history", "a/profile", "a\nb", "a\n"],
)
def test_any_text_is_a_user_id(client: TestClient, user_id: str) -> None:
    path = f"/v1/users/{quote(user_id, safe='')}"
    assert client.post("/v1/events", json=[event(1, user_id=user_id)]).json()["accepted"] == 1
    assert client.post("/v1/events", json=[event(1, user_id="other")]).json()["accepted"] == 1
    answer = client.get(f"{path}/history").json()
    assert (answer["user_id"], len(answer["events"])) == (user_id, 1)
    assert client.delete(path).status_code == 204
    assert client.get(f"{path}/history").json()["events"] == []
    assert len(client.get("/v1/users/other/history").json()["events"]) == 1


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("2025-06-01T12:00:00", "2025-06-01T12:00:00Z"),
        ("2025-06-01T12:00:00Z", "2025-06-01T12:00:00Z"),
        ("2025-06-01T12:00:00.123456+08:00", "2025-06-01T04:00:00.123456Z"),
        (1_748_779_200, "2025-06-01T12:00:00Z"),
        (1_748_779_200.5, "2025-06-01T12:00:00.500000Z"),
        (1_748_779_200_123, "2025-06-01T12:00:00.123000Z"),
        (0, "1970-01-01T00:00:00Z"),
    ],
)
def test_timestamps(client: TestClient, given: Any, read: str) -> None:
    assert client.post("/v1/events", json=[event(1, timestamp=given)]).status_code == 200
    [found] = client.get("/v1/users/ann/history").json()["events"]
    assert found["timestamp"] == read


def test_an_item(client: TestClient, bundle: Bundle) -> None:
    row = bundle.catalogue.row_of["item-7"]
    answer = client.get("/v1/items/item-7").json()
    assert (answer["item_id"], answer["title"]) == ("item-7", "Title 7 标题")
    assert answer["sid"] == bundle.sids[row]
    assert set(answer["attributes"]) == {"brand", "price", "popularity"}
    assert answer["attributes"]["brand"] == "brand-2"


def test_profile_and_scene(make_client: MakeClient, scene_bundle: Bundle) -> None:
    client = make_client(bundle=scene_bundle.path, engine="torch")
    asks = [("old", "home"), ("young", "home"), ("old", "cart")]
    answers = [
        recommend(client, history=HISTORY, profile={"age": age, "shoe": "43"}, scene=scene)
        for age, scene in asks
    ]
    scores = {tuple(item["score"] for item in answer["items"]) for answer in answers}
    assert len(scores) == 3
    popular = recommend(client, scene="home", k=2)
    assert (popular["source"], popular["reason"]) == ("popular_in_scene", "no_history")
    assert [item["item_id"] for item in popular["items"]] == ["item-59", "item-58"]
    refused = client.post("/v1/recommendations", json={"scene": "attic"})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "scene", "message": "must be one of: home, cart"}]


def test_a_profile_is_put_read_replaced_and_forgotten(
    make_client: MakeClient, scene_bundle: Bundle
) -> None:
    # Scores are compared: a prompt that the engine remembers is summed up in another order.
    client = make_client(
        bundle=scene_bundle.path, engine="torch", engine_options={"prefix_bytes": 0}
    )
    assert client.get("/v1/users/ann/profile").json() == {"user_id": "ann", "profile": {}}
    client.post("/v1/events", json=[event(n) for n in (1, 2)])

    def put(**profile: str) -> None:
        answer = client.put("/v1/users/ann/profile", json={"profile": profile})
        assert answer.json() == {"user_id": "ann", "profile": profile}
        assert client.get("/v1/users/ann/profile").json() == answer.json()

    def items(**body: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = recommend(client, scene="home", **body)["items"]
        return found

    unknown = items(user_id="ann")
    put(age="old")
    old = items(user_id="ann")
    assert old == items(history=["item-1", "item-2"], profile={"age": "old"}) != unknown
    # It joins a history that is sent, and what is sent of it wins.
    assert items(user_id="ann", history=["item-1", "item-2"]) == old
    young = items(user_id="ann", profile={"age": "young"})
    assert young == items(history=["item-1", "item-2"], profile={"age": "young"}) != old
    put(age="young")
    assert items(user_id="ann") == young
    put()
    assert items(user_id="ann") == unknown
    put(age="old")
    assert client.delete("/v1/users/ann").status_code == 204
    assert client.get("/v1/users/ann/profile").json() == {"user_id": "ann", "profile": {}}


def test_what_is_clicked_in_a_scene_gets_popular_there(
    make_client: MakeClient, scene_bundle: Bundle
) -> None:
    client = make_client(
        bundle=scene_bundle.path, popular_refresh_ms=10, popular_weights={"impression": 0}
    )
    now = datetime.now(UTC).isoformat()
    batch = [
        event(1, timestamp=now, item_id="item-7", scene="home"),
        event(2, timestamp=now, item_id="item-7", scene="home"),
        event(3, timestamp=now, item_id="item-8", scene="home"),
        event(4, timestamp=now, item_id="item-9"),
        event(5, timestamp=now, item_id="item-9", scene="a scene of tomorrow"),
        event(6, timestamp=now, item_id="item-9", scene="cart"),
        event(7, timestamp=now, item_id="not in the bundle", scene="home"),
        *(event(8 + n, timestamp=now, item_id="item-5", type="impression") for n in range(9)),
    ]
    for _ in range(3):  # only what is new counts
        assert client.post("/v1/events", json=batch).status_code == 200
    popularity = client.app_state["service"].popularity
    end = time.monotonic() + 10
    while not popularity.top("home"):
        assert time.monotonic() < end
    assert dict(popularity.top(None)) == pytest.approx(
        {"item-7": 2, "item-8": 1, "item-9": 3, "not in the bundle": 1}, rel=1e-3
    )
    home = recommend(client, scene="home", k=4)
    assert [item["item_id"] for item in home["items"]] == ["item-7", "item-8", "item-59", "item-58"]
    cart = recommend(client, scene="cart", k=2)
    assert [item["item_id"] for item in cart["items"]] == ["item-9", "item-0"]
    overall = recommend(client, k=3)
    assert [item["item_id"] for item in overall["items"]] == ["item-9", "item-7", "item-8"]
    assert {item["source"] for item in home["items"]} == {"popular_in_scene"}
    assert {item["source"] for item in overall["items"]} == {"popular"}


def test_an_engine_that_fails_falls_back(client: TestClient) -> None:
    engine = client.app_state["service"].holder.current.engine
    engine.fails = True
    answer = recommend(client, history=HISTORY)
    assert (answer["source"], answer["reason"]) == ("popular", "engine_error")
    assert client.get("/readyz").status_code == 200
    engine.close()
    answer = recommend(client, history=HISTORY)
    assert (answer["source"], answer["reason"]) == ("popular", "engine_dead")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert client.get("/livez").json() == {"status": "alive"}


def test_health(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "bundle": {"name": "tiny", "version": 1},
        "redis": "ok",
    }


@pytest.mark.parametrize("sent", ["abc", "A.b_c-1", "x" * 128])
def test_a_request_id_is_taken_over(client: TestClient, sent: str) -> None:
    response = client.post("/v1/recommendations", json={}, headers={"X-Request-ID": sent})
    assert response.headers["X-Request-ID"] == response.json()["request_id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a\tb", 'a"b', "é", "a\n"])
def test_a_strange_request_id_is_replaced(client: TestClient, sent: str) -> None:
    headers = {"X-Request-ID": sent.encode("latin-1")}
    response = client.get("/nowhere", headers=headers)  # type: ignore[arg-type]
    made = response.headers["X-Request-ID"]
    assert made == response.json()["request_id"]
    assert len(made) == 32


def test_documentation(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/recommendations",
        "/v1/recommendations/batch",
        "/v1/search",
        "/v1/items/{item_id}/similar",
        "/v1/items/{item_id}/describe",
        "/v1/events",
        "/v1/users/{user_id}/history",
        "/v1/users/{user_id}/profile",
        "/v1/users/{user_id}",
        "/v1/items/{item_id}",
        "/v1/items",
        "/v1/models",
        "/v1/models/rollback",
        "/v1/models/{name}/{version}",
        "/v1/models/{name}/{version}/activate",
        "/v1/models/{name}/{version}/warm-up",
        "/v1/experiments",
        "/v1/experiments/{name}",
        "/v1/experiments/{name}/stop",
        "/v1/experiments/{name}/users/{user_id}",
        "/v1/experiments/{name}/report",
        "/v1/experiments/{name}/report.html",
        "/v1/bundle",
        "/livez",
        "/readyz",
        "/metrics",
    }
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"]


def test_a_method_that_is_not_there(client: TestClient) -> None:
    refused = client.patch("/v1/items/item-1")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET, PUT")
    assert refused.headers["content-type"] == "application/problem+json"
