"""Every method of the client, against a real service."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from service.client import (
    Conflict,
    Event,
    Forbidden,
    InvalidInput,
    NotFound,
    Problem,
    Recommender,
    Unexpected,
    Unidentified,
    Unreachable,
)
from tests.faults.processes import free_port
from tests.service.client.conftest import SECRETS, Served

CLICKS: list[Event] = [
    {"user_id": "ann/o", "item_id": f"item-{n}", "event_id": f"e{n}", "timestamp": n}
    for n in range(1, 4)
]


@pytest.fixture
async def recommender(served: Served) -> AsyncIterator[Recommender]:
    async with Recommender(served.url, key=SECRETS["all"], timeout_s=30) as made:
        await made.forget("ann/o")
        yield made


async def test_a_user_clicks_and_asks(recommender: Recommender) -> None:
    accepted = await recommender.add_events(CLICKS)
    assert (accepted.accepted, accepted.duplicates) == (3, 0)
    answer = await recommender.recommend("ann/o", k=5, exclude=["item-7"], exclude_seen="history")
    assert (answer.user_id, answer.source, answer.reason) == ("ann/o", "model", None)
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    assert not {"item-1", "item-7"} & {item.item_id for item in answer.items}
    assert (answer.bundle.name, answer.history_used, answer.seen_items) == ("tiny", 3, 3)
    events = (await recommender.history("ann/o")).events
    assert [event.event_id for event in events] == ["e1", "e2", "e3"]
    assert events[0].timestamp == datetime.fromtimestamp(1, UTC)
    await recommender.forget("ann/o")
    assert (await recommender.history("ann/o")).events == []


async def test_an_event_gets_an_id_and_a_time(recommender: Recommender) -> None:
    before = datetime.now(UTC)
    await recommender.add_events([{"user_id": "ann/o", "item_id": "item-1", "type": "cart"}])
    [event] = (await recommender.history("ann/o")).events
    assert (event.type, len(event.event_id)) == ("cart", 32)
    assert before <= event.timestamp <= datetime.now(UTC)


async def test_what_the_model_saw(recommender: Recommender) -> None:
    answer = await recommender.recommend(history=["item-1"], k=2, explain=True, trace=True)
    [first, _] = answer.items
    assert first.levels is not None
    assert sum(level.log_probability for level in first.levels) == pytest.approx(first.score)
    assert answer.beam is not None
    assert first.sid in {one.prefix for one in answer.beam[-1].prefixes if one.fate == "kept"}


async def test_many_at_once(recommender: Recommender) -> None:
    batch = await recommender.recommend_batch(
        [{"user_id": "ann/o", "k": 1}, {"history": ["item-1"], "k": 0}]
    )
    good, bad = batch.results
    assert good.answer is not None
    assert bad.problem is not None
    assert (good.status, len(good.answer.items), bad.status) == (200, 1, 422)
    assert (bad.problem.kind, bad.problem.errors[0].field) == ("invalid-input", "k")


async def test_similar_items(recommender: Recommender) -> None:
    answer = await recommender.similar("item-1", k=3, filter={"brand": "brand-2"})
    assert len(answer.items) == 3
    found = [await recommender.item(item.item_id) for item in answer.items]
    assert {item.attributes["brand"] for item in found} == {"brand-2"}


async def test_a_bundle_without_titles(recommender: Recommender) -> None:
    with pytest.raises(Conflict) as caught:
        await recommender.search("keyboard", k=3)
    assert caught.value.details.kind == "not-trained"
    with pytest.raises(Conflict):
        await recommender.describe("item-1")


async def test_profiles(recommender: Recommender) -> None:
    assert (await recommender.profile("ann/o")).profile == {}
    with pytest.raises(InvalidInput) as caught:
        await recommender.put_profile("ann/o", {"age": "young"})
    assert "profile.age" in caught.value.fields
    assert (await recommender.put_profile("ann/o", {})).profile == {}


async def test_items(recommender: Recommender) -> None:
    sid = (await recommender.item("item-1")).sid
    made = await recommender.put_item("new/1", title="New", sid=sid, attributes={"price": 5.0})
    assert (made.status, made.sid) == ("added", sid)
    item = await recommender.item("new/1")
    assert (item.title, item.attributes["price"]) == ("New", 5.0)
    done = await recommender.put_items(
        [
            {"item_id": "new/1", "title": None, "attributes": {"price": 6.0}},
            {"item_id": "new/1", "attributes": {"price": "much"}},
        ]
    )
    assert (done.refused, done.items[0].status) == (1, "changed")
    assert done.items[1].error is not None
    assert done.items[1].error.field == "items.1.attributes.price"
    assert (await recommender.item("new/1")).title is None
    await recommender.delete_item("new/1")
    with pytest.raises(NotFound):
        await recommender.item("new/1")


async def test_fields_that_are_wrong_are_named(recommender: Recommender) -> None:
    with pytest.raises(InvalidInput, match="k: Input should be less") as caught:
        await recommender.recommend("ann/o", k=500)
    assert caught.value.fields == {"k": "Input should be less than or equal to 200"}
    assert caught.value.details.request_id


async def test_keys(served: Served, recommender: Recommender) -> None:
    async with Recommender(served.url, key="sidrec_wrong") as stranger:
        with pytest.raises(Unidentified):
            await stranger.recommend("ann")
        assert await stranger.ready()
    async with Recommender(served.url, key=SECRETS["reader"]) as reader:
        assert (await reader.recommend("ann", k=1)).items
        with pytest.raises(Forbidden, match="lacks the scope write"):
            await reader.add_events(CLICKS)


async def test_url_and_key_from_the_environment(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDREC_URL", served.url)
    monkeypatch.setenv("SIDREC_KEY", SECRETS["reader"])
    async with Recommender() as recommender:
        assert (await recommender.recommend("ann", k=1)).items


async def test_any_other_call(recommender: Recommender) -> None:
    models = await recommender.request("GET", "/v1/models")
    assert [model["name"] for model in models["models"]] == ["tiny"]
    with pytest.raises(Problem):
        await recommender.request("POST", "/v1/models/rollback")
    with pytest.raises(Unexpected, match="/docs: 200 OK"):
        await recommender.request("GET", "/docs")


async def test_nobody_listens() -> None:
    async with Recommender(f"http://127.0.0.1:{free_port()}", retries=0) as recommender:
        with pytest.raises(Unreachable):
            await recommender.recommend("ann")
        with pytest.raises(Unreachable):
            await recommender.ready()
