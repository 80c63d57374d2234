"""Search and description over HTTP, with the real engine."""

from typing import Any

import pytest
from starlette.testclient import TestClient
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Query, create_engine
from service.title_prompts import LONGEST_TITLE, TitlePrompts
from tests.service.conftest import MakeClient
from tests.service.test_metrics import scrape, value
from tests.service.test_refusals import refused
from tests.service.titled import titled_bundle


@pytest.fixture(scope="module")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return titled_bundle(tmp_path_factory.mktemp("titled"))


@pytest.fixture
def client(make_client: MakeClient, titled: Bundle) -> TestClient:
    return make_client(bundle=titled.path, engine="torch", threads=1)


def search(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_items_are_those_of_the_best_beams(client: TestClient, titled: Bundle) -> None:
    answer = search(client, query="Title 7 标题", k=60)
    with create_engine("torch", titled, device="cpu") as engine:
        [beams] = engine.search_batch([Query(TitlePrompts(titled).ask_sid("Title 7 标题"), 60)])
    ids = titled.catalogue.item_ids
    assert [item["item_id"] for item in answer["items"]] == [
        ids[row] for beam in beams for row in beam.rows
    ]
    assert [item["rank"] for item in answer["items"]] == list(range(1, 61))
    assert answer["bundle"] == {"name": "tiny", "version": 1}
    assert answer["eligible_items"] == 60
    assert list(answer["timing_ms"]) == ["eligibility", "search", "items", "total"]


def test_excluded_items_are_left_out_inside_the_search(client: TestClient, titled: Bundle) -> None:
    first = search(client, query="Title 7", k=5)["items"]
    gone = [item["item_id"] for item in first]
    answer = search(client, query="Title 7", k=60, exclude=[*gone, "unknown"])
    assert len(answer["items"]) == answer["eligible_items"] == 55
    assert not {item["item_id"] for item in answer["items"]} & set(gone)
    nothing = search(client, query="Title 7", exclude=titled.catalogue.item_ids)
    assert (nothing["items"], nothing["eligible_items"]) == ([], 0)


def test_a_filter_is_part_of_the_search(client: TestClient, titled: Bundle) -> None:
    answer = search(client, query="Title 7", k=60, filter={"brand": "brand-3"})
    assert {item["item_id"] for item in answer["items"]} == {f"item-{n}" for n in range(3, 60, 5)}
    assert answer["eligible_items"] == 12
    nothing = search(client, query="Title 7", filter={"brand": "brand-3", "price": {"lt": 0}})
    assert nothing["items"] == []
    response = client.post("/v1/search", json={"query": "Title 7", "filter": {"colour": "red"}})
    assert refused(response, 422, "filter.colour")


def test_an_explained_search(client: TestClient, titled: Bundle) -> None:
    excluded = titled.catalogue.item_ids[::2]
    mask = Eligibility.of(excluded=range(0, 60, 2))
    for item in search(client, query="Title", k=9, exclude=excluded, explain=True)["items"]:
        levels = item["levels"]
        assert "".join(level["token"] for level in levels) == item["sid"]
        assert sum(level["log_probability"] for level in levels) == pytest.approx(item["score"])
        prefix = ""
        for level in levels:
            prefix += level["token"]
            under = [row for row, sid in enumerate(titled.sids) if sid.startswith(prefix)]
            expected = sum(len(mask.rows(row, row + 1)) for row in under)
            assert level["eligible_items"] == expected > 0


def test_a_description(client: TestClient, titled: Bundle) -> None:
    response = client.get("/v1/items/item-3/describe")
    assert response.status_code == 200, response.text
    answer = response.json()
    row = titled.catalogue.row_of["item-3"]
    assert (answer["item_id"], answer["sid"]) == ("item-3", titled.sids[row])
    assert answer["title"] == "Title 3 标题"
    assert answer["text"]
    assert list(answer["timing_ms"]) == ["prompt", "text", "total"]
    assert isinstance(answer["complete"], bool)
    assert client.get("/v1/items/item-3/describe").json()["text"] == answer["text"]


def test_a_text_without_end_is_cut(make_client: MakeClient, titled: Bundle) -> None:
    client = make_client(bundle=titled.path)  # the fake engine repeats its prompt
    answer = client.get("/v1/items/item-3/describe").json()
    assert answer["text"] == "What is ?"
    assert answer["complete"]
    assert titled.max_length > LONGEST_TITLE


def test_a_bundle_that_was_not_trained_for_it(client: TestClient, make_client: MakeClient) -> None:
    plain = make_client()
    for response in (
        plain.post("/v1/search", json={"query": "shoes"}),
        plain.get("/v1/items/item-3/describe"),
    ):
        problem = refused(response, 409)
        assert problem["type"] == "urn:sidrec:problem:not-trained"
        assert "bundle tiny 1 has no prompts for titles" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": 7}, "query"),
        ({"query": "x" * 513}, "query"),
        ({"query": "鞋" * 300}, "query"),
        ({"query": "<a_3>"}, "query"),
        ({"query": "shoes <|endoftext|>"}, "query"),
        ({"query": "shoes", "k": 201}, "k"),
        ({"query": "shoes", "beam_width": 513}, "beam_width"),
        ({"query": "shoes", "exclude": ["x"] * 1001}, "exclude"),
        ({"query": "shoes", "explain": "perhaps"}, "explain"),
        ({"query": "shoes", "user_id": "ann"}, "user_id"),
    ],
)
def test_searches_that_cannot_be_used(client: TestClient, body: Any, field: str) -> None:
    refused(client.post("/v1/search", json=body), 422, field)


def test_an_item_that_is_not_there(client: TestClient) -> None:
    refused(client.get("/v1/items/gone/describe"), 404)


def test_an_engine_in_trouble(make_client: MakeClient, titled: Bundle) -> None:
    client = make_client(bundle=titled.path)
    client.app_state["service"].holder.current.engine.fails = True
    for response in (
        client.post("/v1/search", json={"query": "shoes"}),
        client.get("/v1/items/item-3/describe"),
    ):
        problem = refused(response, 503)
        assert problem["type"] == "urn:sidrec:problem:engine-error"


def test_log_and_metrics_know_them(client: TestClient) -> None:
    with capture_logs(processors=[merge_contextvars]) as lines:
        search(client, query="Title 7")
        client.get("/v1/items/item-3/describe")
    requests = [one for one in lines if one["event"] == "request"]
    for said, stage in zip(requests, ("items", "text"), strict=True):
        assert said["version"] == "tiny/1"
        assert said["timing_ms"][stage] <= said["timing_ms"]["total"] <= said["duration_ms"]
    samples = scrape(client)
    for task, stage in (("search", "search"), ("search", "total"), ("describe", "text")):
        assert value(samples, "title_stage_seconds_count", task=task, stage=stage) == 1
    assert value(samples, "stage_seconds_count", stage="total") == 0
