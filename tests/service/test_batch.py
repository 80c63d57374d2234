"""Many users in one request: each answered, or refused, as it would have been alone."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, event, recommend
from tests.service.test_refusals import refused

PATH = "/v1/recommendations/batch"


def batch(client: TestClient, *requests: Any) -> list[dict[str, Any]]:
    response = client.post(PATH, json={"requests": requests})
    assert response.status_code == 200, response.text
    assert response.json()["request_id"] == response.headers["X-Request-ID"]
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in answer.items() if k not in ("timing_ms", "request_id")}


def test_each_is_answered_as_alone(make_client: MakeClient) -> None:
    client = make_client(engine="torch", threads=1)
    client.post("/v1/events", json=[event(n, user_id=f"u{n % 5}") for n in range(40)])
    asked: list[dict[str, Any]] = [{"user_id": f"u{n}", "k": 3 + n} for n in range(7)]
    asked += [{"history": HISTORY, "exclude": ["item-9"], "explain": True}, {}]
    alone = [recommend(client, **one) for one in asked]
    for result, right in zip(batch(client, *asked), alone, strict=True):
        assert (result["status"], result["problem"]) == (200, None)
        answer, expected = without_times(result["answer"]), without_times(right)
        ours, theirs = answer.pop("items"), expected.pop("items")
        assert answer == expected
        assert [item["item_id"] for item in ours] == [item["item_id"] for item in theirs]
        assert [item["score"] for item in ours] == pytest.approx(
            [item["score"] for item in theirs], abs=1e-4
        )


def test_one_that_cannot_be_used_fails_alone(client: TestClient) -> None:
    bad: list[tuple[Any, str]] = [
        ({"k": 0}, "k"),
        ({"history": ["item-1", 7]}, "history.1"),
        ({"history": ["item-1"] * 201}, "history"),
        ({"kk": 1}, "kk"),
        (7, ""),
        ("ann", ""),
        ([[]], ""),
    ]
    good = {"history": HISTORY}
    results = batch(client, good, *(body for body, _ in bad), good)
    assert [r["status"] for r in results] == [200, *[422] * len(bad), 200]
    for result, (body, field) in zip(results[1:], bad, strict=False):
        assert result["answer"] is None
        problem = refused(client.post("/v1/recommendations", json=body), 422, field)
        for name in ("type", "title", "status", "detail", "errors"):
            assert result["problem"][name] == problem[name]


@pytest.mark.parametrize("body", [{}, {"requests": []}, {"requests": {}}, {"requests": [{}] * 5}])
def test_batches_that_cannot_be_used(make_client: MakeClient, body: Any) -> None:
    refused(make_client(max_batch=4).post(PATH, json=body), 422, "requests")


def test_each_takes_a_place(make_client: MakeClient) -> None:
    client = make_client(max_in_flight=4)
    admission = client.app_state["service"].admission
    assert len(batch(client, *[{}] * 4)) == 4
    refused(client.post(PATH, json={"requests": [{}] * 5}), 422, "requests")
    with admission.place(2):
        refused(client.post(PATH, json={"requests": [{}] * 3}), 503)
        assert len(batch(client, *[{}] * 2)) == 2
    assert admission.in_flight == 0


def test_they_are_searched_together(make_client: MakeClient) -> None:
    client = make_client(engine="torch", threads=1)
    engine = client.app_state["service"].holder.current.engine
    engine.stats()
    batch(client, *({"history": [f"item-{n}"]} for n in range(30)))
    sizes = engine.stats().batch_sizes
    assert sum(sizes) == 30
    assert len(sizes) <= 4, sizes
