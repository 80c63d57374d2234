"""What the service refuses: each with its status, its media type and the field at fault."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from service.engine.fake import FakeEngine
from service.redis_server import EmbeddedRedis
from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, event, recommend

JSON = {"Content-Type": "application/json"}


def refused(response: Any, status: int, *fields: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "request_id"} <= set(body)
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert [error["field"] for error in body.get("errors", [])] == list(fields)
    return body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": 201}, "k"),
        ({"k": "10"}, "k"),
        ({"k": 1.5}, "k"),
        ({"k": True}, "k"),
        ({"k": None}, "k"),
        ({"beam_width": 0}, "beam_width"),
        ({"beam_width": 513}, "beam_width"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"history": "item-1"}, "history"),
        ({"history": ["item-1", ""]}, "history.1"),
        ({"history": ["item-1", None]}, "history.1"),
        ({"history": ["\udfff"]}, "history.0"),
        ({"history": ["item-1"] * 201}, "history"),
        ({"profile": {"age": 7}}, "profile.age"),
        ({"profile": {"age": "x" * 257}}, "profile.age"),
        ({"profile": {"x" * 65: "y"}}, "profile." + "x" * 65),
        ({"profile": {str(n): "x" for n in range(33)}}, "profile"),
        ({"profile": []}, "profile"),
        ({"scene": ""}, "scene"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": -5}, "deadline_ms"),
        ({"deadline_ms": 1.5}, "deadline_ms"),
        ({"deadline_ms": "100"}, "deadline_ms"),
        ({"deadline_ms": 600_001}, "deadline_ms"),
        ({"scene": "x" * 65}, "scene"),
        ({"exclude": "item-1"}, "exclude"),
        ({"exclude": ["item-1", 7]}, "exclude.1"),
        ({"exclude": ["item-1"] * 1001}, "exclude"),
        ({"exclude_seen": "everything"}, "exclude_seen"),
        ({"exclude_seen": True}, "exclude_seen"),
        ({"filter": []}, "filter"),
        ({"filter": {"colour": "red"}}, "filter.colour"),
        ({"filter": {"price": "cheap"}}, "filter.price.eq"),
        ({"filter": {"and": [{}, {"price": {"gte": "3"}}]}}, "filter.and.1.price.gte"),
        ({"filter": {"or": [{"brand": {"lt": 3}}]}}, "filter.or.0.brand.lt"),
        ({"filter": {"brand": {"in": ["A"] * 1001}}}, "filter.brand.in"),
        ({"filter": {f"a{n}": 1 for n in range(65)}}, "filter"),
        ({"filter": {"x" * 5000: 1}}, ("filter." + "x" * 5000)[:200]),
        ({"filter": {"\ud800": 1}}, "filter"),
        ({"kk": 3}, "kk"),
        ({"\ud800": 3}, ""),
        ({"profile": {"\ud800": "x"}}, "profile.\ufffd\ufffd\ufffd"),
        ({"x" * 5000: 3}, "x" * 200),
        ([], ""),
        ("text", ""),
        (None, ""),
    ],
)
def test_recommendations_that_cannot_be_used(client: TestClient, body: Any, field: str) -> None:
    response = client.post("/v1/recommendations", content=json.dumps(body), headers=JSON)
    problem = refused(response, 422, field)
    assert problem["type"] == "urn:sidrec:problem:invalid-input"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([event(1, event_id="")], "events.0.event_id"),
        ([event(1), event(2, user_id="")], "events.1.user_id"),
        ([event(1, user_id="x" * 129)], "events.0.user_id"),
        ([event(1, item_id="\ud800")], "events.0.item_id"),
        ([event(1, type="a b")], "events.0.type"),
        ([event(1, type="x" * 33)], "events.0.type"),
        ([event(1, colour="red")], "events.0.colour"),
        ([event(1, scene="")], "events.0.scene"),
        ([event(1, scene="x" * 65)], "events.0.scene"),
        ([event(1, timestamp="yesterday")], "events.0.timestamp"),
        ([event(1, timestamp=None)], "events.0.timestamp"),
        ([event(1, timestamp="1750000000")], "events.0.timestamp"),
        ([event(1, timestamp=" 1.5e9")], "events.0.timestamp"),
        ([event(1, timestamp=float("nan"))], "events.0.timestamp"),
        ([event(1, timestamp=float("inf"))], "events.0.timestamp"),
        ([event(1, timestamp=10**300)], "events.0.timestamp"),
        ([event(1, timestamp=-(10**300))], "events.0.timestamp"),
        ([event(1, timestamp="0001-01-01T00:00:00+14:00")], "events.0.timestamp"),
        ([event(1, timestamp="9999-12-31T23:59:59-12:00")], "events.0.timestamp"),
        ([], "events"),
        ({"events": []}, "events"),
        ({"events": [event(n) for n in range(1001)]}, "events"),
        ({"event": event(1)}, "events|event"),
        (7, ""),
    ],
)
def test_events_that_cannot_be_used(client: TestClient, body: Any, field: str) -> None:
    response = client.post("/v1/events", content=json.dumps(body), headers=JSON)
    refused(response, 422, *field.split("|"))
    assert client.get("/v1/users/ann/history").json()["events"] == []


@pytest.mark.parametrize(
    ("profile", "field", "reason"),
    [
        ({"shoe": "43"}, "shoe", "is no field of the bundle's profile; it knows: age"),
        ({"age": "old", "Age": "old"}, "Age", "it knows: age"),
        ({"age": "39"}, "age", "must be one of: young, old"),
        ({"age": ""}, "age", "must be one of: young, old"),
    ],
)
def test_profiles_that_the_bundle_does_not_know(
    make_client: MakeClient, scene_bundle: Bundle, profile: dict[str, str], field: str, reason: str
) -> None:
    client = make_client(bundle=scene_bundle.path)
    response = client.put("/v1/users/ann/profile", json={"profile": profile})
    problem = refused(response, 422, f"profile.{field}")
    assert reason in problem["detail"]
    assert client.get("/v1/users/ann/profile").json()["profile"] == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "profile"),
        ({"profile": None}, "profile"),
        ({"profile": ["age"]}, "profile"),
        ({"profile": {"age": 7}}, "profile.age"),
        ({"profile": {"age": "x" * 257}}, "profile.age"),
        ({"profile": {"x" * 65: "y"}}, "profile." + "x" * 65),
        ({"profile": {str(n): "x" for n in range(33)}}, "profile"),
        ({"profile": {}, "more": 1}, "more"),
        # A bundle whose prompt has no place for any.
        ({"profile": {"age": "old"}}, "profile.age"),
    ],
)
def test_profiles_that_cannot_be_used(client: TestClient, body: Any, field: str) -> None:
    refused(client.put("/v1/users/ann/profile", json=body), 422, field)
    refused(client.put(f"/v1/users/{'x' * 129}/profile", json={"profile": {}}), 422, "user_id")
    refused(client.get(f"/v1/users/{'x' * 129}/profile"), 422, "user_id")


def test_an_unknown_scene_is_refused_where_it_is_asked_for(
    make_client: MakeClient, scene_bundle: Bundle
) -> None:
    client = make_client(bundle=scene_bundle.path)
    response = client.post("/v1/recommendations", json={"history": HISTORY, "scene": "attic"})
    assert "must be one of: home, cart" in refused(response, 422, "scene")["detail"]
    # Events outlive bundles: their scene may be one of tomorrow's.
    assert client.post("/v1/events", json=[event(1, scene="attic")]).status_code == 200


def test_events_of_the_future(make_client: MakeClient) -> None:
    client = make_client(future_tolerance_s=3600)
    now = datetime.now(UTC)
    later = [event(1), event(2, timestamp=(now + timedelta(seconds=3700)).isoformat())]
    problem = refused(client.post("/v1/events", json=later), 422, "events.1.timestamp")
    assert "future" in problem["detail"]
    soon = [event(1, timestamp=(now + timedelta(seconds=3500)).isoformat())]
    assert client.post("/v1/events", json=soon).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b'{"k": 1}}',
        b"\xff\xfe\xfa",
        b'{"user_id": "\xff"}',
        b"[" * 100_000,
        b'{"k": ' + b"9" * 10_000 + b"}",
    ],
)
def test_bodies_that_are_not_json(client: TestClient, content: bytes) -> None:
    for path in ("/v1/recommendations", "/v1/events"):
        refused(client.post(path, content=content, headers=JSON), 422, "")


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_of_another_media_type(client: TestClient, media_type: str | None) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    problem = refused(
        client.post("/v1/recommendations", content=b'{"k": 3}', headers=headers), 422, ""
    )
    assert "application/json" in problem["detail"]


def test_a_batch_with_many_mistakes_names_some(client: TestClient) -> None:
    response = client.post("/v1/events", json=[event(n, type="") for n in range(900)])
    assert len(response.json()["errors"]) == 20
    assert len(response.content) < 5000


def test_strings_may_hold_nul(client: TestClient) -> None:
    body = [event(1, event_id="\0", item_id="\0", user_id="\0")]
    assert client.post("/v1/events", json=body).json() == {"accepted": 1, "duplicates": 0}
    answer = recommend(client, user_id="\0", profile={"\0": "\0"}, scene="\0")
    assert (answer["reason"], answer["unknown_items"]) == ("no_history", 1)


def test_large_bodies(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=1000)
    fits = json.dumps({"k": 1}).encode().ljust(1000)

    def chunks(body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    def post(content: Any) -> Any:
        return client.post("/v1/recommendations", content=content, headers=JSON)

    assert post(fits).status_code == 200
    assert post(chunks(fits)).status_code == 200
    refused(post(fits + b" "), 413)
    refused(post(chunks(fits + b" ")), 413)
    # By its length alone: on any path, with nothing of it read.
    refused(client.post("/nowhere", content=fits + b" "), 413)


def test_unknown_paths_and_methods(client: TestClient) -> None:
    refused(client.get("/v1/nothing"), 404)
    refused(client.get("/v1/events/"), 404)
    response = client.get("/v1/events")
    refused(response, 405)
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("item_id", ["gone", "", "a%2Fb", "%00", "x" * 5000, "%ff"])
def test_unknown_items(client: TestClient, item_id: str) -> None:
    problem = refused(client.get(f"/v1/items/{item_id}"), 404)
    assert problem["type"] == "urn:sidrec:problem:not-found"


def test_user_ids_in_paths(client: TestClient) -> None:
    refused(client.get(f"/v1/users/{'x' * 129}/history"), 422, "user_id")
    refused(client.get("/v1/users//history"), 422, "user_id")
    refused(client.delete(f"/v1/users/{'x' * 129}"), 422, "user_id")


def test_a_bug_shows_no_trace(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret thing")

    monkeypatch.setattr("service.api.items.Item", broken)
    response = client.get("/v1/items/item-1")
    problem = refused(response, 500)
    assert problem["type"] == "urn:sidrec:problem:internal"
    assert "secret" not in response.text
    assert "RuntimeError" not in response.text


_text = st.text(st.characters(), max_size=4)  # lone surrogates included
_leaf = st.none() | st.booleans() | st.integers() | st.floats() | _text
_json = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3)
)
_fields = [
    "user_id",
    "k",
    "history",
    "profile",
    "scene",
    "beam_width",
    "exclude",
    "exclude_seen",
    "filter",
    "deadline_ms",
]
_filter = st.recursive(
    _json,
    lambda inner: st.dictionaries(
        st.sampled_from(["and", "or", "not", "brand", "price", "item_id", "x"]),
        inner
        | st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["eq", "in", "all", "gt", "exists"]), inner, max_size=2),
        max_size=3,
    ),
    max_leaves=8,
)
_event_fields = ["event_id", "user_id", "item_id", "type", "timestamp", "scene"]


def _mutated(good: dict[str, Any], fields: list[str]) -> st.SearchStrategy[Any]:
    return _json | st.dictionaries(st.sampled_from(fields), _json, max_size=3).map(
        lambda wild: good | wild
    )


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    wanted=_mutated({"history": HISTORY}, _fields)
    | _filter.map(lambda wanted: {"history": HISTORY, "filter": wanted}),
    events=st.lists(_mutated(event(1), _event_fields), max_size=3),
)
def test_no_body_breaks_the_service(client: TestClient, wanted: Any, events: Any) -> None:
    for path, body in (("/v1/recommendations", wanted), ("/v1/events", events)):
        response = client.post(path, content=json.dumps(body), headers=JSON)
        assert response.status_code in (200, 422), (response.text, body)
        if response.status_code == 422:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["errors"]


class GatedEngine(FakeEngine):
    """Answers nothing while the gate is closed."""

    gate = threading.Event()

    def _run(self, queries: Any) -> Any:
        assert self.gate.wait(30)
        return super()._run(queries)


def test_more_than_admitted_is_refused_at_once(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.fake.FakeEngine", GatedEngine)
    GatedEngine.gate.set()  # the warm-up shall pass
    client = make_client(max_in_flight=3)
    admission = client.app_state["service"].admission
    GatedEngine.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(recommend, client, history=HISTORY) for _ in range(3)]
        try:
            while admission.in_flight < 3:
                pass
            response = client.post("/v1/recommendations", json={"history": HISTORY})
            problem = refused(response, 503)
            assert problem["type"] == "urn:sidrec:problem:overloaded"
            assert int(response.headers["Retry-After"]) >= 1
            assert client.post("/v1/events", json=[event(1)]).status_code == 200
        finally:
            GatedEngine.gate.set()
        assert {task.result()["source"] for task in waiting} == {"model"}
    assert admission.in_flight == 0
    assert recommend(client, history=HISTORY)["source"] == "model"


def test_redis_stops_and_starts(make_client: MakeClient, tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "own")
    with server:
        client = make_client(redis_url=server.url, redis_timeout_ms=2000)
        client.post("/v1/events", json=[event(1)])
    for response in (
        client.post("/v1/events", json=[event(2)]),
        client.get("/v1/users/ann/history"),
        client.delete("/v1/users/ann"),
        client.get("/v1/users/ann/profile"),
        client.put("/v1/users/ann/profile", json={"profile": {}}),
    ):
        problem = refused(response, 503)
        assert problem["type"] == "urn:sidrec:problem:history-unavailable"
        assert int(response.headers["Retry-After"]) >= 1
    answer = recommend(client, user_id="ann")
    assert (answer["source"], answer["reason"]) == ("popular", "history_unavailable")
    assert recommend(client, user_id="ann", history=HISTORY)["source"] == "model"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["redis"]) == (
        200,
        "degraded",
        "away",
    )
    with server:
        assert client.get("/readyz").json()["redis"] == "ok"
        assert recommend(client, user_id="ann")["history_used"] == 1
        assert client.post("/v1/events", json=[event(2)]).json()["accepted"] == 1
