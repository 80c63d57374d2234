"""Decayed counts against a real Redis, and against the plain sum that they stand for."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from structlog.testing import capture_logs

from service import popularity
from service.errors import HistoryUnavailable
from service.history import Event
from service.popularity import Popularity
from service.redis_client import RedisClient, Server, connect, connect_any
from service.redis_server import EmbeddedRedis
from tests.service.conftest import PATIENT_MS

START = 1_750_000_000.0
HOUR = 3600.0
SCENES = ("home", "cart")

Seen = tuple[Event, str | None]


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Server]:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    yield client
    await client.aclose()


def counting(client: RedisClient, half_life_h: float = 1) -> Popularity:
    made = Popularity(
        client, half_life=timedelta(hours=half_life_h), weights={"buy": 3.0, "impression": 0.0}
    )
    made.watch(SCENES)
    return made


def seen(item: str, at: float, scene: str | None = None, kind: str = "click") -> Seen:
    return Event("e", "u", item, kind, datetime.fromtimestamp(at, UTC)), scene


def plain(events: Sequence[Seen], scene: str | None, now: float) -> dict[str, float]:
    """What a count is, said plainly: each event, halved for every hour since."""
    found: dict[str, float] = defaultdict(float)
    for event, where in events:
        weight = {"buy": 3.0, "impression": 0.0}.get(event.type, 1.0)
        if weight and scene in (None, where):
            found[event.item_id] += weight * 0.5 ** ((now - event.timestamp.timestamp()) / HOUR)
    return found


# Hours after the start; steps of time up to and beyond where scores get a new landmark.
arrivals = st.lists(
    st.tuples(
        st.sampled_from("abcde"),
        st.floats(0, 30),  # how late it comes
        st.sampled_from([None, *SCENES, "attic"]),
        st.sampled_from(["click", "buy", "impression"]),
        st.integers(0, 1),  # at which of two processes
        st.one_of(st.just(0.0), st.floats(0, 5), st.sampled_from([499.0, 501.0, 1200.0])),
        st.booleans(),  # whether that process refreshes now
    ),
    max_size=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(arrivals=arrivals)
async def test_counts_equal_the_plain_sum(
    client: Server, arrivals: list[tuple[str, float, str | None, str, int, float, bool]]
) -> None:
    await client.flushall()
    processes = [counting(client), counting(client)]
    now, events = START, []
    for item, late, scene, kind, which, step, refreshes in arrivals:
        now += step * HOUR
        events.append(seen(item, now - late * HOUR, scene, kind))
        processes[which].count(events[-1:], now=now)
        if refreshes:
            await processes[which].refresh(now=now)
    for _ in range(2):  # the first to be asked has not heard of the other's last
        for process in processes:
            await process.refresh(now=now)
    for scene in (None, *SCENES):
        expected = plain(events, scene, now)
        for process in processes:
            top = process.top(scene)
            found = dict(top)
            assert len(found) == len(top)
            assert [n for _, n in top] == sorted((n for _, n in top), reverse=True)
            # Whatever has decayed to nothing may be gone.
            assert found.keys() >= {item for item, n in expected.items() if n > 2.0**-50}
            for item, count in found.items():
                assert count == pytest.approx(expected[item], rel=1e-9, abs=2.0**-50)


async def test_a_late_event_counts_for_less_and_the_future_for_no_more(client: Server) -> None:
    counts = counting(client)
    counts.count(
        [seen("now", START), seen("hour", START - HOUR), seen("soon", START + 9 * HOUR)], now=START
    )
    counts.count([seen("ancient", START - 61 * HOUR)], now=START)
    await counts.refresh(now=START)
    assert dict(counts.top(None)) == pytest.approx({"now": 1, "soon": 1, "hour": 0.5})


async def test_another_half_life_takes_over_what_is_there(client: Server) -> None:
    counts = counting(client)
    counts.count([seen("a", START), seen("a", START), seen("b", START)], now=START)
    await counts.refresh(now=START)
    slower = counting(client, half_life_h=100)
    await slower.refresh(now=START + HOUR)
    assert dict(slower.top(None)) == pytest.approx({"a": 1, "b": 0.5})
    await slower.refresh(now=START + 101 * HOUR)
    assert dict(slower.top(None)) == pytest.approx({"a": 0.5, "b": 0.25})


async def test_it_stays_bounded_and_newcomers_get_in(
    client: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(popularity, "KEPT", 20)
    monkeypatch.setattr(popularity, "WANTED", 5)
    counts = counting(client)
    for hour in range(10):
        now = START + hour * HOUR
        counts.count([seen(f"{hour}-{n}", now) for n in range(15)], now=now)
        counts.count([seen("steady", now)], now=now)
        await counts.refresh(now=now)
    [key] = await client.keys("sidrec:popular:*all*:counts")
    assert await client.zcard(key) == 20
    top = [item for item, _ in counts.top(None)]
    assert len(top) == 5
    assert top[0] == "steady"
    assert all(item.startswith("9-") for item in top[1:])


async def test_nothing_lives_for_ever(client: Server) -> None:
    counts = counting(client)
    counts.count([seen("a", START, "home")], now=START)
    await counts.refresh(now=START)
    assert len(await client.keys()) >= 6
    assert b"sidrec:popular:{in cart}:scale" in await client.keys()  # where nothing was counted
    for key in await client.keys():
        assert await client.pttl(key) > 0


async def test_a_refresh_is_one_round_trip(client: Server) -> None:
    async def reads() -> int:
        return int((await client.info("stats"))["total_reads_processed"])

    counts = counting(client)
    counts.count([seen("a", START, "home")], now=START)
    await counts.refresh(now=START)  # and it teaches the script
    looking = await reads()
    looking = await reads() - looking
    counts.count([seen("a", START, scene) for scene in (None, *SCENES)], now=START)
    before = await reads()
    await counts.refresh(now=START)
    assert await reads() - before - looking == 1
    assert dict(counts.top(None))["a"] == pytest.approx(4)


@pytest.mark.parametrize("as_cluster", [False, True])
async def test_it_works_on_a_cluster(cluster_url: str, as_cluster: bool) -> None:
    url = cluster_url.replace("redis:", "redis+cluster:") if as_cluster else cluster_url
    async with aclosing(connect_any(url, timeout_ms=PATIENT_MS)) as client:
        counts = counting(client)
        counts.watch(["}", "{}", "中"])
        counts.count([seen("a", START, "}"), seen("b", START, "中")], now=START)
        await counts.refresh(now=START)
        assert [dict(counts.top(scene)) for scene in ("}", "中", "{}")] == [{"a": 1}, {"b": 1}, {}]


def test_each_scene_has_a_slot_of_its_own() -> None:
    delivery = popularity._Delivery(START)
    slots = []
    for scene in (None, "all", "in all", *SCENES, "}", "{"):
        names = popularity._keys(scene, delivery)
        [one] = {key_slot(name.encode()) for name in names}
        slots.append(one)
    assert len(set(slots)) == len(slots)


async def test_an_unknown_answer_is_repeated_and_counted_once(tmp_path: Path) -> None:
    """The server gets a delivery and stands still, so that nobody hears whether it was counted."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        async with connect(server.url, timeout_ms=300, connect_timeout_ms=300) as client:
            counts = counting(client)
            await counts.refresh(now=START)
            assert server.pid is not None
            counts.count([seen("a", START)], now=START)
            os.kill(server.pid, signal.SIGSTOP)
            with pytest.raises(HistoryUnavailable):
                await counts.refresh(now=START)
            counts.count([seen("a", START), seen("b", START)], now=START)
            os.kill(server.pid, signal.SIGCONT)
            await asyncio.sleep(0.05)
            assert counts.top(None) == []
            for _ in range(2):  # the repeated one, then what came meanwhile
                await counts.refresh(now=START)
            assert dict(counts.top(None)) == pytest.approx({"a": 2, "b": 1})


