"""The catalogue, page by page, as it is at the moment."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient
from tests.service.test_refusals import refused
from tests.tiny import make_bundle, random_items


def page(client: TestClient, **asked: Any) -> dict[str, Any]:
    response = client.get("/v1/items", params=asked)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def everything(client: TestClient, **asked: Any) -> list[dict[str, Any]]:
    """The items of all pages."""
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        answer = page(client, **asked, **after)
        assert len(answer["items"]) <= asked.get("limit", 20)
        found += answer["items"]
        if answer["next"] is None:
            return found
        assert answer["items"]
        after = {"after": answer["next"]}


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


@pytest.mark.parametrize("limit", [1, 7, 100, 150, 200])
def test_every_item_comes_once_in_the_order_of_sids(
    client: TestClient, bundle: Bundle, limit: int
) -> None:
    found = everything(client, limit=limit)
    assert ids(found) == bundle.catalogue.item_ids
    assert [item["sid"] for item in found] == bundle.sids
    some = found[:: max(1, len(found) // 5)]
    assert some == [client.get(f"/v1/items/{item_id}").json() for item_id in ids(some)]


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("title 7", lambda title, item: "title" in title.lower() and has(title, item, "7")),
        ("标题 1 2", lambda title, item: has(title, item, "1") and has(title, item, "2")),
        ("ITEM-29", lambda title, item: item.startswith("item-29")),
        ("  ", lambda title, item: True),
        (".*", lambda title, item: False),
        ("%", lambda title, item: False),
    ],
)
def test_every_word_is_somewhere_in_title_or_id(
    client: TestClient, bundle: Bundle, query: str, holds: Callable[[str, str], bool]
) -> None:
    catalogue = bundle.catalogue
    expected = [
        item_id
        for item_id, title in zip(catalogue.item_ids, catalogue.titles, strict=True)
        if holds(str(title), item_id)
    ]
    assert ids(everything(client, query=query, limit=9)) == expected


def has(title: str, item_id: str, word: str) -> bool:
    return word in title or word in item_id


def test_changes_are_seen_at_once(client: TestClient, bundle: Bundle) -> None:
    gone, named, moved = bundle.catalogue.item_ids[5], bundle.catalogue.item_ids[20], "item-0"
    changes = [
        {"item_id": gone, "deleted": True},
        {"item_id": named, "title": "Ein grüner Hut"},
        {"item_id": "new", "title": "Noch ein HUT", "sid": bundle.sids[0]},
    ]
    assert client.put("/v1/items", json={"items": changes}).json()["refused"] == 0
    found = everything(client, limit=30)
    assert sorted(ids(found)) == sorted({*bundle.catalogue.item_ids, "new"} - {gone})
    assert [item["sid"] for item in found] == sorted(
        (item["sid"] for item in found), key=bundle.sids.index
    )
    assert {named, "new"} == set(ids(page(client, query="hut ein")["items"]))
    assert ids(page(client, query="GRÜNER")["items"]) == [named]
    assert page(client, query=gone + " ")["items"] == [
        item for item in found if gone in item["item_id"]
    ]
    assert moved in ids(found)


def test_a_page_goes_on_although_the_last_item_of_the_one_before_has_changed(
    client: TestClient, bundle: Bundle
) -> None:
    first = page(client, limit=10)
    client.put(f"/v1/items/{first['next']}", json={"title": "Another title"})
    second = page(client, limit=10, after=first["next"])
    assert ids(first["items"] + second["items"]) == bundle.catalogue.item_ids[:20]
    client.delete(f"/v1/items/{first['next']}")
    response = client.get("/v1/items", params={"after": first["next"]})
    assert refused(response, 422, "after")


def test_items_without_titles(make_client: MakeClient, tmp_path_factory: Any) -> None:
    items = random_items(30, (4, 4, 4))
    for item in items:
        del item["title"]
    client = make_client(bundle=make_bundle(tmp_path_factory.mktemp("untitled"), items).path)
    assert len(everything(client, query="item")) == 30
    assert ids(page(client, query="item-29")["items"]) == ["item-29"]
    assert page(client, query="title")["items"] == []


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"query": "x" * 257}, "query"),
        ({"after": "nobody"}, "after"),
        ({"after": ""}, "after"),
    ],
)
def test_what_cannot_be_read(client: TestClient, asked: dict[str, Any], field: str) -> None:
    assert refused(client.get("/v1/items", params=asked), 422, field)
