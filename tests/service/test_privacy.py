"""What is forgotten with a user: everything, shown by reading the whole Redis afterwards."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import redis
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from service import history
from service.answer_cache import AnswerCache, KeptAnswers
from service.experiments.counters import digest
from service.experiments.trail import trail_key
from service.history import History
from service.redis_calls import slot
from service.redis_client import connect
from tests.service.conftest import PATIENT_MS, MakeClient
from tests.service.experiments.test_api import URL, click, put, report
from tests.service.test_api import event, recommend
from tests.service.test_history import event as stored

TTL_MS = 60_000
USERS = ["ann-of-green-gables", "50% {of} it/all", "王梅·中国"]


def contents(store: Any) -> Iterator[tuple[bytes, list[bytes]]]:
    """Every key of a Redis with everything in it."""
    for name in store.scan_iter("*"):
        match store.type(name):
            case b"string":
                yield name, [store.get(name) or b""]
            case b"hash":
                yield name, [part for pair in store.hgetall(name).items() for part in pair]
            case b"zset":
                yield name, store.zrange(name, 0, -1)
            case b"set":
                yield name, list(store.smembers(name))
            case b"list":
                yield name, store.lrange(name, 0, -1)
            case b"stream":
                entries = store.xrange(name)
                yield name, [part for _, f in entries for pair in f.items() for part in pair]
            case kind:
                raise AssertionError(f"{name!r} is a {kind!r}, which this test cannot read")


def traces(store: redis.Redis, user_id: str) -> list[bytes]:
    """The keys whose names or contents have a user id in a form that we write."""
    forms = {user_id.encode(), slot(user_id)[1:-1].encode(), digest(user_id).encode()}
    # A list of JSON escapes what is no ASCII.
    forms.add(json.dumps(user_id)[1:-1].encode())
    return [
        name
        for name, parts in contents(store)
        if any(form in part for form in forms for part in (name, *parts))
    ]


@pytest.mark.parametrize("user_id", USERS)
def test_no_trace_is_left_of_a_user(
    make_client: MakeClient, scene_bundle: Bundle, redis_url: str, user_id: str
) -> None:
    client = make_client(bundle=scene_bundle.path, cache_ttl_ms=TTL_MS, popular_refresh_ms=10)
    put(client)
    for one in (user_id, "bob"):
        fill(client, one)
        forced = client.put(f"{URL}/users/{quote(one, safe='')}", json={"arm": "wide"})
        assert forced.is_success
    report(client)  # delivers what experiments have counted
    with redis.Redis.from_url(redis_url) as store:
        kept = traces(store, user_id)
        for kind in history.keys(user_id):
            assert kind.encode() in kept
        assert trail_key(user_id).encode() in kept
        counted = [name for name in kept if name.startswith(b"sidrec:experiment:")]
        assert len(counted) == 2  # who was shown something, and who clicked
        assert any(b"sidrec:experiments" in name for name in kept)  # who is forced into an arm
        assert sum(b"sidrec:answer:" in name for name in kept) == 3  # two answers and their list
        path = path_of(user_id)
        assert client.delete(path).status_code == 204
        assert traces(store, user_id) == []
        assert len(traces(store, "bob")) == len(kept)
    assert client.get(f"{path}/history").json()["events"] == []
    assert client.get(f"{path}/profile").json()["profile"] == {}
    assert "cached" not in recommend(client, user_id=user_id, k=3)


def fill(client: TestClient, user_id: str) -> None:
    """Everything that the service can be told of a user, and what follows from it."""
    told = [event(n, user_id=user_id, scene="home") for n in range(3)]
    assert client.post("/v1/events", json=told).is_success
    path = f"{path_of(user_id)}/profile"
    assert client.put(path, json={"profile": {"age": "old"}}).is_success
    for k in (3, 4):
        first = recommend(client, user_id=user_id, k=k)
        assert first["source"] == "model"
        assert recommend(client, user_id=user_id, k=k)["cached"] is True
    clicked = click(9, user_id, request_id=first["request_id"])
    assert client.post("/v1/events", json=[clicked]).is_success


def path_of(user_id: str) -> str:
    return f"/v1/users/{quote(user_id, safe='')}"


async def test_an_answer_that_was_being_made_does_not_outlive_its_user(redis_url: str) -> None:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    try:
        kept: AnswerCache[Any] = AnswerCache(client, dict[str, int], ttl_ms=TTL_MS, state=1)
        store = History(client)
        key = kept.key("what", user_id="ann")
        await kept.put(key, {"a": 1})
        assert await kept.get(key) is None  # nothing is stored of her
        await store.append([stored(1, user="ann")])
        await kept.put(key, {"a": 2})
        assert await kept.get(key) == {"a": 2}
        assert 0 < await client.pttl(f"sidrec:answer:{slot('ann')}") <= TTL_MS
        assert await store.forget("ann")
        assert await KeptAnswers(client).forget("ann")
        assert not await KeptAnswers(client).forget("ann")
        await kept.put(key, {"a": 3})
        assert await client.keys("*") == []
    finally:
        await client.aclose()


async def test_the_list_of_answers_does_not_grow(redis_url: str) -> None:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    try:
        await History(client).append([stored(1, user="ann")])
        brief: AnswerCache[int] = AnswerCache(client, int, ttl_ms=1, state=1)
        long: AnswerCache[int] = AnswerCache(client, int, ttl_ms=TTL_MS, state=2)
        await long.put(long.key("long", user_id="ann"), 1)
        for number in range(20):
            await brief.put(brief.key(number, user_id="ann"), number)
        listed = f"sidrec:answer:{slot('ann')}"
        assert await client.zcard(listed) < 20
        assert await client.pttl(listed) > TTL_MS / 2
    finally:
        await client.aclose()


async def test_all_keys_of_a_user_share_a_slot_of_a_cluster() -> None:
    kept: AnswerCache[int] = AnswerCache(connect("redis://nowhere"), int, ttl_ms=1, state=1)
    for user_id in USERS:
        tag = slot(user_id)
        assert all(tag in name for name in history.keys(user_id))
        assert tag in kept.key(1, user_id=user_id).name