async def test_what_is_evicted_starts_anew(client: Server) -> None:
    counts = counting(client)
    for lost in ("counts", "scale"):
        await client.flushall()
        counts.count([seen("a", START)], now=START)
        await counts.refresh(now=START)
        [key] = await client.keys(f"sidrec:popular:*all*:{lost}")
        await client.delete(key)
        counts.count([seen("b", START + HOUR)], now=START + HOUR)
        await counts.refresh(now=START + HOUR)
        assert dict(counts.top(None)) == pytest.approx({"b": 1})


async def test_it_refreshes_in_the_background_and_survives_a_stop(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    with server:
        async with connect(server.url, timeout_ms=PATIENT_MS) as client:
            counts = Popularity(client, refresh=timedelta(milliseconds=10))
            async with counts.kept_fresh():
                counts.count([seen("a", time.time())])
                await until(lambda: bool(counts.top(None)))
                server.stop()
                with capture_logs() as logs:
                    await until(lambda: bool(logs))
                assert logs[0]["event"] == "popularity_stale"
                assert [item for item, _ in counts.top(None)] == ["a"]
                age = counts.age
                assert age > 0
                server.start()
                await until(lambda: counts.age < age)
                counts.count([seen("b", time.time()), seen("b", time.time())])
            # What was left is delivered at the end.
            other = Popularity(client)
            await other.refresh()
            assert [item for item, _ in other.top(None)] == ["b", "a"]


async def until(done: object, patience: float = 10.0) -> None:
    assert callable(done)
    end = time.monotonic() + patience
    while not done():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="half_life"):
        Popularity(connect("unix:///nowhere"), half_life=timedelta(0))
