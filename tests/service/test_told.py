"""What the log line of a request says of its answer."""

from typing import Any

from starlette.testclient import TestClient
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tests.service.test_api import HISTORY, recommend


def line(client: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    with capture_logs(processors=[merge_contextvars]) as lines:
        client.post(path, json=body)
    [found] = [line for line in lines if line["event"] == "request"]
    return dict(found)


def test_a_recommendation(client: TestClient) -> None:
    said = line(client, "/v1/recommendations", {"user_id": "ann-in-clear", "k": 3})
    assert (said["version"], said["source"], said["items"]) == ("tiny/1", "popular", 3)
    assert said["reason"] == "no_history"
    assert list(said["timing_ms"]) == ["history", "eligibility", "items", "total"]
    assert said["timing_ms"]["total"] <= said["duration_ms"]
    assert "ann-in-clear" not in str(said)


def test_similar_items(client: TestClient) -> None:
    said = line(client, f"/v1/items/{HISTORY[0]}/similar", {"k": 2})
    assert (said["version"], said["source"], said["items"]) == ("tiny/1", "model", 2)


def test_a_batch(client: TestClient) -> None:
    wanted = [{"history": HISTORY}, {"history": HISTORY}, {"user_id": "nobody"}, {"k": 0}]
    said = line(client, "/v1/recommendations/batch", {"requests": wanted})
    assert said["version"] == "tiny/1"
    assert said["sources"] == {"model": 2, "popular": 1}
    assert said["reasons"] == {"no_history": 1}
    assert said["refused"] == 1


def test_one_request_says_nothing_of_the_one_before(client: TestClient) -> None:
    recommend(client, history=HISTORY)
    said = line(client, "/v1/recommendations", {"k": 0})
    assert said["status"] == 422
    assert not {"version", "source", "timing_ms", "trace_id"} & said.keys()
