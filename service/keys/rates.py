"""How often a key may ask: counted in this process, by a sliding window."""

import math
import time
from dataclasses import dataclass
from functools import cache

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from service.errors import TooOften
from service.keys.key import Key


@dataclass(frozen=True, slots=True)
class Left:
    """What a key may still do: `remaining` of `limit` requests in the next `reset_s` seconds, in a
    window of `window_s`."""

    limit: int
    window_s: int
    remaining: int
    reset_s: int


class Rates:
    """Counts requests of keys; for one event loop.

    Nothing is shared between processes: a round trip for each request would cost more than most
    answers wait for Redis, and a Redis in trouble would decide who may ask.
    """

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def count(self, key: Key) -> Left | None:
        """Counts one request; what is left, None for a key without a limit. Raises `TooOften`."""
        if key.rate is None:
            return None
        item = _parsed(key.rate)
        within = await self._limiter.hit(item, key.name)
        stats = await self._limiter.get_window_stats(item, key.name)
        reset_s = max(1, math.ceil(stats.reset_time - time.time()))
        left = Left(item.amount, item.get_expiry(), stats.remaining, reset_s)
        if not within:
            raise TooOften(f"this key may ask {key.rate}", left.reset_s)
        return left


@cache
def _parsed(rate: str) -> RateLimitItem:
    return parse(rate)
