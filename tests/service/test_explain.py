"""Why an item was found: every level of every SID, counted one by one."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, recommend


@pytest.fixture(params=["torch", "fake"])
def client(request: pytest.FixtureRequest, make_client: MakeClient) -> TestClient:
    return make_client(engine=request.param, threads=1)


def eligible_under(bundle: Bundle, prefix: str, excluded: set[str]) -> int:
    return sum(
        sid.startswith(prefix) and item not in excluded
        for sid, item in zip(bundle.sids, bundle.catalogue.item_ids, strict=True)
    )


@pytest.mark.parametrize("excluded", [0, 150, 290])
def test_levels_sum_up_and_count_what_was_eligible(
    client: TestClient, bundle: Bundle, excluded: int
) -> None:
    gone = [f"item-{n}" for n in range(excluded)]
    answer = recommend(client, history=HISTORY, k=200, exclude=gone, explain=True)
    plain = recommend(client, history=HISTORY, k=200, exclude=gone)
    assert len(answer["items"]) == min(200, 300 - excluded)
    for item, same in zip(answer["items"], plain["items"], strict=True):
        levels: list[dict[str, Any]] = item.pop("levels")
        assert item == pytest.approx(same, abs=1e-5)
        assert "".join(level["token"] for level in levels) == item["sid"]
        total = sum(level["log_probability"] for level in levels)
        assert total == pytest.approx(item["score"], abs=1e-5)
        prefix = ""
        for level in levels:
            assert level["log_probability"] < 0
            prefix += level["token"]
            assert level["eligible_items"] == eligible_under(bundle, prefix, set(gone))
    if excluded == 0:  # SIDs with and without the extra token
        assert {item["sid"].count("<") for item in answer["items"]} == {3, 4}


def test_popular_items_have_nothing_to_explain(client: TestClient) -> None:
    answer = recommend(client, explain=True)
    assert answer["source"] == "popular"
    assert all("levels" not in item for item in answer["items"])
