"""Every engine when its thread ends: everyone hears of it at once, and nothing waits for ever.

The thread is ended as nothing in it expects: an exception from outside, at whichever instruction it
has reached.
"""

import asyncio
import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from service.app import create_app
from service.engine import Engine, Query, create_engine
from service.errors import EngineDead
from service.settings import Settings
from tests.conformance.conftest import OPTIONS
from tests.service.conftest import PATIENT_MS
from tests.tiny import make_bundle, random_items

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # it is what is done here
)

PATIENCE = 60
AT_ONCE = 5
"""Seconds: far longer than an engine that is dead needs to say so, far shorter than a hang."""

QUERIES = [Query([n % 200 + 1] * (n + 1), (10, 20)[n % 2]) for n in range(120)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    items = random_items(300, (6, 6, 6), seed=2)
    return make_bundle(tmp_path_factory.mktemp("death"), items, hidden_size=128)


@pytest.fixture
def doomed(kind: str, tiny: Bundle) -> Iterator[Engine]:
    with create_engine(kind, tiny, **OPTIONS[kind]) as engine:
        yield engine


def end_its_thread() -> None:
    """Raises SystemExit in the one thread of an engine that runs, as soon as it runs Python."""
    [thread] = [t for t in threading.enumerate() if t.name.startswith("sidrec-")]
    assert thread.ident is not None
    number, error = ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error) == 1


async def assert_dead(engine: Engine) -> None:
    async with asyncio.timeout(AT_ONCE):
        for query in QUERIES[:3]:
            with pytest.raises(EngineDead):
                await engine.search(query)
            with pytest.raises(EngineDead):
                await asyncio.to_thread(engine.search_batch, [query])
        assert not engine.alive
        assert engine.stats().queue_depth == 0
        await asyncio.to_thread(engine.close)


async def test_queries_in_flight_and_later_ones_end(doomed: Engine) -> None:
    tasks = [asyncio.create_task(doomed.search(query)) for query in QUERIES]
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        end_its_thread()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    found = [outcome for outcome in outcomes if isinstance(outcome, list)]
    dead = [outcome for outcome in outcomes if isinstance(outcome, EngineDead)]
    assert found
    assert dead
    assert len(found) + len(dead) == len(QUERIES)
    await assert_dead(doomed)


async def test_the_first_query_after_it_died_idle(doomed: Engine) -> None:
    async with asyncio.timeout(PATIENCE):
        await doomed.search(QUERIES[0])
        end_its_thread()
        with pytest.raises(EngineDead):
            await doomed.search(QUERIES[1])
    await assert_dead(doomed)


def test_over_http(kind: str, tiny: Bundle, redis_url: str, tmp_path: Path) -> None:
    """`/readyz` fails, so that nobody is sent here; who comes all the same gets popular items."""
    settings = Settings(
        bundle=tiny.path,
        engine=kind,
        engine_options=OPTIONS[kind],
        max_wait_ms=0,  # a slow machine refuses none of them
        redis_url=redis_url,
        redis_timeout_ms=PATIENT_MS,
        state_dir=tmp_path,
    )

    with TestClient(create_app(settings)) as client, ThreadPoolExecutor(24) as pool:

        def recommend(number: int) -> dict[str, Any]:
            body = {"history": [f"item-{number}"], "k": 20}
            response = client.post("/v1/recommendations", json=body)
            assert response.status_code == 200, response.text
            answer: dict[str, Any] = response.json()
            assert len(answer["items"]) == 20
            return answer

        assert client.get("/readyz").json()["status"] == "ready"
        asked = [pool.submit(recommend, number) for number in range(200)]
        wait(asked, PATIENCE, FIRST_COMPLETED)
        end_its_thread()
        answers = [task.result(PATIENCE) for task in asked]
        how = {(answer["source"], answer["reason"]) for answer in answers}
        assert how == {("model", None), ("popular", "engine_dead")}

        response = client.get("/readyz")
        assert response.status_code == 503
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["retry-after"] == "5"
        problem = response.json()
        assert problem["type"] == "urn:sidrec:problem:engine-dead"
        assert problem["request_id"] == response.headers["x-request-id"]
        assert client.get("/livez").json() == {"status": "alive"}
        assert 'sidrec_fallbacks_total{reason="engine_dead"}' in client.get("/metrics").text
        assert recommend(1)["reason"] == "engine_dead"
