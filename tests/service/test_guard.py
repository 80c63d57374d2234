"""Who asks: limits of a key, what is told of them, and what log and metrics say."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from service.keys.key import Key
from tests.service.conftest import MakeClient
from tests.service.keys.made import bearer, key, write
from tests.service.test_api import event
from tests.service.test_refusals import refused


def keyed(make_client: MakeClient, *keys: Key, **more: Any) -> TestClient:
    return make_client(keys=keys, **more)


def metric(client: TestClient, name: str, secret: str = "watcher") -> float:
    lines = client.get("/metrics", headers=bearer(secret)).text.splitlines()
    [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
    return float(value)


def test_a_key_that_asks_too_often(make_client: MakeClient) -> None:
    watcher = key("watcher", "watcher", "metrics")
    client = keyed(
        make_client, key("a", "a", "read", rate="2/hour"), key("b", "b", "read"), watcher
    )
    first, second, third = (client.get("/v1/items/item-1", headers=bearer("a")) for _ in range(3))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.headers["RateLimit-Policy"] == '"key";q=2;w=3600'
    assert first.headers["RateLimit"].startswith('"key";r=1;t=')
    assert second.headers["RateLimit"].startswith('"key";r=0;t=')
    problem = refused(third, 429)
    assert problem["type"] == "urn:sidrec:problem:too-often"
    assert problem["detail"] == "this key may ask 2/hour"
    assert 0 < int(third.headers["Retry-After"]) <= 7200
    unlimited = client.get("/v1/items/item-1", headers=bearer("b"))
    assert unlimited.is_success
    assert "RateLimit" not in unlimited.headers
    assert client.get("/livez", headers=bearer("a")).is_success
    assert metric(client, 'sidrec_refused_requests_total{reason="rate"}') == 1
    assert metric(client, "sidrec_keys") == 3


@pytest.mark.parametrize(
    ("method", "path", "field", "one"),
    [
        ("POST", "/v1/recommendations/batch", "requests", {}),
        ("POST", "/v1/events", "events", event(1)),
        ("PUT", "/v1/items", "items", {"item_id": "none", "deleted": True}),
    ],
)
def test_a_key_may_have_smaller_batches(
    make_client: MakeClient, method: str, path: str, field: str, one: dict[str, Any]
) -> None:
    small, large = (
        key("small", "s", "read", "write", batch=2),
        key("large", "l", "read", "write", batch=10_000_000),
    )
    client = keyed(make_client, small, large)

    def ask(secret: str, count: int) -> Any:
        return client.request(method, path, json={field: [one] * count}, headers=bearer(secret))

    assert ask("s", 2).is_success
    refused(ask("s", 3), 422, field)
    assert ask("l", 3).is_success
    refused(ask("l", 1001), 422, field)  # what the service takes is the limit of all


def test_lines_name_the_key_and_never_show_it(make_client: MakeClient) -> None:
    client = keyed(make_client, key("shop", "the-secret", "read"), key("w", "watcher", "metrics"))
    with capture_logs([merge_contextvars]) as lines:
        client.get("/v1/items/item-1", headers=bearer("the-secret"))
        client.put("/v1/items", json={}, headers=bearer("the-secret"))
        client.get("/v1/items/item-1", headers=bearer("another-secret"))
        client.get("/v1/items/item-1")
    seen = [(line["status"], line.get("key")) for line in lines if line["event"] == "request"]
    assert seen == [(200, "shop"), (403, "shop"), (401, None), (401, None)]
    assert "secret" not in json.dumps(lines, default=str)
    for reason in ("scope", "unknown", "missing"):
        assert metric(client, f'sidrec_refused_requests_total{{reason="{reason}"}}') == 1


@pytest.mark.parametrize("sent", ["Bearer s", "bearer s", "BEARER  s ", "Bearer\ts"])
def test_how_a_key_may_be_sent(make_client: MakeClient, sent: str) -> None:
    client = keyed(make_client, key("shop", "s", "read"))
    accepted = "\t" not in sent
    answer = client.get("/v1/items/item-1", headers={"Authorization": sent})
    assert answer.is_success == accepted


@pytest.mark.parametrize("sent", [b"Bearer \xff\xfe", b"Bearer ", b"s", b"Bearer s s", b"\x00"])
def test_what_is_no_key_is_refused(make_client: MakeClient, sent: bytes) -> None:
    client = keyed(make_client, key("shop", "s", "read"))
    refused(client.get("/v1/items/item-1", headers={b"Authorization": sent}), 401)


def test_a_stranger_is_refused_before_the_body_is_looked_at(make_client: MakeClient) -> None:
    client = keyed(make_client, key("shop", "s", "read"))
    refused(client.post("/v1/recommendations", content=b"{not json"), 401)
    refused(client.patch("/v1/recommendations", content=b"{"), 401)


def test_a_file_of_keys_in_use(make_client: MakeClient, tmp_path: Path) -> None:
    file = write(tmp_path / "keys.toml", key("w", "watcher", "metrics"))
    client = make_client(keys_file=file)
    assert metric(client, "sidrec_keys_file_unusable") == 0
    file.write_text("[[")
    while not metric(client, "sidrec_keys_file_unusable"):
        pass
    assert metric(client, "sidrec_keys") == 1


def test_without_keys_nobody_is_asked_for_one(make_client: MakeClient) -> None:
    with capture_logs([merge_contextvars]) as lines:
        client = make_client()
        assert client.get("/v1/items/item-1").is_success
        assert client.get("/v1/items/item-1", headers=bearer("whatever")).is_success
    [said] = [line for line in lines if line["event"] == "no_keys"]
    assert said["log_level"] == "warning"
