"""A private Redis that ends by itself comes back, with its data, as soon as it can."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import redis

from service.redis_server import EmbeddedRedis
from service.redis_watch import kept_running


async def _until(what: Callable[[], bool]) -> None:
    for _ in range(400):
        if what():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not happen in time")


def _answers(server: EmbeddedRedis) -> bool:
    try:
        with redis.Redis.from_url(server.url) as client:
            return bool(client.get("kept") == b"1")
    except redis.RedisError:
        return False


async def test_it_comes_back_with_its_data(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server:
        async with kept_running(server):
            with redis.Redis.from_url(server.url) as client:
                client.set("kept", 1)
            pids = set()
            for _ in range(2):
                assert server.pid is not None
                pids.add(server.pid)
                os.kill(server.pid, signal.SIGKILL)
                await _until(lambda: server.pid not in pids)
                await _until(lambda: _answers(server))
    assert server.pid is None


async def test_it_is_tried_again_where_it_cannot_start(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 1)
        files = list((tmp_path / "data").rglob("*.incr.aof")) or [
            tmp_path / "data" / "appendonly.aof"
        ]
        [data] = files
        whole = data.read_bytes()
        pid = server.pid
        assert pid is not None
        async with kept_running(server):
            os.kill(pid, signal.SIGKILL)
            data.write_bytes(b"no data of a Redis" + whole)
            await _until(lambda: server.pid not in (pid, None) and server.ended)
            data.write_bytes(whole)
            await _until(lambda: _answers(server))


async def test_a_server_that_runs_is_left_alone(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "data") as server:
        before = server.pid
        async with kept_running(server):
            await asyncio.sleep(0.5)
        assert server.pid == before
