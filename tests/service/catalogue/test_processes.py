"""Two `sidrec serve` on one Redis, of which one is killed in the middle."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.bundle import Bundle
from service.redis_server import EmbeddedRedis
from tests.service.catalogue.test_items_api import ITEM
from tests.service.test_app_process import Process

Item = dict[str, Any]


@pytest.fixture
def environment(demo: Bundle, tmp_path: Path) -> Iterator[dict[str, str]]:
    with EmbeddedRedis(tmp_path / "redis") as redis:
        yield {"SIDREC_BUNDLE": str(demo.path), "SIDREC_REDIS_URL": redis.url}


def serve(environment: dict[str, str]) -> Process:
    return Process(["--engine", "fake"], environment)


def version(client: httpx.Client) -> int:
    lines = client.get("/metrics").text.splitlines()
    [line] = [line for line in lines if line.startswith("sidrec_catalogue_version ")]
    return int(float(line.split()[1]))


def assert_there(client: httpx.Client, expected: dict[str, Item | None]) -> None:
    """What a process says of the items, and recommends of them, is what was acknowledged last."""
    for item_id, item in expected.items():
        response = client.get(f"/v1/items/{item_id}")
        assert response.status_code == (404 if item is None else 200)
        if item is not None:
            assert response.json()["attributes"]["price"] == item["attributes"]["price"]
    wanted = {
        "history": ["p02327"],
        "k": 200,
        "beam_width": 512,
        "filter": {"item_id": {"in": list(expected)}},
    }
    shown = client.post("/v1/recommendations", json=wanted).json()["items"]
    assert {item["item_id"] for item in shown} == {i for i, item in expected.items() if item}


def batch(number: int, size: int = 10) -> dict[str, Item | None]:
    """New items, one of which belongs to the batch before and is removed."""
    made: dict[str, Item | None] = {
        f"n{number * size + place}": {**ITEM, "attributes": {"price": number + place / 100}}
        for place in range(size)
    }
    return {**made, f"n{(number - 1) * size}": None, f"p0000{number}": None}


def send(client: httpx.Client, changes: dict[str, Item | None]) -> None:
    items = [
        {"item_id": item_id, **({"deleted": True} if item is None else item)}
        for item_id, item in changes.items()
    ]
    answer = client.put("/v1/items", json={"items": items})
    assert (answer.status_code, answer.json()["refused"]) == (200, 0)


def test_nothing_acknowledged_is_missing_after_kill_9_and_processes_converge(
    environment: dict[str, str],
) -> None:
    one, other = serve(environment), serve(environment)
    expected: dict[str, Item | None] = {}
    try:
        with other.client() as beside:
            with one.client() as client:
                for number in range(1, 8):
                    send(client, batch(number))
                    expected |= batch(number)
                assert_there(client, expected)
                acknowledged, at = version(client), time.monotonic()
                while version(beside) < acknowledged:
                    assert time.monotonic() < at + 2
                assert_there(beside, expected)
            assert one.end(signal.SIGKILL)[0] == -signal.SIGKILL
            send(beside, batch(8))  # while the first is gone
            expected |= batch(8)
            one = serve(environment)
            with one.client() as client:
                assert client.get("/readyz").json()["status"] == "ready"
                assert_there(client, expected)
                assert version(client) == version(beside)
        for process in (one, other):
            assert process.end(signal.SIGTERM) == (0, "")
    finally:
        for process in (one, other):
            if process.process.poll() is None:
                process.end(signal.SIGKILL)
