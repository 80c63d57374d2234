"""What Prometheus and the log are told."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.logs import configure_logs
from service.metrics.buckets import SCORES
from service.settings import Settings
from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, event, recommend

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(client: TestClient) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(samples: Samples, metric: str, **labels: str) -> float:
    return samples.get((f"sidrec_{metric}", tuple(sorted(labels.items()))), 0.0)


def test_counters_move(client: TestClient) -> None:
    of_warm_up = value(scrape(client), "engine_batch_size_count")
    client.post("/v1/events", json=[event(1)])
    recommend(client, user_id="ann")
    recommend(client, user_id="nobody")
    recommend(client, history=[*HISTORY, "gone", "gone"])
    client.app_state["service"].holder.current.engine.fails = True
    recommend(client, history=HISTORY)
    samples = scrape(client)
    assert value(samples, "recommendations_total", source="model") == 2
    assert value(samples, "recommendations_total", source="popular") == 2
    assert value(samples, "fallbacks_total", reason="no_history") == 1
    assert value(samples, "fallbacks_total", reason="engine_error") == 1
    assert value(samples, "history_reads_total", result="hit") == 1
    assert value(samples, "history_reads_total", result="miss") == 1
    assert value(samples, "unknown_items_total") == 2
    assert value(samples, "stage_seconds_count", stage="search") == 3
    assert value(samples, "stage_seconds_count", stage="total") == 4
    assert value(samples, "engine_batch_size_count") == of_warm_up + 3
    assert value(samples, "engine_queue_depth") == 0
    assert value(samples, "recommendations_in_flight") == 0
    assert value(samples, "bundle_info", name="tiny", version="1", engine="fake") == 1
    assert value(scrape(client), "engine_batch_size_count") == of_warm_up + 3


def test_requests_are_counted_by_template(client: TestClient) -> None:
    for path in ("/v1/items/item-1", "/v1/items/item-2", "/v1/items/gone", "/x/1", "/x/2"):
        client.get(path)
    client.put("/v1/events")
    client.request("BREW", "/x/3")
    samples = scrape(client)

    def requests(route: str, method: str, status: str) -> float:
        return value(samples, "http_requests_total", route=route, method=method, status=status)

    assert requests("/v1/items/{item_id}", "GET", "200") == 2
    assert requests("/v1/items/{item_id}", "GET", "404") == 1
    assert requests("unmatched", "GET", "404") == 2
    assert requests("unmatched", "other", "404") == 1
    assert requests("/v1/events", "PUT", "405") == 1
    latency = {"route": "/v1/items/{item_id}", "method": "GET"}
    assert value(samples, "http_request_seconds_count", **latency) == 3


def test_answers_are_described(client: TestClient) -> None:
    now = datetime.now(UTC)
    old = (now - timedelta(hours=2)).isoformat()
    client.post("/v1/events", json=[event(1, timestamp=old), event(2, timestamp=old)])
    client.post("/v1/events", json=[event(1, timestamp=old)])
    answer = recommend(client, user_id="ann")
    recommend(client, history=HISTORY, filter={"price": {"lt": -1}})
    samples = scrape(client)
    assert value(samples, "events_total", result="accepted") == 2
    assert value(samples, "events_total", result="duplicate") == 1
    assert value(samples, "history_age_seconds_count") == 1
    assert 7200 <= value(samples, "history_age_seconds_sum") < 7300
    assert value(samples, "history_items_used_sum") == 2
    assert value(samples, "first_item_score_count") == 1
    score = answer["items"][0]["score"]
    for bound in SCORES:
        under = value(samples, "first_item_score_bucket", le=str(float(bound)))
        assert under == (score <= bound)
    assert value(samples, "empty_answers_total") == 1


def test_saturation_and_life(make_client: MakeClient) -> None:
    client = make_client(max_in_flight=3)
    samples = scrape(client)
    assert value(samples, "recommendations_in_flight_limit") == 3
    assert value(samples, "engine_alive") == 1
    client.app_state["service"].holder.current.engine.close()
    assert value(scrape(client), "engine_alive") == 0


def test_problems_are_counted_by_kind(make_client: MakeClient) -> None:
    client = make_client(max_in_flight=1)
    recommend_twice = {"requests": [{"history": HISTORY}, {"history": HISTORY}]}
    client.post("/v1/recommendations", json={"k": 0})
    client.post("/v1/recommendations/batch", json=recommend_twice)
    client.get("/v1/items/gone")
    client.get("/nowhere")
    recommend(client)
    samples = scrape(client)
    assert value(samples, "problems_total", kind="invalid-input") == 2
    assert value(samples, "problems_total", kind="not-found") == 1
    with client.app_state["service"].admission.place():
        client.post("/v1/recommendations", json={})
    assert value(scrape(client), "problems_total", kind="overloaded") == 1
    assert sum(v for (name, _), v in scrape(client).items() if name == "sidrec_problems_total") == 4


def test_two_applications_do_not_mix(make_client: MakeClient) -> None:
    one, other = make_client(), make_client()
    recommend(one)
    assert value(scrape(one), "recommendations_total", source="popular") == 1
    assert value(scrape(other), "recommendations_total", source="popular") == 0


@pytest.fixture
def restored_logs() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.mark.usefixtures("restored_logs")
def test_log_lines_are_json_and_those_of_libraries_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(Settings(log_level="info"))
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().info("ours", status=200)
        logging.getLogger("library").warning("theirs %d", 7)
    structlog.get_logger().debug("hidden")
    logging.getLogger("library").info("hidden")
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().exception("broken")
    ours, theirs, broken = map(json.loads, capsys.readouterr().out.splitlines())
    assert (ours["event"], ours["status"], ours["request_id"]) == ("ours", 200, "r1")
    assert (theirs["event"], theirs["level"]) == ("theirs 7", "warning")
    assert theirs["request_id"] == "r1"
    assert "ValueError: why" in broken["exception"]


@pytest.mark.usefixtures("restored_logs")
def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Settings(log_format="console"))
    structlog.get_logger().info("ours", status=200)
    out = capsys.readouterr().out
    assert "ours" in out
    assert "status=200" in out
    assert not out.startswith("{")
