"""`GET /v1/bundle`, and the version that a recommendation names."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient
from tests.service.stores import copied
from tests.service.test_api import HISTORY, event, recommend
from tests.service.test_refusals import refused
from tests.service.titled import titled_bundle

ONE, TWO = ({"name": "shop", "version": number} for number in (1, 2))
SHARED = [f"item-{n}" for n in range(40, 60)]


def told(client: TestClient) -> dict[str, Any]:
    response = client.get("/v1/bundle")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.fixture
def served(make_client: MakeClient, versions: tuple[Bundle, Bundle], tmp_path: Path) -> TestClient:
    """Both versions loaded, the first one active, answers kept."""
    store = copied(versions, tmp_path / "store")
    client = make_client(store=str(store.root), max_models=2, cache_ttl_ms=60_000)
    assert client.post("/v1/models", json={"version": 2}).status_code == 201
    return client


class TestWhatIsTold:
    def test_it_is_what_the_bundle_says(self, client: TestClient, bundle: Bundle) -> None:
        answer = told(client)
        assert (answer["name"], answer["version"]) == (bundle.name, bundle.version)
        assert (answer["engine"], answer["items"]) == ("fake", 300)
        assert answer["levels"] == [
            {"name": name, "size": level.size}
            for name, level in zip("abcd", bundle.spec.levels, strict=True)
        ]
        assert answer["attributes"] == [
            {"name": "item_id", "type": "text"},
            {"name": "title", "type": "text"},
            {"name": "brand", "type": "text"},
            {"name": "price", "type": "number"},
            {"name": "popularity", "type": "number"},
        ]
        assert (answer["profile"], answer["scenes"]) == ([], [])
        assert (answer["beam_width"], answer["max_k"]) == (20, 200)

    def test_all_that_is_told_may_be_asked(
        self, make_client: MakeClient, scene_bundle: Bundle
    ) -> None:
        client = make_client(bundle=scene_bundle.path, beam_width=7)
        about = told(client)
        assert about["beam_width"] == 7
        assert about["profile"] == [{"name": "age", "values": ["young", "old"]}]
        assert about["scenes"] == ["home", "cart"]
        for scene in about["scenes"]:
            assert recommend(client, history=HISTORY, scene=scene)["source"] == "model"
        for field in about["profile"]:
            for value in field["values"]:
                profile = {"profile": {field["name"]: value}}
                assert client.put("/v1/users/ann/profile", json=profile).is_success
        [item] = client.get("/v1/items", params={"limit": 1}).json()["items"]
        values = {**item["attributes"], "item_id": item["item_id"], "title": item["title"]}
        for attribute in about["attributes"]:
            wanted = {attribute["name"]: {"in": [values[attribute["name"]]]}}
            answer = recommend(client, history=HISTORY, k=60, filter=wanted)
            assert item["item_id"] in {found["item_id"] for found in answer["items"]}
        k = about["max_k"]
        assert recommend(client, history=HISTORY, k=k)["items"]
        assert client.post("/v1/recommendations", json={"k": k + 1}).status_code == 422

    def test_items_that_came_and_went_count(self, client: TestClient) -> None:
        new = {"item_id": "new", "title": "New", "sid": "<a_1><b_1><c_1>"}
        changes = [{"item_id": "item-3", "deleted": True}, {"item_id": "item-4", "deleted": True}]
        assert client.put("/v1/items", json={"items": [*changes, new]}).json()["refused"] == 0
        assert told(client)["items"] == 299

    @pytest.mark.parametrize(
        "mix", [{}, {"title_to_sid": 0.0, "sid_to_title": 0.5}, {"sid_to_title": 0.0}, None]
    )
    def test_what_it_cannot_do_is_what_is_refused(
        self, make_client: MakeClient, tmp_path: Path, mix: dict[str, float] | None
    ) -> None:
        titled = titled_bundle(tmp_path, mix=mix)
        client = make_client(bundle=titled.path)
        answers = told(client)["answers"]
        tries = {
            "search": client.post("/v1/search", json={"query": "Title 7"}),
            "describe": client.get("/v1/items/item-7/describe"),
        }
        assert answers.keys() == tries.keys()
        for what, response in tries.items():
            if answers[what] is None:
                assert response.status_code == 200, response.text
            else:
                assert response.status_code == 409
                assert response.json()["detail"] == answers[what]
        expected = [name for name, task in TASKS.items() if (mix or {}).get(task) == 0]
        assert [what for what, why in answers.items() if why is not None] == expected

    def test_a_bundle_without_title_tasks(self, client: TestClient) -> None:
        assert all(told(client)["answers"].values())

    def test_it_follows_what_is_active(self, served: TestClient) -> None:
        assert told(served)["version"] == 1
        assert served.post("/v1/models/shop/2/activate").is_success
        assert told(served)["version"] == 2


TASKS = {"search": "title_to_sid", "describe": "sid_to_title"}


class TestTheVersionThatShallAnswer:
    def test_it_is_the_one_that_answers(
        self, served: TestClient, versions: tuple[Bundle, Bundle]
    ) -> None:
        for wanted, bundle in zip((ONE, TWO), versions, strict=True):
            answer = recommend(served, history=SHARED, k=60, beam_width=60, bundle=wanted)
            assert answer["bundle"] == wanted
            sids = dict(zip(bundle.catalogue.item_ids, bundle.sids, strict=True))
            assert {item["item_id"]: item["sid"] for item in answer["items"]} == sids

    def test_beside_each_other_they_keep_their_own_answers(self, served: TestClient) -> None:
        asked = {"history": SHARED, "k": 5}
        first = [recommend(served, **asked, bundle=wanted) for wanted in (ONE, TWO)]
        again = [recommend(served, **asked, bundle=wanted) for wanted in (ONE, TWO)]
        assert first[0]["items"] != first[1]["items"]
        for one, other in zip(first, again, strict=True):
            assert "cached" not in one
            assert other["cached"] is True
            assert (other["items"], other["bundle"]) == (one["items"], one["bundle"])
        # Named or not, it is the same question.
        unnamed = recommend(served, **asked)
        assert (unnamed["cached"], unnamed["bundle"]) == (True, ONE)
        assert unnamed["items"] == first[0]["items"]

    def test_in_a_batch_each_names_its_own(self, served: TestClient) -> None:
        asked: dict[str, Any] = {"history": SHARED, "k": 4, "trace": True}
        gone = {"name": "shop", "version": 3}
        names: list[dict[str, Any]] = [{"bundle": TWO}, {"bundle": gone}, {}, {"bundle": ONE}]
        named = [asked | name for name in names]
        results = served.post("/v1/recommendations/batch", json={"requests": named}).json()
        two, none, active, one = results["results"]
        assert [two["answer"]["bundle"], one["answer"]["bundle"]] == [TWO, ONE]
        assert active["answer"]["bundle"] == ONE
        assert two["answer"]["beam"] != one["answer"]["beam"] == active["answer"]["beam"]
        assert (none["status"], none["answer"]) == (404, None)
        assert none["problem"]["type"] == "urn:sidrec:problem:model-not-loaded"

    def test_one_that_is_not_loaded(self, served: TestClient) -> None:
        for name, version in (("shop", 3), ("other", 1)):
            body = {"history": SHARED, "bundle": {"name": name, "version": version}}
            response = served.post("/v1/recommendations", json=body)
            assert response.status_code == 404
            assert response.json()["type"] == "urn:sidrec:problem:model-not-loaded"
            assert f"{name} {version}" in response.json()["detail"]
        assert served.delete("/v1/models/shop/2").status_code == 204
        response = served.post("/v1/recommendations", json={"history": SHARED, "bundle": TWO})
        assert response.status_code == 404

    def test_it_is_in_no_experiment(self, served: TestClient) -> None:
        arms = [{"name": "a", "share": 0.5, "control": True}]
        arms.append({"name": "b", "share": 0.5, "bundle": TWO})
        response = served.put("/v1/experiments/versions", json={"arms": arms})
        assert response.is_success, response.text
        served.post("/v1/events", json=[event(n, item_id=SHARED[n]) for n in range(3)])
        under = recommend(served, user_id="ann")
        assert under["experiments"]
        for wanted in (ONE, TWO):
            answer = recommend(served, user_id="ann", bundle=wanted)
            assert answer["bundle"] == wanted
            assert "experiments" not in answer

    @pytest.mark.parametrize(
        ("wanted", "field"),
        [
            ("shop", "bundle"),
            ({"name": "shop"}, "bundle.version"),
            ({"version": 1}, "bundle.name"),
            ({"name": "shop", "version": "1"}, "bundle.version"),
            ({"name": "shop", "version": 0}, "bundle.version"),
            ({"name": "", "version": 1}, "bundle.name"),
            ({"name": "shop", "version": 1, "alias": "x"}, "bundle.alias"),
        ],
    )
    def test_what_is_no_version(self, client: TestClient, wanted: Any, field: str) -> None:
        response = client.post("/v1/recommendations", json={"bundle": wanted})
        assert refused(response, 422, field), json.dumps(response.json())
