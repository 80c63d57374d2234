"""What is tried again, for how long, and what is not."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from model_store.bundle import Bundle
from service.client import Event, Recommender, TimedOut, TooOften, Unavailable, Unreachable
from service.redis_server import EmbeddedRedis
from tests.faults.processes import Service, free_port
from tests.service.client.conftest import SECRETS, Served
from tests.service.client.counting import Counting

CLICK: Event = {"user_id": "bob", "item_id": "item-1", "event_id": "only", "timestamp": 1}


async def test_events_wait_for_redis_and_are_kept_once(served: Served) -> None:
    wire = Counting()
    async with Recommender(
        served.url, key=SECRETS["all"], timeout_s=60, retries=20, transport=wire
    ) as recommender:
        with served.without_redis():
            waiting = asyncio.create_task(recommender.add_events([CLICK]))
            await wire.has_sent(2)
            assert not waiting.done()
        # An attempt that was answered 503 may have reached Redis all the same.
        done = await waiting
        assert done.accepted + done.duplicates == 1
        assert len((await recommender.history("bob")).events) == 1


async def test_what_is_not_safe_to_repeat_is_sent_once(served: Served) -> None:
    wire = Counting()
    async with Recommender(served.url, key=SECRETS["all"], transport=wire) as recommender:
        with served.without_redis(), pytest.raises(Unavailable) as caught:
            await recommender.request("POST", "/v1/experiments/any/stop")
        assert caught.value.retry_after == 1
        assert wire.sent == ["POST /v1/experiments/any/stop"]


async def test_after_the_last_attempt_it_says_why(served: Served) -> None:
    wire = Counting()
    async with Recommender(
        served.url, key=SECRETS["all"], timeout_s=60, retries=1, transport=wire
    ) as recommender:
        with served.without_redis(), pytest.raises(Unavailable) as caught:
            await recommender.history("bob")
        assert caught.value.details.kind == "history-unavailable"
        assert len(wire.sent) == 2


async def test_retry_after_is_kept(served: Served) -> None:
    wire = Counting()
    async with Recommender(
        served.url, key=SECRETS["eager"], timeout_s=30, transport=wire
    ) as recommender:
        await recommender.recommend(k=1)
        await recommender.recommend(k=1)
        began = time.monotonic()
        await recommender.recommend(k=1)
        await recommender.recommend(k=1)
        # Two more of one a second; how many of the first two waited depends on the machine.
        assert time.monotonic() - began > 0.9
        assert len(wire.sent) > 4


async def test_no_waiting_beyond_the_callers_time(served: Served) -> None:
    wire = Counting()
    async with Recommender(served.url, key=SECRETS["rare"], transport=wire) as recommender:
        await recommender.recommend(k=1)
        with pytest.raises(TooOften) as caught:
            await recommender.recommend(k=1)
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > 60
        assert len(wire.sent) == 2


async def test_a_service_that_does_not_answer(served: Served) -> None:
    wire = Counting()
    async with Recommender(
        served.url, key=SECRETS["all"], timeout_s=0.5, transport=wire
    ) as recommender:
        began = time.monotonic()
        with served.silent(), pytest.raises(TimedOut, match=r"no answer within 0\.5 s"):
            await recommender.recommend("bob")
        assert time.monotonic() - began < 5
        assert len(wire.sent) == 1


async def test_a_service_that_is_killed_and_comes_back(
    bundle: Bundle, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    port, wire = free_port(), Counting()
    settings = {"bundle": bundle.path, "engine": "fake", "redis_url": redis_server.url}
    async with Recommender(
        f"http://127.0.0.1:{port}", timeout_s=120, retries=1000, transport=wire
    ) as recommender:
        with Service(tmp_path / "first", settings, port=port) as first:
            assert (await recommender.recommend(k=1)).items
            first.end(signal.SIGKILL)
            with pytest.raises(Unreachable):
                await recommender.request("POST", "/v1/recommendations", {"k": 1})
            assert len(wire.sent) == 2
            waiting = asyncio.create_task(recommender.recommend(k=1))
            with await asyncio.to_thread(Service, tmp_path / "second", settings, port=port):
                assert (await waiting).items
        assert len(wire.sent) > 3
