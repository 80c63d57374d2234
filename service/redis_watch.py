"""Keeps the private Redis running: what kills it, as the kernel does when memory is short, must not
leave a service without histories until somebody looks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from structlog.typing import FilteringBoundLogger

from service.redis_server import EmbeddedRedis, RedisStartFailed
from service.repeated import set_within

_LOOK_S = 0.2
_AGAIN_S = 2.0
"""After a start that failed: what keeps it from starting seldom goes at once."""

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@asynccontextmanager
async def kept_running(server: EmbeddedRedis) -> AsyncIterator[None]:
    """Starts a server that has ended by itself again, until left."""
    left = asyncio.Event()
    task = asyncio.create_task(_keep_running(server, left))
    try:
        yield
    finally:
        # Not by cancelling it: a start goes on in its thread, and would leave a server behind.
        left.set()
        await task


async def _keep_running(server: EmbeddedRedis, left: asyncio.Event) -> None:
    pause_s = _LOOK_S
    while not await set_within(left, pause_s):
        pause_s = _LOOK_S
        if not server.ended:
            continue
        _log.error("redis_ended", folder=str(server.folder))
        try:
            await asyncio.to_thread(server.start_again)
        except RedisStartFailed as error:
            _log.error("redis_not_started", error=str(error))
            pause_s = _AGAIN_S
        else:
            _log.info("redis_started_again", pid=server.pid)
