"""Prometheus itself, with the shipped configuration, against a running service with keys."""

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.bundle import Bundle
from service.keys.file import entry
from service.keys.key import SCOPES, Key, digest, new_secret
from service.redis_server import EmbeddedRedis
from tests.docker.files import DOC, PROMETHEUS, dashboard, queries
from tests.service.test_app_process import Process
from tests.system import program
from tests.tiny import make_bundle, random_items

PATIENCE_S = 90
NAME = re.compile(r"\b(?:sidrec|process)_[a-z_]+\b")


class Traffic(threading.Thread):
    """What users do, and a little of what goes wrong, until it is stopped."""

    def __init__(self, client: httpx.Client, redis_pid: int, items: list[str]) -> None:
        super().__init__()
        self._client = client
        self._redis = redis_pid
        self._items = items
        self._ended = threading.Event()
        self.seen: set[int] = set()

    def run(self) -> None:
        for turn in range(3000):
            if self._ended.wait(0.1):
                break
            self._post("/v1/events", {"events": [self._event(turn)]})
            self._post("/v1/recommendations", {"user_id": "ann", "k": 3})
            self._post("/v1/recommendations", {"user_id": f"new-{turn}", "k": 3})
            self._post("/v1/recommendations", {"history": ["unknown", self._items[0]], "k": 3})
            self._post("/v1/recommendations", {"k": 0})
            if turn % 20 == 5:
                os.kill(self._redis, signal.SIGSTOP)
                self._post("/v1/events", {"events": [self._event(turn)]})
                self._post("/v1/recommendations", {"user_id": "ann", "k": 3})
                os.kill(self._redis, signal.SIGCONT)

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self.seen.add(self._client.post(path, json=body).status_code)

    def _event(self, number: int) -> dict[str, Any]:
        return {
            "event_id": f"e{number}",
            "user_id": "ann",
            "item_id": self._items[number % len(self._items)],
            "timestamp": datetime.now(UTC).isoformat(),
        }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle"), random_items(100, (4, 4, 4)))


@pytest.fixture(scope="module")
def secret() -> str:
    return new_secret()


@pytest.fixture(scope="module")
def service(
    bundle: Bundle, secret: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A service with keys, under traffic and with an experiment."""
    folder = tmp_path_factory.mktemp("service")
    keys = folder / "keys.toml"
    keys.write_text(entry(Key(name="all", sha256=digest(secret), scopes=frozenset(SCOPES))))
    with EmbeddedRedis(folder / "redis") as redis:
        assert redis.pid is not None
        settings = {"BUNDLE": bundle.path, "KEYS_FILE": keys, "REDIS_URL": redis.url}
        process = Process(
            ["--engine", "fake"], {f"SIDREC_{name}": str(to) for name, to in settings.items()}
        )
        with process.client() as client:
            client.headers["Authorization"] = f"Bearer {secret}"
            arms = [
                {"name": "narrow", "share": 0.5, "control": True},
                {"name": "wide", "share": 0.5, "settings": {"beam_width": 30}},
            ]
            end = (datetime.now(UTC) + timedelta(days=1)).isoformat()
            design = {"arms": arms, "end": end}
            assert client.put("/v1/experiments/width", json=design).status_code == 200
            traffic = Traffic(client, redis.pid, list(bundle.catalogue.item_ids))
            traffic.start()
            yield client
            traffic.stop()
        assert traffic.seen == {200, 422, 503}
        assert process.end(signal.SIGTERM)[0] == 0


@pytest.fixture(scope="module")
def prometheus(
    service: httpx.Client, secret: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Prometheus with the shipped files; only the targets are others, and the key."""
    folder = shutil.copytree(PROMETHEUS, tmp_path_factory.mktemp("prometheus") / "config")
    target = f"{service.base_url.host}:{service.base_url.port}"
    (folder / "targets.yml").write_text(json.dumps([{"targets": [target]}]))
    (folder / "metrics_key").write_text(secret)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _until(lambda: _ready(client), log)
            yield client
    finally:
        process.terminate()
        process.wait()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def _until(holds: Any, log: Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, log.read_text() if log else "it never came to hold"
        time.sleep(0.25)


def ask(prometheus: httpx.Client, query: str) -> list[float]:
    """The values that a query has now, those that are numbers."""
    answer = prometheus.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    values = [float(each["value"][1]) for each in answer["data"]["result"]]
    return [value for value in values if not math.isnan(value)]


def test_the_target_is_up(prometheus: httpx.Client) -> None:
    _until(lambda: ask(prometheus, 'up{job="sidrec"}'))
    [target] = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_without_its_key_the_target_is_not_read(service: httpx.Client) -> None:
    assert httpx.get(service.base_url.join("/metrics")).status_code == 401


def test_every_panel_has_data(prometheus: httpx.Client) -> None:
    missing = dict(queries())

    def complete() -> bool:
        for name, query in list(missing.items()):
            if ask(prometheus, query):
                del missing[name]
        return not missing

    deadline = time.monotonic() + PATIENCE_S
    while not complete():
        assert time.monotonic() < deadline, missing
        time.sleep(1)


def test_every_rule_is_loaded_and_computes(prometheus: httpx.Client) -> None:
    def groups() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        return found

    _until(lambda: all(rule["health"] != "unknown" for g in groups() for rule in g["rules"]))
    rules = [rule for group in groups() for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert not firing & {"SidrecDown", "SidrecEngineDead", "SidrecSaturated"}


def test_queries_name_only_what_is_exposed(service: httpx.Client) -> None:
    exposed = set(re.findall(r"^([a-z_]+)", service.get("/metrics").text, flags=re.M))
    asked = {name for _, query in queries() for name in NAME.findall(query)}
    alerted = set(NAME.findall((PROMETHEUS / "rules.yml").read_text()))
    assert len(asked) > 20
    assert asked <= exposed, asked - exposed
    assert alerted <= exposed, alerted - exposed


def test_every_metric_is_explained(service: httpx.Client) -> None:
    kinds = re.findall(r"^# TYPE (sidrec_\w+) (\w+)", service.get("/metrics").text, flags=re.M)
    # The library exposes when a counter began as a gauge of its own.
    exposed = {name for name, _ in kinds if not name.endswith("_created")}
    explained = re.findall(r"^\| `(sidrec_\w+)` \|", DOC.read_text(), flags=re.M)
    assert set(explained) == exposed
    assert len(explained) == len(exposed)


def test_the_dashboard_answers_three_questions() -> None:
    panels = dashboard()["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == ["Is it healthy?", "Is it fast?", "Is it sensible?"]
    assert all(panel["description"] for panel in panels if panel["type"] != "row")
    assert len({panel["id"] for panel in panels}) == len(panels)
