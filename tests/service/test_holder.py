"""What is loaded: which is active, who is with it, and that it leaves only when nobody is."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from model_store.bundle import Bundle
from service.engine import Query
from service.engine_queue import EngineQueue
from service.errors import EngineDead, ModelConflict, ModelNotLoaded
from service.history import History
from service.holder import Holder, InService, Version
from service.loading import Loader
from service.popularity import Popularity
from service.redis_client import Server, connect
from service.settings import Settings
from tests.service.conftest import PATIENT_MS

ONE, TWO = Version("shop", 1), Version("shop", 2)


@pytest.fixture
async def models(redis_url: str, versions: tuple[Bundle, Bundle]) -> AsyncIterator[list[InService]]:
    client: Server = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    history, popularity = History(client, limit=10), Popularity(client)
    loader = Loader(Settings(engine="fake"), history, popularity, client, EngineQueue())
    loaded = [await loader.load(bundle.path) for bundle in versions]
    yield loaded
    for model in loaded:
        await model.close()
    await client.aclose()


@pytest.fixture
def holder(models: list[InService]) -> Holder:
    first, second = models
    holder = Holder(first)
    holder.add(second)
    return holder


def test_one_is_active_and_each_can_be_had_by_its_version(
    holder: Holder, models: list[InService]
) -> None:
    assert holder.current is models[0]
    assert holder.loaded == models
    assert holder.get("shop", 2) is models[1]
    with holder.take() as active, holder.take(TWO) as other:
        assert [active, other] == models
        assert [holder.requests(model) for model in models] == [1, 1]
    assert [holder.requests(model) for model in models] == [0, 0]


def test_a_version_that_is_not_there(holder: Holder, models: list[InService]) -> None:
    for unknown in (Version("shop", 3), Version("other", 1)):
        with pytest.raises(ModelNotLoaded, match="is not loaded, only shop 1, shop 2"):
            holder.get(*unknown)
        with pytest.raises(ModelNotLoaded), holder.take(unknown):
            pass
        with pytest.raises(ModelNotLoaded):
            holder.activate(unknown)
    with pytest.raises(ModelConflict, match="loaded already"):
        holder.add(models[1])


def test_a_request_stays_with_what_it_took(holder: Holder, models: list[InService]) -> None:
    with holder.take() as taken:
        holder.activate(TWO)
        assert taken is models[0]
        assert holder.current is models[1]
        assert holder.previous == ONE
        with holder.take() as next_one:
            assert next_one is models[1]
    holder.activate(TWO)  # once more changes nothing
    assert holder.previous == ONE


async def test_the_active_one_does_not_leave(holder: Holder) -> None:
    with pytest.raises(ModelConflict, match="shop 1 is active"):
        await holder.remove(ONE, within_s=0)
    assert holder.current.engine.alive


async def test_a_version_leaves_when_the_last_request_has_ended(
    holder: Holder, models: list[InService]
) -> None:
    first, second = models
    with holder.take():
        holder.activate(TWO)
        with holder.take(ONE):
            leaving = asyncio.create_task(holder.remove(ONE, within_s=60))
            await asyncio.sleep(0.02)
            with pytest.raises(ModelNotLoaded, match="only shop 2"):
                holder.get("shop", 1)
        await asyncio.sleep(0.02)
        assert not leaving.done()
        assert first.engine.alive
    await leaving
    assert not first.engine.alive
    assert second.engine.alive
    assert holder.loaded == [second]
    assert holder.previous is None


async def test_one_that_is_not_left_alone_stays(holder: Holder, models: list[InService]) -> None:
    with holder.take(TWO):
        with pytest.raises(ModelConflict, match="1 requests are still with shop 2"):
            await holder.remove(TWO, within_s=0.02)
        assert holder.get("shop", 2) is models[1]
    leaving = asyncio.create_task(holder.remove(TWO, within_s=60))
    await leaving
    assert holder.loaded == models[:1]


async def test_a_removal_that_is_given_up_changes_nothing(holder: Holder) -> None:
    with holder.take(TWO):
        leaving = asyncio.create_task(holder.remove(TWO, within_s=60))
        await asyncio.sleep(0.02)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        holder.activate(TWO)
    assert holder.current.engine.alive


async def test_the_end_frees_all(holder: Holder, models: list[InService]) -> None:
    with holder.take(TWO) as taken:
        await holder.close()
        with pytest.raises(EngineDead):
            await taken.engine.search(Query([0], 1))
    assert not any(model.engine.alive for model in models)
