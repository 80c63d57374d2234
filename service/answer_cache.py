"""Answers of a short while ago, in Redis, for those who ask the same in the same state.

A key is a digest of everything that an answer follows from, so nothing has to be invalidated: what
changes is asked under another key, and old entries expire. Redis in trouble is a miss.
"""

import hashlib
import json
from collections.abc import Sequence
from time import monotonic
from typing import Any

import redis.exceptions
import structlog
from redis.asyncio import Redis, RedisCluster
from structlog.typing import FilteringBoundLogger

_PAUSE_S = 1.0
"""How long Redis is left alone after it failed: a miss must not cost a timeout every time."""

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class AnswerCache:
    """Keeps JSON values for `ttl_ms`; for one event loop."""

    def __init__(self, client: Redis | RedisCluster, *, ttl_ms: int) -> None:
        if ttl_ms < 1:
            raise ValueError(f"ttl_ms: {ttl_ms} is less than 1")
        self._client = client
        self._ttl_ms = ttl_ms
        self._resumes = 0.0

    async def get(self, key: str) -> Any | None:
        """What was put under this key in the last `ttl_ms`; None for a miss."""
        if monotonic() < self._resumes:
            return None
        try:
            text = await self._client.get(_name(key))
            return None if text is None else json.loads(text)
        except (redis.exceptions.RedisError, OSError, ValueError) as error:
            self._pause(error)
            return None

    async def put(self, key: str, value: Any) -> None:
        if monotonic() < self._resumes:
            return
        try:
            await self._client.set(_name(key), json.dumps(value), px=self._ttl_ms)
        except (redis.exceptions.RedisError, OSError) as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        self._resumes = monotonic() + _PAUSE_S
        _log.warning("answer cache", error=str(error) or type(error).__name__)


def answer_key(*parts: Any) -> str:
    """The digest of `parts`: JSON values, mappings in any order."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def _name(key: str) -> str:
    return f"sidrec:answer:{key}"
