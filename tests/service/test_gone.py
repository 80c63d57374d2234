"""Work whose caller has gone is dropped before the engine starts it, on every way to the engine."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from model_store.bundle import Bundle
from tests.service.test_api import HISTORY
from tests.service.test_app_process import Serve, in_flight, serve
from tests.service.test_title_search import titled

__all__ = ["serve", "titled"]

ASK = {"history": HISTORY}
WORK: dict[str, dict[str, Any]] = {
    "/v1/recommendations": ASK,
    "/v1/recommendations/batch": {"requests": [ASK] * 5},
    "/v1/items/item-1/similar": {},
    "/v1/search": {"query": "Title 7"},
}


def searched(client: httpx.Client) -> int:
    """Queries that the engine has run."""
    [line] = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("sidrec_engine_batch_size_sum ")
    ]
    return int(float(line.split()[1]))


def test_what_nobody_waits_for_is_not_searched(serve: Serve, titled: Bundle) -> None:
    process = serve("--engine", "fake", bundle=titled.path, engine_options='{"delay_ms": 2000}')
    with process.client() as client, ThreadPoolExecutor(1) as pool:
        before = searched(client)
        first = pool.submit(client.post, "/v1/recommendations", json=ASK)
        while searched(client) == before:  # its batch runs: whoever comes now waits
            time.sleep(0.01)
        for path, body in WORK.items():
            with pytest.raises(httpx.ReadTimeout):
                client.post(path, json=body, timeout=0.2)
        end = time.monotonic() + 20
        while in_flight(client) > 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not first.done()
        assert first.result().json()["source"] == "model"
        # The engine is free again, and had nothing else to do.
        assert client.post("/v1/recommendations", json=ASK).is_success
        assert searched(client) == before + 2
