"""Redis, alone and in a cluster, and experiments as one describes them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from service.experiments.definition import Design, Experiment
from service.redis_client import RedisClient, connect, connect_cluster
from tests.service.conftest import PATIENT_MS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    yield client
    await client.aclose()


@pytest.fixture(params=["alone", "cluster"])
async def anywhere(
    request: pytest.FixtureRequest, redis_url: str, cluster_url: str
) -> AsyncIterator[RedisClient]:
    """Redis as one server, and as a cluster."""
    client: RedisClient
    if request.param == "alone":
        client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    else:
        client = connect_cluster(
            cluster_url.replace("redis:", "redis+cluster:"),
            timeout_ms=PATIENT_MS,
            connect_timeout_ms=PATIENT_MS,
        )
    yield client
    await client.aclose()


def design(**fields: Any) -> dict[str, Any]:
    """Two arms with half of the users each, the second with more beams."""
    arms = [
        {"name": "narrow", "share": 0.5, "control": True},
        {"name": "wide", "share": 0.5, "settings": {"beam_width": 50}},
    ]
    return {"arms": arms, **fields}


def experiment(name: str = "beams", now: datetime = NOW, **fields: Any) -> Experiment:
    return Experiment.of(name, Design.model_validate(design(**fields)), now)
