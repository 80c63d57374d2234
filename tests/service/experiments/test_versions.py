"""Arms that are versions: given, kept through a restart and while an experiment needs them."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient
from tests.service.experiments.conftest import design
from tests.service.stores import copied
from tests.service.test_api import recommend
from tests.service.test_metrics import scrape, value
from tests.service.test_refusals import refused

HISTORY = [f"item-{n}" for n in range(40, 50)]
ARMS = [
    {"name": "old", "share": 0.5, "control": True},
    {"name": "new", "share": 0.5, "bundle": {"name": "shop", "version": 2}},
]
NEW = "/v1/models/shop/2"
URL = "/v1/experiments/models"


@pytest.fixture
def store(versions: tuple[Bundle, Bundle], tmp_path: Path) -> str:
    return str(copied(versions, tmp_path / "store").root)


def begun(client: TestClient, **more: Any) -> TestClient:
    """With the second version loaded, and the experiment."""
    assert client.post("/v1/models", json={"version": 2}).is_success
    response = client.put(URL, json=design(arms=ARMS, **more))
    assert response.status_code == 200, response.text
    return client


def answers(client: TestClient, count: int = 20) -> Counter[tuple[int, str]]:
    """How many came from which version, in which arm."""
    found: Counter[tuple[int, str]] = Counter()
    for n in range(count):
        answer = recommend(client, user_id=f"u{n}", history=HISTORY)
        members = answer.get("experiments") or [{"arm": "outside"}]
        found[answer["bundle"]["version"], members[0]["arm"]] += 1
    return found


def loaded(client: TestClient) -> list[int]:
    return [model["version"] for model in client.get("/v1/models").json()["models"]]


def test_each_arm_has_its_version_after_a_restart_too(make_client: MakeClient, store: str) -> None:
    before = answers(begun(make_client(store=store)))
    assert set(before) == {(1, "old"), (2, "new")}
    again = make_client(store=store)
    assert loaded(again) == [1, 2]
    assert answers(again) == before
    assert value(scrape(again), "bundle_active", name="shop", version="1") == 1


def test_what_cannot_be_loaded_again_is_told_and_counted(
    make_client: MakeClient, store: str
) -> None:
    before = answers(begun(make_client(store=store)))
    with capture_logs() as said:
        again = make_client(store=store, max_models=1)
        after = answers(again)
    assert loaded(again) == [1]
    assert after == {(1, "old"): before[1, "old"], (1, "outside"): before[2, "new"]}
    [line] = [line for line in said if line["event"] == "not_loaded"]
    assert line["version"] == "shop 2"
    assert "1 of 1 versions are loaded" in line["error"]
    [line] = [line for line in said if line["event"] == "arm_not_given"]  # not one for each answer
    assert (line["experiment"], line["reason"]) == ("models", "not_loaded")
    labels = {"experiment": "models", "reason": "not_loaded"}
    assert value(scrape(again), "experiment_skipped_total", **labels) == before[2, "new"]


def test_a_version_that_an_experiment_needs_is_not_unloaded(
    make_client: MakeClient, store: str
) -> None:
    client = begun(make_client(store=store))
    problem = refused(client.delete(NEW), 409)
    assert problem["type"] == "urn:sidrec:problem:model-conflict"
    assert "an arm of the experiment models" in problem["detail"]
    assert loaded(client) == [1, 2]
    assert client.post(f"{URL}/stop").is_success
    assert client.delete(NEW).status_code == 204
    assert loaded(client) == [1]


def test_nor_one_that_it_will_need(make_client: MakeClient, store: str) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    client = begun(make_client(store=store), start=tomorrow.isoformat())
    other = make_client(store=store)
    assert loaded(other) == [1, 2]
    for process in (client, other):
        refused(process.delete(NEW), 409)
    assert client.delete(URL).status_code == 204
    assert other.delete(NEW).status_code == 204  # which it reads at once


def test_the_replica_that_lacks_it_answers_all_the_same(
    make_client: MakeClient, store: str
) -> None:
    replica = make_client(store=store)
    before = answers(begun(make_client(store=store)))
    assert replica.get("/v1/experiments").is_success  # it knows the experiment by now
    assert answers(replica) == {(1, "old"): before[1, "old"], (1, "outside"): before[2, "new"]}
