"""What the service keeps, on six real Redis processes: spread, moved, and after a primary's end."""

import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest
from redis.crc import key_slot
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import HistoryUnavailable
from service.history import History, keys
from service.redis_client import RedisClient, connect, connect_any
from service.redis_command import Copies
from service.settings import Settings
from tests.faults.processes import Redis, eventually
from tests.replicas.redis_cluster import RedisCluster
from tests.service.conftest import PATIENT_MS
from tests.service.experiments.conftest import design
from tests.service.test_history import event as stored

USERS = [f"user-{number}" for number in range(12)]
TIMEOUT_MS = 500
RECOVERY_S = 20
"""Far more than it takes: test machines do other things too."""


@pytest.fixture
async def client(cluster: RedisCluster) -> AsyncIterator[RedisClient]:
    made = connect_any(cluster.url, timeout_ms=TIMEOUT_MS, connect_timeout_ms=TIMEOUT_MS)
    async with aclosing(made) as client:
        yield client


@pytest.fixture
def history(client: RedisClient) -> History:
    return History(client)


@pytest.fixture
def api(cluster: RedisCluster) -> Iterator[TestClient]:
    """A service on the demo bundle that waits for a replica, and keeps answers."""
    app = create_app(
        Settings(
            engine="fake",
            redis_url=cluster.url,
            redis_timeout_ms=PATIENT_MS,
            redis_wait_replicas=1,
            cache_ttl_ms=60_000,
            popular_refresh_ms=50,
        )
    )
    with TestClient(app) as client:
        yield client


def click(number: int, user_id: str) -> dict[str, Any]:
    now = time.time()
    return {
        "event_id": f"e{number}",
        "user_id": user_id,
        "item_id": f"p{number:05d}",
        "timestamp": now,
    }


def recommended(api: TestClient, **wanted: Any) -> dict[str, Any]:
    response = api.post("/v1/recommendations", json=wanted)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_everything_that_is_kept_works_on_six(api: TestClient, cluster: RedisCluster) -> None:
    assert api.get("/readyz").json()["status"] == "ready"
    told = [click(n, user) for user in USERS for n in range(1, 4)]
    first = api.post("/v1/events", json=told)
    assert first.json() == {"accepted": len(told), "duplicates": 0}
    assert api.post("/v1/events", json=told).json()["duplicates"] == len(told)
    slots = {key_slot(keys(user).events.encode()) * 3 // 16_384 for user in USERS}
    assert slots == {0, 1, 2}, "users of all three primaries"
    assert api.put("/v1/experiments/beams", json=design()).status_code == 200
    for user in USERS:
        assert len(api.get(f"/v1/users/{user}/history").json()["events"]) == 3
        answer = recommended(api, user_id=user, k=5)
        assert answer["source"] == "model"
        assert recommended(api, user_id=user, k=5)["cached"] is True
    eventually(lambda: len(recommended(api, k=5)["items"]) == 5)
    assert api.put("/v1/items/new", json={"title": "A new lamp"}).json()["status"] == "added"
    assert api.get("/v1/items/new").json()["title"] == "A new lamp"
    report = api.get("/v1/experiments/beams/report").json()
    assert sum(arm["exposed_users"] for arm in report["arms"]) == len(USERS)
    assert any(name.startswith("sidrec:popular:{all}") for name in cluster.stored_keys())
    for user in USERS:
        assert any(f"{{{user}}}" in name for name in cluster.stored_keys())
        assert api.delete(f"/v1/users/{user}").status_code == 204
    left = [name for name in cluster.stored_keys() if "user-" in name]
    assert left == []


async def test_who_waits_for_a_replica_that_is_not_there_is_refused(redis_url: str) -> None:
    copies = Copies(replicas=1, timeout_ms=50)
    async with connect(redis_url, timeout_ms=PATIENT_MS, copies=copies) as client:
        with pytest.raises(HistoryUnavailable, match="0 of 1 replicas"):
            await History(client).append([stored(1)])
    async with connect(redis_url, timeout_ms=PATIENT_MS) as client:
        assert await History(client).append([stored(1)]) == []  # it is in, and not twice


async def seconds_until_read(history: History, user: str) -> float:
    began = time.monotonic()
    while time.monotonic() - began < RECOVERY_S:
        with suppress(HistoryUnavailable):
            await history.read(user)
            return time.monotonic() - began
    raise AssertionError("no recovery")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_primary_ends_and_its_replica_takes_over(
    cluster: RedisCluster, history: History, how: signal.Signals
) -> None:
    for number, user in enumerate(USERS):
        assert await history.append([stored(number, user=user)]) == [0]
    eventually(cluster.caught_up)  # who ends before that takes events along
    gone = cluster.primary_of(USERS[0])
    others = [user for user in USERS if cluster.primary_of(user) is not gone]
    assert others
    if how == signal.SIGKILL:
        gone.kill()
    else:
        gone.signal(how)
    with pytest.raises(HistoryUnavailable):
        await history.read(USERS[0])
    for user in others:
        assert len((await history.read(user)).events) == 1
    assert await history.ping() is False
    took = await seconds_until_read(history, USERS[0])
    assert took < RECOVERY_S
    for number, user in enumerate(USERS):
        assert len((await history.read(user)).events) == 1
        assert await history.append([stored(number + 100, user=user)]) == [0]
    assert await history.ping() is True
    if how == signal.SIGSTOP:
        gone.signal(signal.SIGCONT)
    else:
        gone.start()
    eventually(cluster.whole, 60)
    for user in USERS:  # also on connections to him who is a replica now
        assert len((await history.read(user)).events) == 2


async def test_keys_that_are_moving_and_have_moved(cluster: RedisCluster, history: History) -> None:
    slot = str(key_slot(keys("mover").events.encode()))
    await history.append([stored(1, user="other")])  # so that the nodes are known
    source = cluster.primary_of("mover")
    target = next(node for node in cluster.primaries() if node is not source)
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))
    await history.put_profile("mover", {"age": "old"})
    assert target.command("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
    with pytest.raises(HistoryUnavailable, match="during rehashing"):
        # Redis itself refuses what needs several keys of a slot that is between two nodes.
        await history.append([stored(1, user="mover")])
    settle(cluster, slot, target)
    assert (await history.read("mover")).profile == {"age": "old"}
    assert await history.append([stored(1, user="mover")]) == [0]
    assert await history.forget("mover")
    settle(cluster, slot, source)


def settle(cluster: RedisCluster, slot: str, owner: Redis) -> None:
    for node in [owner, *cluster.primaries()]:
        node.command("CLUSTER", "SETSLOT", slot, "NODE", cluster.id_of(owner))
