"""Three services behind nginx on a cluster of six: one is killed, a primary too, one is drained.

`make replicas` runs it for five minutes on the torch engine and prints what docs/scaling.md has.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.processes import Service, eventually, free_port
from tests.replicas.load import Load
from tests.replicas.nginx import balanced
from tests.replicas.redis_cluster import RedisCluster

PHASE_S = float(os.environ.get("REPLICAS_PHASE_S", "2"))
ENGINE = os.environ.get("REPLICAS_ENGINE", "fake")
HISTORY = ["p00001", "p00300", "p00700"]

Start = Callable[[int], Service]


@pytest.fixture
def start(cluster: RedisCluster, tmp_path: Path) -> Iterator[Start]:
    """Starts the service of a number, always on the same port."""
    ports = [free_port() for _ in range(3)]
    settings = {
        "engine": ENGINE,
        "redis_url": cluster.url,
        "redis_wait_replicas": 1,
        # Far above what a write takes; the machine has fewer cores than there are processes.
        "redis_timeout_ms": 1000,
    }
    with ExitStack() as stack:

        def start_one(number: int) -> Service:
            log = tmp_path / f"service-{number}-{time.monotonic_ns()}"
            return stack.enter_context(Service(log, settings, port=ports[number]))

        yield start_one


@pytest.fixture
def services(start: Start) -> list[Service]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(start, range(3)))


@pytest.fixture
def url(services: list[Service], tmp_path: Path) -> Iterator[str]:
    with balanced(tmp_path / "nginx", [service.url for service in services]) as url:
        yield url


def post(url: str, path: str, body: Any) -> Any:
    answer = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def shown(url: str, **wanted: Any) -> list[tuple[str, float]]:
    answer = post(url, "/v1/recommendations", {"k": 20, **wanted})
    assert answer["source"] == "model"
    return [(item["item_id"], item["score"]) for item in answer["items"]]


def price(url: str, item: str) -> float | None:
    answer = httpx.get(f"{url}/v1/items/{item}", timeout=60)
    return answer.json()["attributes"]["price"] if answer.is_success else None


def test_any_replica_will_do(url: str, services: list[Service]) -> None:
    told = [
        {"event_id": f"e{n}", "user_id": "ann", "item_id": item, "timestamp": 1_750_000_000 + n}
        for n, item in enumerate(HISTORY)
    ]
    assert post(url, "/v1/events", told)["accepted"] == len(told)
    expected = shown(url, history=HISTORY)
    for service in services:
        assert shown(service.url, user_id="ann") == expected
    new = {"title": "A lamp", "attributes": {"price": 7}}
    assert httpx.put(f"{url}/v1/items/new", json=new, timeout=60).status_code == 200
    eventually(lambda: all(price(service.url, "new") == 7 for service in services))
    sent = httpx.get(f"{url}/readyz", headers={"X-Request-ID": "mine"})
    assert sent.headers["x-request-id"] == "mine"
    assert httpx.get(f"{url}/metrics").status_code == 404
    large = httpx.post(f"{url}/v1/events", content=b" " * 1_100_000)
    assert large.status_code == 413
    assert large.headers["content-type"] == "application/problem+json", "the service's own answer"


def test_nobody_there_is_a_problem_too(tmp_path: Path) -> None:
    away = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    with balanced(tmp_path / "nginx", away) as url:
        answer = httpx.post(f"{url}/v1/events", json=[], headers={"X-Request-ID": "mine"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["type"] == "urn:sidrec:problem:no-replica"
    assert answer.json()["request_id"] == "mine"
    log = (tmp_path / "nginx" / "log").read_text()
    assert '"answered":"502, 502, 502"' in log, "each was tried"


def test_a_replica_and_a_primary_are_killed_under_load(
    url: str, services: list[Service], start: Start, cluster: RedisCluster
) -> None:
    with Load(url) as load:
        load.wait(PHASE_S)

        killed = time.monotonic()
        services[0].end(signal.SIGKILL)
        load.wait(PHASE_S)
        starting = time.monotonic()
        services[0] = start(0)
        eventually(lambda: requests(services[0]) > 0)
        again_s = time.monotonic() - starting
        load.wait(PHASE_S)
        for kind in ("events", "recommendations", "items"):
            assert load.trouble(kind, 0) == (0, 0.0), load.how(kind)
        slowest_s = max(load.slowest_s(kind, killed) for kind in ("events", "recommendations"))
        say(
            f"replica killed with -9: 0 requests failed, slowest {slowest_s:.2f} s;"
            f" {again_s:.1f} s from its start to its first answer"
        )

        gone = cluster.primary_of("user-0-0-0")
        lost_at = time.monotonic()
        gone.kill()
        load.wait(PHASE_S)
        back_at = time.monotonic()
        gone.start()
        load.until_well()
        load.wait(PHASE_S)
        answers, answers_s = load.trouble("recommendations", lost_at)
        events, _ = load.trouble("events", lost_at)
        _, events_s = load.trouble("events", back_at)
        items, _ = load.trouble("items", lost_at)
        meanwhile = sum(
            seen.kind == "events" and seen.status == 200 and lost_at < seen.at < back_at
            for seen in load.seen
        )
        say(
            f"primary killed with -9 for {back_at - lost_at:.0f} s: {answers} recommendations fell"
            f" back, the last {answers_s:.1f} s after the kill; {events} batches of events and"
            f" {items} of items refused with 503, the last {events_s:.1f} s after it was back;"
            f" {meanwhile} batches of others accepted meanwhile"
        )
        assert answers, "nobody noticed"
        assert events
        assert meanwhile, "everybody else is served"

        ending = time.monotonic()
        assert services[1].end(signal.SIGTERM) == 0
        load.wait(PHASE_S)
        for kind in ("events", "recommendations", "items"):
            assert load.trouble(kind, ending) == (0, 0.0)
        say("replica ended with SIGTERM: 0 requests failed; exit code 0")
    lost = load.lost()
    say(
        f"{len(load.acknowledged)} events acknowledged, {lost} lost;"
        f" {len(load.items)} items changed {load.how('items')['accepted']} times;"
        f" {dict(load.how('recommendations'))}"
    )
    assert lost == 0
    for service in (services[0], services[2]):
        eventually(partial(agrees, service, load.items))
        assert "Traceback" not in service.said


def agrees(service: Service, prices: dict[str, float]) -> bool:
    return all(price(service.url, item) == expected for item, expected in prices.items())


def requests(service: Service) -> float:
    """How many recommendations it has answered."""
    with service.client() as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("sidrec_recommendations_total")
    )


def say(what: str) -> None:
    print(f"- {what}")
