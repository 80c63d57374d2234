"""Definitions that several processes share."""

import pytest

from service.errors import ExperimentsUnavailable
from service.experiments.store import Definitions, DefinitionStore
from service.redis_client import RedisClient, Server, connect
from tests.service.experiments.conftest import design, experiment


async def test_one_writer_at_a_time(anywhere: RedisClient) -> None:
    one, other = DefinitionStore(anywhere), DefinitionStore(anywhere)
    known = await one.read(Definitions())
    assert await one.write(known, "beams", experiment())
    assert not await other.write(known, "beams", None)
    now = await other.read(known)
    assert list(now.by_name) == ["beams"]
    assert await other.read(now) is now
    assert await other.write(now, "beams", None)
    assert (await one.read(now)).by_name == {}


async def test_a_filter_comes_back_as_it_was(redis: Server) -> None:
    arms = design()["arms"]
    arms[1]["settings"] = {"filter": {"or": [{"brand": "A"}, {"not": {"price": {"lt": 5}}}]}}
    before = experiment(arms=arms)
    store = DefinitionStore(redis)
    await store.write(Definitions(), "beams", before)
    [after] = (await store.read(Definitions())).by_name.values()
    assert after == before
    assert after.arms[1].settings.filter == before.arms[1].settings.filter


async def test_one_that_is_not_understood_does_not_hinder_the_others(redis: Server) -> None:
    store = DefinitionStore(redis)
    await store.write(Definitions(), "beams", experiment())
    await redis.hset("sidrec:experiments:{definitions}:all", "later", '{"name": "later"}')
    await redis.incr("sidrec:experiments:{definitions}:version")
    assert list((await store.read(Definitions())).by_name) == ["beams"]


async def test_redis_away() -> None:
    async with connect("redis://127.0.0.1:1") as client:
        store = DefinitionStore(client)
        with pytest.raises(ExperimentsUnavailable):
            await store.read(Definitions())
        with pytest.raises(ExperimentsUnavailable):
            await store.write(Definitions(), "beams", experiment())
