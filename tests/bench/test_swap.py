"""The benchmark of swaps from end to end, and that it would see an answer of no version."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.http_load import Answered, Reply, Sent
from bench.swap import _spans
from bench.swapped import Swap, inconsistent, two_versions
from model_store.bundle import Bundle
from model_store.store import Store
from tests.bench.conftest import Measure

SIDS = {1: {"hat": "<a_1>", "bag": "<a_2>"}, 2: {"hat": "<a_2>", "bag": "<a_1>"}}
SWAPS = [Swap(2, 10.0, 10.5, 1, 0), Swap(1, 20.0, 20.5, 1, 0)]


def test_swaps_under_load(measure: Measure, bundle: Bundle) -> None:
    found = measure(
        "swap",
        *("--bundle", bundle.path, "--engine", "fake", "--swaps", 2, "--every", 6),
        *("--saturate", 0.5, "--share", 0.2, "--users", 20, "--threads", 1),
    )
    quiet, swapping = found["rows"]
    assert swapping["swaps"] == 2
    assert (swapping["failed"], swapping["inconsistent"]) == (0, 0)
    assert swapping["checked"] == swapping["asked"] >= swapping["requests"] + quiet["requests"]
    assert min(swapping["requests"], quiet["requests"]) > 10
    assert swapping["unready"] == 0 < swapping["readyz"]
    ratio = swapping["p99_ms"] / quiet["p99_ms"]
    assert abs(swapping["p99_over_quiet"] / ratio - 1) < 1e-9


def test_swaps_take_turns_with_spans_without() -> None:
    each = [Sent(second, 0.1, "200") for second in (0.5, 1.5, 4.0, 6.5, 9.0, 10.5, 13.0, 16.0)]
    answered = Answered([0.1] * 8, {"200": 8}, 17.0, 0.0, each=each, began=100.0)
    # The first one began before the load did, as it may.
    made = [Swap(2, 100.5, 101.0, 1.0, 0.5), Swap(1, 109.5, 110.0, 0.5, 1.0)]
    assert [swap.began for swap in made] == [99.5, 109.0]
    assert [swap.seconds for swap in made] == [2.0, 2.0]
    due = [[[one.due for one in half] for half in span] for span in _spans(answered, made, 10)]
    assert due == [[[0.5, 1.5, 4.0], [6.5, 9.0]], [[9.0, 10.5, 13.0], [16.0]]]


def test_two_versions_that_share_no_item_with_its_sid(bundle: Bundle, tmp_path: Path) -> None:
    sids = two_versions(bundle, tmp_path)
    store = Store(tmp_path)
    for number in (1, 2):
        made = Bundle.load(store.path(bundle.name, number))
        assert dict(zip(made.catalogue.item_ids, made.sids, strict=True)) == sids[number]
    same = sum(sids[1][item] == sids[2][item] for item in sids[1])
    assert same < len(sids[1]) / 10
    assert store.resolve(f"{bundle.name}@champion") == (bundle.name, 1)


def reply(due: float, there: float, version: int, **items: str) -> Reply:
    found: dict[str, Any] = {
        "request_id": "r",
        "bundle": {"name": "shop", "version": version},
        "items": [{"item_id": item, "sid": sid} for item, sid in items.items()],
    }
    return Reply(due, there, json.dumps(found).encode())


@pytest.mark.parametrize(
    "right",
    [
        reply(1, 2, 1, hat="<a_1>", bag="<a_2>"),
        reply(9, 10.2, 2, hat="<a_2>"),  # activated while it was on its way
        reply(10.4, 12, 1, hat="<a_1>"),  # not acknowledged yet
        reply(15, 16, 2),
        reply(30, 31, 1, bag="<a_2>"),
    ],
)
def test_an_answer_of_one_version(right: Reply) -> None:
    assert inconsistent([right], SWAPS, SIDS) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (reply(1, 2, 2), "version 2 was not active"),
        (reply(10.6, 12, 1), "version 1 was not active"),
        (reply(30, 31, 2), "version 2 was not active"),
        (reply(1, 2, 1, hat="<a_1>", bag="<a_1>"), "bag is not <a_1> in version 1"),
        (reply(1, 2, 1, shoe="<a_1>"), "shoe is not <a_1> in version 1"),
    ],
)
def test_an_answer_of_no_version(wrong: Reply, why: str) -> None:
    [line] = inconsistent([wrong], SWAPS, SIDS)
    assert why in line
