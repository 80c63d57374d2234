"""What is popular now: counts of events that halve with time, per scene and over all, in Redis.

*Forward decay* (Cormode, Shkapenyuk, Srivastava, Xu: "Forward decay: a practical time decay model
for streaming systems", ICDE 2009): an event at time t adds 2^((t - landmark) / half-life). All
counts decay by the same factor, so their order never changes by itself and nothing is touched as
time passes; an event that comes late adds what it would have been worth by now. Once in 500
half-lives the scores are brought back to a new landmark. Item ids only: counts outlive any bundle.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from structlog.typing import FilteringBoundLogger

from service.errors import HistoryUnavailable
from service.history import Event
from service.redis_calls import Script, slot, text, unavailable
from service.redis_client import RedisClient
from service.repeated import repeated

KEPT = 10_000
"""Items counted per scene, and delivered at once. One that is clicked rarely may fall off, and
start from nothing."""
WANTED = 500
"""Items read per scene: those behind them are never shown for being popular now."""

_MS = timedelta(milliseconds=1)
_NEGLIGIBLE = 60  # half-lives: an older event is worth nothing
_REPEATABLE_MS = 600_000  # how long a delivery is known

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Delivery:
    """What is to be added, per scene (None: over all) and item, in counts as of `at` (ms)."""

    at: float
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    counts: dict[str | None, dict[str, float]] = field(default_factory=dict)


class Popularity:
    """Counts what `count` is given, and knows the items with the highest counts.

    Neither waits for Redis: `refresh` carries both ways at once, one round trip, and `kept_fresh`
    calls it every `refresh` in the background. So an event shows after at most two of them, one
    where it arrived; what a process had not delivered when it was killed is lost; and while Redis
    is away the last known counts stand. A delivery whose answer was lost is repeated and counted
    once. `weights` are those of event types, 1 for any other; 0 does not count.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        half_life: timedelta = timedelta(days=7),
        weights: Mapping[str, float] | None = None,
        refresh: timedelta = timedelta(seconds=2),
    ) -> None:
        if half_life < _MS:
            raise ValueError(f"half_life: {half_life} is less than a millisecond")
        self._client = client
        self._half_life = half_life / _MS
        self._weights = dict(weights or {})
        self._interval = refresh.total_seconds()
        self._script = Script("popularity.lua")
        self._scenes: list[str | None] = [None]
        self._filling: _Delivery | None = None
        self._sending: _Delivery | None = None
        self._top: dict[str | None, list[tuple[str, float]]] = {}
        self._fresh: float | None = None

    def watch(self, scenes: Iterable[str]) -> None:
        """From now on these scenes are counted and read, beside those before."""
        self._scenes += [scene for scene in dict.fromkeys(scenes) if scene not in self._scenes]

    def count(
        self, events: Iterable[tuple[Event, str | None]], *, now: float | None = None
    ) -> None:
        """Take note of events that were new, each with its scene; `now` in seconds since 1970.

        A scene that is not watched counts over all only: scenes are not for clients to invent.
        """
        at = (time.time() if now is None else now) * 1000
        oldest = at - _NEGLIGIBLE * self._half_life
        delivery = self._filling
        if delivery is None or delivery.at < oldest:  # what waited for so long is worth nothing
            delivery = self._filling = _Delivery(at)
        for event, scene in events:
            weight = self._weights.get(event.type, 1.0)
            when = min(event.timestamp.timestamp() * 1000, at)  # the future is worth no more
            if not weight or when < oldest:
                continue
            age = (delivery.at - when) / self._half_life
            for scope in {None, scene}.intersection(self._scenes):
                counts = delivery.counts.setdefault(scope, {})
                if event.item_id in counts or len(counts) < KEPT:
                    counts[event.item_id] = counts.get(event.item_id, 0.0) + weight * 2.0**-age

    def top(self, scene: str | None) -> Sequence[tuple[str, float]]:
        """Item ids with their counts as of the last refresh, highest first; None: over all."""
        return self._top.get(scene, ())

    @property
    def age(self) -> float:
        """Seconds since the last refresh, endless before the first."""
        return float("inf") if self._fresh is None else time.monotonic() - self._fresh

    async def refresh(self, *, now: float | None = None) -> None:
        """Deliver what was counted and read what is highest. Raises HistoryUnavailable."""
        if self._sending is None:
            self._sending, self._filling = self._filling, None
        moment = (time.time() if now is None else now) * 1000
        delivery = self._sending or _Delivery(moment)
        scenes = list(self._scenes)
        calls = [(_keys(scene, delivery), self._arguments(scene, delivery)) for scene in scenes]
        with unavailable():
            answers = await self._script.run(self._client, calls)
        self._sending = None
        for scene, answer in zip(scenes, answers, strict=True):
            self._top[scene] = self._counts(answer, moment)
            await asyncio.sleep(0)  # so that requests wait for one scene at most
        self._fresh = time.monotonic()

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Refreshes until left, and then delivers what is left."""
        await self._try_refresh()
        try:
            async with repeated(self._try_refresh, self._interval):
                yield
        finally:
            await self._try_refresh()

    async def _try_refresh(self) -> None:
        try:
            await self.refresh()
        except HistoryUnavailable as error:
            _log.warning("popularity_stale", error=str(error))

    def _arguments(self, scene: str | None, delivery: _Delivery) -> list[str]:
        fixed = (delivery.at, self._half_life, KEPT, WANTED, _REPEATABLE_MS)
        counts = delivery.counts.get(scene, {}).items()
        return [*map(repr, fixed), *(part for item, n in counts for part in (item, repr(n)))]

    def _counts(self, answer: object, now: float) -> list[tuple[str, float]]:
        try:
            landmark, *members = json.loads(text(answer))
            # The clock of whoever set the landmark may be far ahead of ours.
            decay = 2.0 ** min(1000, (float(landmark) - now) / self._half_life)
            pairs = zip(members[::2], members[1::2], strict=True)
            return [(str(item), float(score) * decay) for item, score in pairs]
        except (TypeError, ValueError) as error:
            raise HistoryUnavailable("Redis answered no counts") from error


def _keys(scene: str | None, delivery: _Delivery) -> list[str]:
    prefix = f"sidrec:popular:{slot('all' if scene is None else f'in {scene}')}"
    return [f"{prefix}:counts", f"{prefix}:scale", f"{prefix}:{delivery.token}"]
