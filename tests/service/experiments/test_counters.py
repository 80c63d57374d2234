"""Counting users and answers against real servers: exactly, then nearly, never twice."""

import random
from collections.abc import Iterable

import pytest

from service.errors import ExperimentsUnavailable
from service.experiments.counters import ArmCounters, ArmKey, Outcome, Tally, digest
from service.redis_calls import text
from service.redis_client import RedisClient, Server, connect
from tests.service.experiments.conftest import experiment

EXPERIMENT = experiment()
NARROW, WIDE = (ArmKey(EXPERIMENT.key, arm.name) for arm in EXPERIMENT.arms)


def of_users(users: Iterable[int], outcome: Outcome = "exposed") -> Tally:
    tally = Tally()
    for user in users:
        tally.user(outcome, f"user-{user}")
    return tally


async def test_users_are_counted_once_and_answers_each(anywhere: RedisClient) -> None:
    counters = ArmCounters(anywhere)
    tally = of_users([1, 2, 2, 3])
    for ms in (2, 10, 10, 400):
        tally.answer(ms, fallback=ms == 2, empty=ms == 400)
    for _ in range(2):  # whose answer was lost
        await counters.add({NARROW: tally, WIDE: of_users([4])}, "token")
    await counters.add({NARROW: of_users([2], "clicked")}, "other")
    found = await counters.read(EXPERIMENT)
    narrow = found["narrow"]
    assert {o: (u.count, u.exact) for o, u in narrow.users.items()} == {
        "exposed": (3, True),
        "clicked": (1, True),
        "purchased": (0, True),
    }
    assert found["wide"].users["exposed"].count == 1
    assert {name: narrow.counts[name] for name in ("answers", "fallbacks", "empty")} == {
        "answers": 4,
        "fallbacks": 1,
        "empty": 1,
    }
    median, highest = narrow.quantile_ms(0.5), narrow.quantile_ms(0.99)
    assert median is not None
    assert highest is not None
    assert 10 <= median <= 11
    assert 400 <= highest <= 440
    assert found["wide"].quantile_ms(0.5) is None
    await counters.remove(EXPERIMENT)
    # The tokens of deliveries go by themselves.
    assert all(":delivery:" in text(key) for key in await anywhere.keys("*"))


async def test_beyond_the_bound_users_are_estimated_and_no_longer_kept(redis: Server) -> None:
    counters = ArmCounters(redis, exact_users=3000)
    await counters.add({NARROW: of_users(range(3000)), WIDE: of_users(range(10))}, "1")
    exposed = (await counters.read(EXPERIMENT))["narrow"].users["exposed"]
    assert (exposed.count, exposed.exact) == (3000, True)
    for n in range(4):
        await counters.add({NARROW: of_users(range(3000 * n, 3000 * n + 6000))}, f"more-{n}")
    found = await counters.read(EXPERIMENT)
    exposed = found["narrow"].users["exposed"]
    assert not exposed.exact
    assert exposed.count == pytest.approx(15_000, rel=0.04)
    assert found["wide"].users["exposed"].exact
    sets = [key for key in await redis.keys("*:exposed") if ":narrow:" in text(key)]
    assert sets == []


async def test_a_user_is_forgotten(anywhere: RedisClient) -> None:
    counters = ArmCounters(anywhere)
    await counters.add({NARROW: of_users([1, 2]), WIDE: of_users([3])}, "1")
    await counters.add({NARROW: of_users([1], "clicked")}, "2")
    assert await counters.forget(EXPERIMENT, "user-1")
    assert not await counters.forget(EXPERIMENT, "user-1")
    users = (await counters.read(EXPERIMENT))["narrow"].users
    assert (users["exposed"].count, users["clicked"].count) == (1, 0)


async def test_nothing_lives_for_ever(redis: Server) -> None:
    tally = of_users([1])
    tally.answer(1, fallback=False, empty=False)
    await ArmCounters(redis).add({NARROW: tally}, "1")
    assert all([await redis.pttl(key) > 0 for key in await redis.keys("*")])


def test_digests_differ() -> None:
    users = [str(random.Random(1).random()), *map(str, range(100_000))]
    assert len({digest(user) for user in users}) == len(users)
    assert len(digest("any")) == 11


async def test_redis_away() -> None:
    async with connect("redis://127.0.0.1:1") as client:
        counters = ArmCounters(client)
        with pytest.raises(ExperimentsUnavailable):
            await counters.add({NARROW: of_users([1])}, "1")
        with pytest.raises(ExperimentsUnavailable):
            await counters.read(EXPERIMENT)
