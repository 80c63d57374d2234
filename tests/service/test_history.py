"""`History` against a real Redis: what it promises, and what it does when Redis fails."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import cast

import pytest
import redis.exceptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from service.errors import HistoryUnavailable, InvalidInput
from service.history import Event, History, Known, keys
from service.redis_client import Server, connect, connect_any
from service.redis_server import EmbeddedRedis

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
LIMIT = 5
# A loaded test machine may stop us for longer than any sensible production budget.
PATIENT_MS = 5000
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Server]:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    yield client
    await client.aclose()


@pytest.fixture
def history(client: Server) -> History:
    return History(client, limit=LIMIT)


def event(
    number: int, *, user: str = "u", at: datetime | None = None, item: str | None = None
) -> Event:
    when = NOON + timedelta(microseconds=number) if at is None else at
    return Event(f"e{number}", user, item or f"item-{number}", "view", when)


def model(events: Iterable[Event], limit: int) -> dict[str, list[Event]]:
    """What `History` should hold, said plainly."""
    per_user: dict[str, dict[str, Event]] = {}
    for one in events:
        per_user.setdefault(one.user_id, {}).setdefault(one.event_id, one)
    return {
        user: sorted(kept.values(), key=lambda one: (one.timestamp, one.event_id))[-limit:]
        for user, kept in per_user.items()
    }


async def contents(history: History, users: Iterable[str]) -> dict[str, list[Event]]:
    return {user: found for user in sorted(users) if (found := (await history.read(user)).events)}


# Text as rude as JSON lets through (a lone surrogate is no UTF-8); few instants, so that they tie.
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
instants = st.one_of(
    st.integers(0, 3).map(lambda n: NOON + timedelta(microseconds=n)),
    st.datetimes(
        datetime(1686, 1, 1),
        datetime(2254, 12, 31),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=30))]),
    ),
)


@st.composite
def event_sets(draw: st.DrawFn) -> list[Event]:
    users = draw(st.lists(text, min_size=1, max_size=3, unique=True))
    made = draw(
        st.lists(
            st.builds(Event, text, st.sampled_from(users), text, text, instants),
            max_size=25,
            unique_by=lambda one: (one.user_id, one.event_id),
        )
    )
    return made


@st.composite
def deliveries(draw: st.DrawFn, events: Sequence[Event]) -> list[list[Event]]:
    """The events in any order, some of them more than once, cut into batches anywhere."""
    repeats = draw(st.lists(st.sampled_from(events), max_size=10)) if events else []
    order = draw(st.permutations([*events, *repeats]))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=6)))
    return [
        list(order[start:end]) for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)
    ]


@EXAMPLES
@given(data=st.data())
async def test_any_delivery_of_the_same_events_gives_the_same_history(
    client: Server, history: History, data: st.DataObject
) -> None:
    await client.flushall()
    events = data.draw(event_sets())
    batches = data.draw(deliveries(events))
    for batch in batches:
        await history.append(batch)
    expected = model(events, LIMIT)
    assert await contents(history, expected) == expected


@EXAMPLES
@given(data=st.data())
async def test_the_new_events_are_what_a_batch_added(
    client: Server, history: History, data: st.DataObject
) -> None:
    await client.flushall()
    batches = data.draw(deliveries(data.draw(event_sets())))
    kept: dict[str, list[Event]] = {}
    for batch in batches:
        after = model([*(one for found in kept.values() for one in found), *batch], LIMIT)
        before = {(user, one.event_id) for user, found in kept.items() for one in found}
        new = {(user, one.event_id) for user, found in after.items() for one in found} - before
        positions = await history.append(batch)
        assert positions == sorted(positions)
        assert {(batch[i].user_id, batch[i].event_id) for i in positions} == new
        assert len(positions) == len(new)
        kept = after


async def test_many_writers_at_once_agree_with_the_model(client: Server) -> None:
    history = History(client, limit=40)
    chance = random.Random(7)
    users = [f"user-{number}" for number in range(5)]
    events = [event(number, user=chance.choice(users)) for number in range(400)]
    batches = [chance.sample(events, 30) for _ in range(80)]
    await asyncio.gather(*(history.append(batch) for batch in batches))
    expected = model((one for batch in batches for one in batch), 40)
    assert await contents(history, users) == expected


async def test_writers_that_race_count_each_event_once(client: Server) -> None:
    history = History(client, limit=1000)
    batch = [event(number) for number in range(50)]
    counts = await asyncio.gather(*(history.append(batch) for _ in range(20)))
    assert sorted(position for new in counts for position in new) == list(range(50))


async def test_the_first_event_of_an_id_wins(history: History) -> None:
    first, second = event(1), event(1, at=NOON + timedelta(days=1), item="other")
    assert len(await history.append([first, second])) == 1
    assert len(await history.append([second])) == 0
    assert (await history.read("u")).events == [first]


async def test_an_event_older_than_a_full_history_is_dropped(history: History) -> None:
    full = [event(number) for number in range(10, 10 + LIMIT)]
    await history.append(full)
    assert len(await history.append([event(1)])) == 0
    assert len(await history.append([event(1)])) == 0
    assert (await history.read("u")).events == full


async def test_a_late_event_takes_its_place(history: History) -> None:
    await history.append([event(1), event(3)])
    assert len(await history.append([event(2)])) == 1
    assert (await history.read("u")).events == [event(1), event(2), event(3)]


async def test_a_smaller_limit_holds_at_once(client: Server, history: History) -> None:
    await history.append([event(number) for number in range(LIMIT)])
    smaller = History(client, limit=2)
    assert (await smaller.read("u")).events == [event(3), event(4)]
    await smaller.append([event(5)])
    assert (await history.read("u")).events == [event(4), event(5)]


@pytest.mark.parametrize("instant", [datetime(1686, 1, 1, 0, 0, 0, 1), datetime(2254, 12, 31, 23)])
async def test_neighbouring_microseconds_stay_apart(history: History, instant: datetime) -> None:
    start = instant.replace(tzinfo=UTC)
    # Ids run against time, so equal scores would come out in the wrong order.
    events = [event(9 - n, at=start + timedelta(microseconds=n)) for n in range(8)]
    await history.append(events)
    assert (await history.read("u")).events == events[-LIMIT:]


@pytest.mark.parametrize(
    "instant", [datetime(2025, 6, 1), datetime(2300, 1, 1, tzinfo=UTC), datetime.min]
)
async def test_timestamps_that_cannot_be_kept_are_refused(
    history: History, instant: datetime
) -> None:
    with pytest.raises(InvalidInput, match=r"events\.1\.timestamp"):
        await history.append([event(1), event(2, at=instant)])
    assert (await history.read("u")).events == []


async def test_a_client_that_decodes_works_too(redis_url: str) -> None:
    async with cast(Server, Server.from_url(redis_url, decode_responses=True)) as client:
        history = History(client)
        one = Event("é1", "ü", "中", "view", NOON)
        assert len(await history.append([one])) == 1
        assert (await history.read("ü")).events == [one]


def test_settings_that_make_no_sense_are_refused() -> None:
    client = connect("unix:///nowhere")
    with pytest.raises(ValueError, match="limit"):
        History(client, limit=0)
    with pytest.raises(ValueError, match="max_age"):
        History(client, max_age=timedelta(0))
    with pytest.raises(ValueError, match="ttl"):
        History(client, ttl=timedelta(0))


# Keys


@given(text)
def test_the_keys_of_a_user_share_a_cluster_slot(user: str) -> None:
    assert len({*keys(user)}) == 3
    assert len({key_slot(key.encode()) for key in keys(user)}) == 1


RUDE = ["}", "}a", "{", "{}", "{}a", "a}b", "a b", "a\nb", "a\0b", "中", "%7D", "%"]


@pytest.mark.parametrize("user", RUDE)
async def test_rude_user_ids(history: History, user: str) -> None:
    assert len({key_slot(key.encode()) for key in keys(user)}) == 1
    await history.append([event(1, user=user)])
    assert (await history.read(user)).events == [event(1, user=user)]


@given(st.lists(st.text("{}%7Da:", max_size=8), min_size=2, max_size=2, unique=True))
def test_no_key_belongs_to_two_users(users: list[str]) -> None:
    assert set(keys(users[0])).isdisjoint(keys(users[1]))


def test_users_spread_over_slots_whatever_their_ids_begin_with() -> None:
    for prefix in ("", "}", "tenant}"):
        slots = {key_slot(keys(f"{prefix}{number}")[0].encode()) for number in range(100)}
        assert len(slots) > 90


@pytest.mark.parametrize("as_cluster", [False, True])
async def test_it_works_on_a_cluster(cluster_url: str, as_cluster: bool) -> None:
    url = cluster_url.replace("redis:", "redis+cluster:") if as_cluster else cluster_url
    async with aclosing(connect_any(url, timeout_ms=PATIENT_MS)) as client:
        history = History(client)
        batch = [event(number, user=user) for number, user in enumerate(RUDE)]
        assert len(await history.append(batch)) == len(RUDE)
        assert [(await history.read(user)).events for user in RUDE] == [[one] for one in batch]
        await history.put_profile("}", {"age": "old"})
        assert (await history.read("}")).profile == {"age": "old"}
        assert [await history.forget(user) for user in RUDE] == [True] * len(RUDE)
        assert await history.ping() is True


# Life of a history


async def test_every_append_renews_the_time_to_live(client: Server) -> None:
    history = History(client, ttl=timedelta(hours=1))
    await history.append([event(1)])
    await history.put_profile("u", {"age": "old"})
    for key in keys("u"):
        assert 3_590_000 < await client.pttl(key) <= 3_600_000
        await client.expire(key, 10)
    await history.append([event(1)])
    for key in keys("u"):
        assert await client.pttl(key) > 3_590_000


async def test_a_history_expires(client: Server) -> None:
    history = History(client, ttl=timedelta(milliseconds=30))
    await history.append([event(1)])
    await asyncio.sleep(0.1)
    assert (await history.read("u")).events == []
    assert await client.exists(*keys("u")) == 0
    assert len(await history.append([event(1)])) == 1


async def test_without_a_time_to_live_a_history_stays(client: Server, history: History) -> None:
    await history.append([event(1)])
    await history.put_profile("u", {"age": "old"})
    await History(client, ttl=None).append([event(2)])
    assert [await client.ttl(key) for key in keys("u")] == [-1, -1, -1]
    await History(client, ttl=None).put_profile("v", {"age": "old"})
    assert await client.ttl(keys("v").profile) == -1


async def test_an_event_has_its_age(client: Server) -> None:
    now, age = datetime.now(UTC), timedelta(days=30)
    old, young = event(1, at=now - age - timedelta(hours=1)), event(2, at=now - timedelta(days=29))
    assert await History(client).append([old, young]) == [0, 1]
    history = History(client, max_age=age)
    assert (await history.read("u")).events == [young]  # not used, though it is still there
    late = event(3, at=now - timedelta(days=31))
    assert await history.append([event(4, at=now), late]) == [0]
    assert await client.hlen(keys("u").events) == 2
    assert [one.event_id for one in (await History(client).read("u")).events] == ["e2", "e4"]
    assert await client.zcard(keys("u").order) == 2
    everything = History(client, max_age=timedelta(milliseconds=1))
    assert await everything.append([event(5, at=now - age)]) == []
    assert await client.keys("*") == []


async def test_forget_leaves_nothing(client: Server, history: History) -> None:
    await history.append([event(1), event(1, user="other")])
    for user in ("u", "other"):
        await history.put_profile(user, {"age": "old"})
    assert await history.forget("u") is True
    assert await history.forget("u") is False
    assert await history.read("u") == Known([], {})
    assert set(await client.keys()) == {key.encode() for key in keys("other")}


@pytest.mark.parametrize("lost", [0, 1])
async def test_losing_one_key_of_the_pair_heals(
    client: Server, history: History, lost: int
) -> None:
    """An eviction takes keys one by one."""
    await history.append([event(number) for number in range(LIMIT)])
    await client.delete(keys("u")[lost])
    await history.append([event(LIMIT)])
    survivors = range(LIMIT, LIMIT + 1) if lost == 0 else range(1, LIMIT + 1)
    assert (await history.read("u")).events == [event(number) for number in survivors]


# Profiles


async def test_a_profile_is_kept_replaced_and_removed_beside_the_history(history: History) -> None:
    assert (await history.read("u")).profile == {}
    await history.put_profile("u", {"age": "old", "性别": "女", "": ""})
    await history.append([event(1)])
    assert await history.read("u") == Known([event(1)], {"age": "old", "性别": "女", "": ""})
    await history.put_profile("u", {"shoe": "43"})
    assert await history.read("u") == Known([event(1)], {"shoe": "43"})
    assert (await history.read("other")).profile == {}
    await history.put_profile("u", {})
    assert await history.read("u") == Known([event(1)], {})


@pytest.mark.parametrize("value", ["not ours", "5", "[1]"])
async def test_a_foreign_profile_is_unavailable(
    client: Server, history: History, value: str
) -> None:
    await client.set(keys("u").profile, value)
    with pytest.raises(HistoryUnavailable):
        await history.read("u")


# Round trips


async def round_trips(client: Server) -> int:
    """How often the server read from a connection so far: a request in one packet is one read."""
    return int((await client.info("stats"))["total_reads_processed"])


async def test_each_call_is_one_round_trip(client: Server, history: History) -> None:
    users = [f"user-{number}" for number in range(20)]
    batch = [event(number, user=user) for number, user in enumerate(users)]
    await history.append(batch)
    await history.read("user-0")
    looking = await round_trips(client)
    looking = await round_trips(client) - looking
    for call, expected in (
        (lambda: history.append(batch), 1),
        (lambda: history.read("user-0"), 1),
        (lambda: history.forget("user-1"), 1),
        (lambda: history.put_profile("user-1", {"age": "old"}), 1),
        (lambda: history.put_profile("user-1", {}), 1),
        (lambda: history.append([]), 0),
    ):
        before = await round_trips(client)
        await call()
        assert await round_trips(client) - before - looking == expected


async def test_a_server_that_forgot_the_scripts_learns_them(
    client: Server, history: History
) -> None:
    for number in range(3):
        await client.script_flush()
        assert len(await history.append([event(number), event(number, user="v")])) == 2
        await client.script_flush()
        assert len((await history.read("u")).events) == number + 1
    await history.append([event(8)])
    calls = (await client.info("commandstats"))["cmdstat_eval"]["calls"]
    await history.append([event(9)])
    await history.read("u")
    assert (await client.info("commandstats"))["cmdstat_eval"]["calls"] == calls


async def test_a_large_batch_within_the_default_timeout(redis_url: str) -> None:
    async with connect(redis_url) as client:
        history = History(client)
        batch = [event(number, user=f"user-{number}") for number in range(1000)]
        assert len(await history.append(batch)) == 1000
        assert len(await history.append([event(number) for number in range(1000)])) == 200


# Failure


@pytest.fixture
def own_server(tmp_path: Path) -> EmbeddedRedis:
    return EmbeddedRedis(tmp_path / "redis", stop_timeout_s=2)


async def assert_unavailable(history: History, within_s: float) -> None:
    for call in (
        lambda: history.append([event(1)]),
        lambda: history.read("u"),
        lambda: history.forget("u"),
        lambda: history.put_profile("u", {"age": "old"}),
    ):
        start = time.monotonic()
        with pytest.raises(HistoryUnavailable) as failure:
            await call()
        assert time.monotonic() - start < within_s
        assert failure.value.__cause__ is not None
    assert await history.ping() is False


async def test_a_stopped_server_is_noticed_and_its_return_too(own_server: EmbeddedRedis) -> None:
    with own_server:
        async with connect(own_server.url, timeout_ms=PATIENT_MS) as client:
            history = History(client)
            # Several connections in the pool, so that several are stale afterwards.
            await asyncio.gather(*(history.append([event(n)]) for n in range(8)))
            own_server.stop()
            await assert_unavailable(history, within_s=1)
            own_server.start()
            found = await asyncio.gather(*(history.read("u") for _ in range(8)))
            assert {len(known.events) for known in found} == {8}
            assert await history.ping() is True


async def test_a_restart_between_two_calls_goes_unnoticed(own_server: EmbeddedRedis) -> None:
    with own_server:
        async with connect(own_server.url, timeout_ms=PATIENT_MS) as client:
            history = History(client)
            await history.append([event(1)])
            own_server.stop()
            own_server.start()
            assert len(await history.append([event(2)])) == 1
            assert (await history.read("u")).events == [event(1), event(2)]


async def test_a_suspended_server_costs_no_more_than_the_timeout(
    own_server: EmbeddedRedis,
) -> None:
    with own_server:
        async with connect(own_server.url, timeout_ms=100, connect_timeout_ms=100) as client:
            history = History(client)
            await history.append([event(1)])
            assert own_server.pid is not None
            os.kill(own_server.pid, signal.SIGSTOP)
            await assert_unavailable(history, within_s=0.5)
            os.kill(own_server.pid, signal.SIGCONT)
            await asyncio.sleep(0.05)
            assert (await history.read("u")).events == [event(1)]


async def test_callers_that_give_up_leave_the_pool_whole(redis_url: str) -> None:
    async with connect(redis_url, timeout_ms=PATIENT_MS, max_connections=3) as client:
        history = History(client)
        await history.append([event(n, user=f"u{n}") for n in range(10)])
        chance = random.Random(3)

        async def impatient(number: int) -> None:
            user = f"u{number % 10}"
            try:
                async with asyncio.timeout(chance.random() * 0.01):
                    found = (await history.read(user)).events
            except TimeoutError:
                return
            assert [one.user_id for one in found] == [user]

        for _ in range(10):
            await asyncio.gather(*(impatient(number) for number in range(30)))
        found = await asyncio.gather(*(history.read(f"u{n}") for n in range(10)))
        assert [known.events[0].user_id for known in found] == [f"u{n}" for n in range(10)]


async def test_a_busy_pool_refuses_in_time(own_server: EmbeddedRedis) -> None:
    with own_server:
        async with connect(own_server.url, timeout_ms=100, max_connections=1) as client:
            history = History(client)
            await history.append([event(1)])
            assert own_server.pid is not None
            os.kill(own_server.pid, signal.SIGSTOP)
            start = time.monotonic()
            answers = await asyncio.gather(
                *(history.read("u") for _ in range(20)), return_exceptions=True
            )
            assert time.monotonic() - start < 1
            assert all(isinstance(answer, HistoryUnavailable) for answer in answers)


async def test_a_server_without_memory_is_unavailable(client: Server, history: History) -> None:
    await history.append([event(1)])
    try:
        await client.config_set("maxmemory", "1")
        with pytest.raises(HistoryUnavailable) as failure:
            await history.append([event(2)])
        assert isinstance(failure.value.__cause__, redis.exceptions.ResponseError)
    finally:
        await client.config_set("maxmemory", "0")
    assert (await history.read("u")).events == [event(1)]


async def test_a_read_only_replica_reads_and_does_not_write(own_server: EmbeddedRedis) -> None:
    with own_server:
        async with connect(own_server.url, timeout_ms=PATIENT_MS) as client:
            history = History(client)
            await history.append([event(1)])
            # Of a primary that is not there: it keeps what it has, and refuses writes.
            await client.replicaof("127.0.0.1", "1")
            assert (await history.read("u")).events == [event(1)]
            with pytest.raises(HistoryUnavailable) as failure:
                await history.append([event(2)])
            assert isinstance(failure.value.__cause__, redis.exceptions.ResponseError)


@pytest.mark.parametrize("value", ["not ours", "5", "[1]", '["1","e","i","view"]', "[1e99,2,3,4]"])
async def test_foreign_data_is_unavailable(client: Server, history: History, value: str) -> None:
    await client.hset(keys("u")[0], "e1", value)
    with pytest.raises(HistoryUnavailable):
        await history.read("u")


@pytest.mark.parametrize("position", [0, 1])
async def test_a_foreign_key_is_unavailable(
    client: Server, history: History, position: int
) -> None:
    await client.rpush(keys("u")[position], "x")
    with pytest.raises(HistoryUnavailable):
        await history.append([event(1)])


async def test_one_users_broken_key_does_not_stop_the_others(
    client: Server, history: History
) -> None:
    await client.rpush(keys("u")[0], "x")
    with pytest.raises(HistoryUnavailable):
        await history.append([event(1), event(2, user="v")])
    assert (await history.read("v")).events == [event(2, user="v")]
