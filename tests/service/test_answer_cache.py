"""Cached answers: equal state hits, any change of it misses, and a Redis in trouble is a miss."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from service.engine import Query
from service.engine.fake import FakeEngine
from service.redis_server import EmbeddedRedis
from tests.service.conftest import MakeClient
from tests.service.test_api import HISTORY, event, recommend

TTL_MS = 60_000


class Counting:
    """Counts the searches of an application's engine."""

    def __init__(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.searches = client, 0
        engine = client.app_state["service"].holder.current.engine
        search = engine.search

        async def counted(query: Query) -> Any:
            self.searches += 1
            return await search(query)

        monkeypatch.setattr(engine, "search", counted)

    def misses(self, **body: Any) -> bool:
        """Whether a request was searched for; its answer must say the same."""
        before = self.searches
        answer = recommend(self.client, **body)
        assert answer["source"] == "model"
        searched = self.searches > before
        assert answer.get("cached", False) is not searched
        return searched


@pytest.fixture
def counting(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(make_client(cache_ttl_ms=TTL_MS), monkeypatch)


def test_a_hit_is_the_same_answer_without_a_search(counting: Counting) -> None:
    client = counting.client
    client.post("/v1/events", json=[event(1), event(2)])
    asked = {"user_id": "ann", "k": 7, "explain": True, "exclude": ["item-9"]}
    first, again = recommend(client, **asked), recommend(client, **asked)
    assert counting.searches == 1
    assert "cached" not in first
    assert again.pop("cached") is True
    assert again.pop("request_id") != first.pop("request_id")
    assert list(again.pop("timing_ms")) == ["history", "cache", "total"]
    assert first.pop("timing_ms").keys() >= {"cache", "search"}
    assert again == first
    metrics = client.get("/metrics").text
    assert "sidrec_cached_answers_total 1.0" in metrics
    assert 'sidrec_history_reads_total{result="hit"} 2.0' in metrics


def test_any_change_misses(counting: Counting) -> None:
    base: dict[str, Any] = {"history": HISTORY, "k": 5}
    assert counting.misses(**base)
    assert not counting.misses(**base)
    changes: list[dict[str, Any]] = [
        {"k": 6},
        {"history": HISTORY[::-1]},
        {"history": HISTORY[:2]},
        {"exclude": ["item-7"]},
        {"exclude_seen": "history"},
        {"profile": {"age": "7"}},
        {"beam_width": 21},
        {"explain": True},
        {"filter": {"brand": "brand-2"}},
        {"filter": {"brand": "brand-3"}},
    ]
    for change in changes:
        assert counting.misses(**(base | change)), change
        assert not counting.misses(**(base | change)), change
    assert not counting.misses(**base)


def test_a_new_event_misses(counting: Counting) -> None:
    for number in (1, 2):
        counting.client.post("/v1/events", json=[event(number)])
        assert counting.misses(user_id="ann")
        assert not counting.misses(user_id="ann")
    # The same item again, as a purchase: it is not shown any more.
    counting.client.post("/v1/events", json=[event(3, item_id="item-2", type="purchase")])
    assert counting.misses(user_id="ann")


def test_another_process_shares_what_it_would_answer_itself(
    make_client: MakeClient, scene_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(**options: Any) -> Counting:
        return Counting(make_client(cache_ttl_ms=TTL_MS, **options), monkeypatch)

    assert fresh().misses(history=HISTORY)
    assert not fresh().misses(history=HISTORY)
    assert fresh(bundle=scene_bundle.path).misses(history=HISTORY)
    assert fresh(engine="torch", threads=1).misses(history=HISTORY)
    assert fresh(beam_width=19).misses(history=HISTORY)
    assert fresh(exclude_seen="history").misses(history=HISTORY)


def test_it_is_short_lived(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(make_client(cache_ttl_ms=50), monkeypatch)
    assert counting.misses(history=HISTORY)
    time.sleep(0.1)
    assert counting.misses(history=HISTORY)


def test_it_is_off_by_default(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(client, monkeypatch)
    assert counting.misses(history=HISTORY)
    assert counting.misses(history=HISTORY)


def test_what_is_no_answer_of_the_model_is_not_kept(counting: Counting) -> None:
    client = counting.client
    assert recommend(client)["reason"] == "no_history"
    assert "cached" not in recommend(client)
    engine: FakeEngine = client.app_state["service"].holder.current.engine
    engine.fails = True
    assert recommend(client, history=HISTORY)["source"] == "popular"
    engine.fails = False
    assert counting.misses(history=HISTORY)


def test_a_redis_in_trouble_is_a_miss_and_left_alone_for_a_while(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path / "own") as server:
        assert server.pid is not None
        client = make_client(redis_url=server.url, redis_timeout_ms=300, cache_ttl_ms=TTL_MS)
        counting = Counting(client, monkeypatch)
        assert counting.misses(history=HISTORY)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began = time.perf_counter()
            for _ in range(4):
                assert counting.misses(history=HISTORY)
            assert time.perf_counter() - began < 0.9  # one timeout, not eight
        finally:
            os.kill(server.pid, signal.SIGCONT)
        time.sleep(1.1)
        assert not counting.misses(history=HISTORY)


def test_what_somebody_else_wrote_is_a_miss(counting: Counting, redis_url: str) -> None:
    assert counting.misses(history=HISTORY)
    with redis.Redis.from_url(redis_url) as store:
        [key] = store.keys("sidrec:answer:*")
        assert 0 < store.pttl(key) <= TTL_MS
        store.set(key, b'{"picks": 7}')
    assert counting.misses(history=HISTORY)
