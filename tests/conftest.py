"""Fixtures that several wings share."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.redis_server import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A real Redis for the whole session. Tests that stop or suspend one start their own."""
    folder: Path = tmp_path_factory.mktemp("redis")
    with EmbeddedRedis(folder) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """The URL of a real Redis with nothing in it, and that nobody else writes to."""
    with redis.Redis.from_url(redis_server.url) as client:
        within = time.monotonic() + 10
        while len(others := client.client_list()) > 1:
            assert time.monotonic() < within, f"an earlier test left clients behind: {others}"
            time.sleep(0.01)
        client.flushall()
    return redis_server.url
