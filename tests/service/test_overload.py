"""A full queue over HTTP: who is refused, how cheaply, and who is answered all the same."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.testclient import TestClient

from service import engine_queue
from service.engine_queue import EngineQueue
from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, event, recommend
from tests.service.test_refusals import JSON, GatedEngine, refused

ASK = {"history": HISTORY}
PATHS = ["/v1/recommendations", "/v1/recommendations/batch", "/v1/items/item-1/similar"]


@pytest.fixture
def gated(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes clients of a service whose engine waits at a gate while `held`, of which two searches
    fill the queue."""
    monkeypatch.setattr("service.engine.fake.FakeEngine", GatedEngine)
    monkeypatch.setattr(engine_queue, "_LEAST", 2)
    GatedEngine.gate.set()

    def make(**options: Any) -> TestClient:
        client = make_client(**{"max_wait_ms": 1, **options})
        recommend(client, history=HISTORY)  # from now on something is known
        return client

    yield make
    GatedEngine.gate.set()


@contextmanager
def full(client: TestClient, **body: Any) -> Iterator[list[Future[dict[str, Any]]]]:
    """Two searches under way that do not end before the block does."""
    queue: EngineQueue = client.app_state["service"].queue
    GatedEngine.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        try:
            waiting = [pool.submit(recommend, client, **ASK, **body) for _ in range(2)]
            until(lambda: queue.under_way == 2)
            yield waiting
        finally:
            GatedEngine.gate.set()


def until(there: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("path", PATHS)
def test_a_full_queue_refuses_before_it_reads_the_body(gated: Any, path: str) -> None:
    client = gated()
    with full(client) as waiting:
        response = client.post(path, content=b"[no JSON at all", headers=JSON)
        assert refused(response, 503)["type"] == "urn:sidrec:problem:overloaded"
        assert int(response.headers["Retry-After"]) >= 1
        # What asks nothing of the engine goes on.
        assert client.post("/v1/events", json=[event(1)]).status_code == 200
        assert client.get("/readyz").status_code == 200
    assert [task.result()["source"] for task in waiting] == ["model", "model"]
    refused(client.post(path, content=b"[no JSON at all", headers=JSON), 422, "")
    assert recommend(client, **ASK)["source"] == "model"


def test_a_request_with_a_deadline_is_answered_by_popular_items(gated: Any) -> None:
    client = gated()
    with full(client):
        answer = recommend(client, **ASK, deadline_ms=60_000)
        assert (answer["source"], answer["reason"]) == ("popular", "overloaded")
        assert len(answer["items"]) == 10
        body = {"requests": [{**ASK, "deadline_ms": 60_000}, ASK]}
        late, refusal = client.post("/v1/recommendations/batch", json=body).json()["results"]
        assert (late["status"], late["answer"]["reason"]) == (200, "overloaded")
        assert refusal["status"] == 503
        assert refusal["problem"]["type"] == "urn:sidrec:problem:overloaded"


def test_a_deployment_with_a_deadline_refuses_nobody(gated: Any) -> None:
    client = gated(deadline_ms=60_000)
    with full(client):
        answer = recommend(client, **ASK)
        assert (answer["source"], answer["reason"]) == ("popular", "overloaded")


def test_a_batch_is_let_in_as_a_whole(gated: Any) -> None:
    client = gated()
    results = client.post("/v1/recommendations/batch", json={"requests": [ASK] * 20})
    assert [one["status"] for one in results.json()["results"]] == [200] * 20


def test_the_queue_shows_in_the_metrics(gated: Any) -> None:
    client = gated()
    with full(client):
        lines = client.get("/metrics").text.splitlines()
        assert "sidrec_queue_under_way 2.0" in lines
        assert "sidrec_queue_limit 2.0" in lines
        assert any(line.startswith("sidrec_queue_wait_seconds ") for line in lines)


def test_what_was_refused_leaves_nothing_behind(gated: Any) -> None:
    client = gated()
    service = client.app_state["service"]
    with full(client):
        threads = threading.active_count()
        for _ in range(200):
            assert client.post(PATHS[0], json=ASK).status_code == 503
        assert threading.active_count() <= threads + 1
    assert (service.queue.under_way, service.admission.in_flight) == (0, 0)
