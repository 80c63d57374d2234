"""`sidrec serve` with vLLM answers over HTTP what it answers with the torch engine."""

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest

from model_store.bundle import Bundle
from service.engine import Beam
from tests.conformance.agreement import assert_agree
from tests.conformance.conftest import OPTIONS
from tests.service.test_app_process import Process

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None and not os.environ.get("CI"),
    reason="vLLM is not installed",
)

USERS = {"ann": 1, "bob": 7, "chen": 30, "dora": 120}
"""Users and how many events of theirs are stored."""

Body = dict[str, Any]


def some_items(bundle: Bundle, count: int, seed: int) -> list[str]:
    rows = np.random.default_rng(seed).integers(len(bundle.catalogue), size=count)
    return [bundle.catalogue.item_ids[row] for row in rows]


@pytest.fixture(scope="module")
def clients(
    demo: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of two processes, with vLLM and with torch, that know the same users."""
    events = [
        {"event_id": f"{n}", "user_id": user, "item_id": item, "timestamp": 1_750_000_000 + n}
        for user, count in USERS.items()
        for n, item in enumerate(some_items(demo, count, seed=count))
    ]
    processes = []
    for kind in ("vllm", "torch"):
        environment = {
            "SIDREC_STATE_DIR": str(tmp_path_factory.mktemp(kind)),
            "SIDREC_ENGINE_OPTIONS": json.dumps(OPTIONS[kind]),
            "SIDREC_THREADS": "1",
        }
        processes.append(Process(["--engine", kind], environment))
    try:
        with ExitStack() as stack:
            vllm, torch = (stack.enter_context(process.client()) for process in processes)
            for client in (vllm, torch):
                assert client.post("/v1/events", json=events).json()["accepted"] == len(events)
            yield vllm, torch
        assert [process.end(signal.SIGTERM)[0] for process in processes] == [0, 0]
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def bodies(demo: Bundle) -> list[Body]:
    scenes = demo.manifest.prompt.scenes
    carried: list[Body] = [
        {"history": some_items(demo, count, seed=100 + n), "k": (10, 20, 1)[n % 3]}
        for n, count in enumerate((1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 200))
    ]
    wide: list[Body] = [
        {"history": some_items(demo, 6, seed=200 + n), "k": k, "beam_width": width}
        for n, (k, width) in enumerate(((60, 20), (200, 1), (5, 1), (7, 50), (10, 256), (33, 33)))
    ]
    stored: list[Body] = [{"user_id": user, "k": k} for user in USERS for k in (10, 30)]
    told: list[Body] = [
        {"user_id": "bob", "profile": {"性别": "女", "年龄": "26-35岁"}},
        {"user_id": "bob", "profile": {"性别": "no such", "x": "y"}, "scene": scenes[0]},
        {"user_id": "chen", "history": some_items(demo, 4, seed=300), "scene": scenes[-1]},
        {"user_id": "ann", "history": ["gone", *some_items(demo, 3, seed=301), "gone too"]},
    ]
    popular: list[Body] = [
        {"user_id": "nobody", "k": 25},
        {"user_id": "ann", "history": []},
        {"history": ["gone"], "scene": scenes[0]},
        {},
    ]
    return [*carried, *wide, *stored, *told, *popular]


def answer(client: httpx.Client, body: Body) -> dict[str, Any]:
    response = client.post("/v1/recommendations", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def beams(items: list[dict[str, Any]], bundle: Bundle) -> list[Beam]:
    """The items of an answer by the model, each of which has a SID of its own in the demo."""
    rows = [bundle.catalogue.row_of[item["item_id"]] for item in items]
    return [
        Beam(tuple(bundle.catalogue.codes[row].tolist()), item["score"], range(row, row + 1))
        for row, item in zip(rows, items, strict=True)
    ]


def assert_same_answer(found: dict[str, Any], right: dict[str, Any], bundle: Bundle) -> None:
    for each in (found, right):
        del each["request_id"], each["timing_ms"]
        for rank, item in enumerate(each["items"], start=1):
            assert item["sid"] == bundle.sids[bundle.catalogue.row_of[item["item_id"]]]
            assert item["rank"] == rank
    ours, theirs = found.pop("items"), right.pop("items")
    assert found == right
    if right["source"] in ("model", "profile"):
        assert_agree(beams(ours, bundle), beams(theirs, bundle))
    else:
        assert ours == theirs


def test_one_after_the_other(
    clients: tuple[httpx.Client, httpx.Client], bodies: list[Body], demo: Bundle
) -> None:
    assert len(bodies) >= 30
    sources = []
    for body in bodies:
        found, right = (answer(client, body) for client in clients)
        sources.append(right["source"])
        assert len(right["items"]) == body.get("k", 10)
        assert_same_answer(found, right, demo)
    template = demo.manifest.prompt
    in_scene = "profile" if demo.cold and "{scene}" in template.text else "popular_in_scene"
    assert sources[:-4] == ["model"] * (len(bodies) - 4)
    assert sources[-4:] == ["popular", "popular", in_scene, "popular"]


def test_all_at_once(
    clients: tuple[httpx.Client, httpx.Client], bodies: list[Body], demo: Bundle
) -> None:
    vllm, torch = clients
    with ThreadPoolExecutor(len(bodies)) as pool:
        found = list(pool.map(lambda body: answer(vllm, body), bodies))
    for body, ours in zip(bodies, found, strict=True):
        assert_same_answer(ours, answer(torch, body), demo)


@pytest.mark.parametrize("body", [{"k": 0}, {"scene": "attic"}, {"history": ["x"] * 201}])
def test_refusals(clients: tuple[httpx.Client, httpx.Client], body: Body) -> None:
    found, right = (client.post("/v1/recommendations", json=body) for client in clients)
    assert found.status_code == right.status_code == 422
    assert {**found.json(), "request_id": ""} == {**right.json(), "request_id": ""}
