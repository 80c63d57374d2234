"""A catalogue that changes while versions of its bundle come and go: what is acknowledged is in
force in whichever answers next."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from bench.swapped import two_versions
from model_store.bundle import Bundle
from service.catalogue.live import LiveCatalogue
from service.errors import CatalogueUnavailable
from service.redis_server import EmbeddedRedis
from tests.service.catalogue.test_items_api import ITEM, recommended
from tests.service.conftest import MakeClient


@pytest.fixture(scope="module")
def store(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as version 1, and as version 2 with its SIDs exchanged; both with a quantizer."""
    root = tmp_path_factory.mktemp("two")
    two_versions(demo, root)
    return root


@pytest.fixture
def client(make_client: MakeClient, store: Path) -> TestClient:
    return make_client(store=str(store))


def ask(client: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    response = client.post(f"/v1/models{path}", json=body)
    assert response.status_code == status, response.text
    return response.json()


def sid_of(client: TestClient, item_id: str) -> Any:
    return client.get(f"/v1/items/{item_id}").json()["sid"]


def shown(client: TestClient, *item_ids: str) -> set[str]:
    return set(recommended(client, history=["p00001"], filter={"item_id": {"in": [*item_ids]}}))


def test_items_are_recommendable_in_each_version_with_a_sid_of_its_own(client: TestClient) -> None:
    before = client.put("/v1/items/before", json=ITEM).json()  # while only 1 is there
    client.delete("/v1/items/p00002")
    ask(client, "", 201, version=2)
    during = client.put("/v1/items/during", json={**ITEM, "title": "Quillon mouse"}).json()
    client.put("/v1/items/p00003", json={"attributes": {"price": 7.5}})
    asked = ("before", "during", "p00002", "p00003")
    ask(client, "/demo/2/activate")
    assert shown(client, *asked) == {"before", "during", "p00003"}
    assert client.get("/v1/items/p00003").json()["attributes"]["price"] == 7.5
    sids = {name: sid_of(client, name) for name in ("before", "during", "p00003")}
    client.put("/v1/items/after", json={**ITEM, "title": "Veltrix screen"})
    client.delete("/v1/items/during")
    ask(client, "/rollback")
    assert shown(client, "before", "during", "after", "p00002") == {"before", "after"}
    assert sid_of(client, "before") == before["sid"]
    assert sid_of(client, "p00003") != sids["p00003"]
    ask(client, "/demo/2/activate")
    assert sid_of(client, "before") == sids["before"]  # once given, it stays
    assert during["status"] == "added"


def test_nothing_acknowledged_is_missing_however_often_versions_change(client: TestClient) -> None:
    ask(client, "", 201, version=2)
    missing: list[str] = []
    over = threading.Event()

    def swap() -> None:
        active = 1
        while not over.wait(0.01):
            active = 3 - active
            ask(client, f"/demo/{active}/activate")

    swapping = threading.Thread(target=swap)
    swapping.start()
    versions = set()
    for number in range(40):
        name = f"n{number}"
        put = client.put(f"/v1/items/{name}", json={**ITEM, "title": f"Quillon mouse {number}"})
        assert put.status_code == 200
        answer = client.get(f"/v1/items/{name}")
        versions.add(client.get("/readyz").json()["bundle"]["version"])
        if answer.status_code != 200 or shown(client, name) != {name}:
            missing.append(name)
    over.set()
    swapping.join()
    assert missing == []
    assert versions == {1, 2}


def test_a_version_that_lags_does_not_become_active(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(client, "", 201, version=2)
    lagging = client.app_state["service"].holder.get("demo", 2).catalogue
    change = LiveCatalogue.change

    async def unavailable(self: LiveCatalogue, changes: Any) -> Any:
        if self is lagging:
            raise CatalogueUnavailable("Redis: it is a test")
        return await change(self, changes)

    with monkeypatch.context() as patch:
        patch.setattr(LiveCatalogue, "change", unavailable)
        patch.setattr(lagging, "_turn", lambda callers: asyncio.sleep(0))
        assert client.put("/v1/items/new", json=ITEM).status_code == 200  # hinders nobody
        assert ask(client, "/demo/2/activate", 503)["type"].endswith("catalogue-unavailable")
        assert client.get("/readyz").json()["bundle"]["version"] == 1
    ask(client, "/demo/2/activate")
    assert shown(client, "new") == {"new"}


def test_one_can_roll_back_while_redis_is_away(
    make_client: MakeClient, store: Path, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path / "own") as redis:
        client = make_client(store=str(store), redis_url=redis.url)
        assert client.put("/v1/items/new", json=ITEM).status_code == 200
        ask(client, "", 201, version=2)
        ask(client, "/demo/2/activate")
    ask(client, "/rollback")
    answer = client.post("/v1/recommendations", json={"history": ["p00001"]}).json()
    assert (answer["bundle"]["version"], answer["source"]) == (1, "model")
    ask(client, "/demo/2/warm-up")
    began = time.monotonic()
    ask(client, "/demo/2/activate")
    assert time.monotonic() < began + 30
