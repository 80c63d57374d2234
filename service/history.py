"""User histories in Redis: who did what to which item, when. Item ids only, no SIDs, no HTTP.

Per user three keys with one hash tag, so that they share a slot of a Redis Cluster: a hash of the
events, a sorted set of their order (see `history_append.lua`), and the profile, which is read in
the same round trip and expires with them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from service.errors import HistoryUnavailable, InvalidInput
from service.redis_calls import Script, send, slot, text, unavailable
from service.redis_client import RedisClient
from service.redis_command import Command

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXACT = 2**53  # a sorted set's scores are doubles; this many microseconds is the year 2255


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did. `event_id` is unique per user; `timestamp` is timezone-aware."""

    event_id: str
    user_id: str
    item_id: str
    type: str
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What is kept of a user: events, oldest first, timestamps in UTC, and the profile."""

    events: list[Event]
    profile: dict[str, str]


class History:
    """The last `limit` events per user by (timestamp, event id), the latter as code points.

    The same events give the same history in whatever order, batches and repetitions they arrive:
    an event id that is already kept is a duplicate, whatever else it carries, and an event older
    than everything in a full history is dropped. A history expires `ttl` after the last append
    (None: never), and the profile with it, or `ttl` after it was put where that is later. An event
    older than `max_age` (None: of any age) is never read, and removed by the next append. Every
    method is one round trip, but for a server that does not know our scripts yet. A failed
    `append` may have been applied in part; repeat it, nothing is counted twice.

    Raises HistoryUnavailable from every method but `ping` when Redis does not do its part.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        limit: int = 200,
        ttl: timedelta | None = timedelta(days=90),
        max_age: timedelta | None = None,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit: {limit} is less than 1")
        if ttl is not None and ttl < timedelta(milliseconds=1):
            raise ValueError(f"ttl: {ttl} is less than a millisecond")
        if max_age is not None and max_age < timedelta(milliseconds=1):
            raise ValueError(f"max_age: {max_age} is less than a millisecond")
        self._client = client
        self._limit = limit
        self._max_age = max_age
        self._ttl_ms = None if ttl is None else ttl // timedelta(milliseconds=1)
        self._append = Script("history_append.lua")
        self._read = Script("history_read.lua")

    async def append(self, events: Sequence[Event]) -> list[int]:
        """Add events of any number of users, atomically per user; the positions of those that were
        new and are kept, ascending.

        Some are missing where a connection broke after Redis had done part of the work. Raises
        InvalidInput for a timestamp without a timezone or outside the years 1685 to 2254.
        """
        ttl = "" if self._ttl_ms is None else str(self._ttl_ms)
        oldest = self._oldest()
        since = "" if oldest is None else str((oldest - _EPOCH) // _MICROSECOND)
        arguments: dict[str, list[str]] = {}
        positions: dict[str, list[int]] = {}
        for position, event in enumerate(events):
            microseconds = _microseconds(event.timestamp, f"events.{position}.timestamp")
            row = [microseconds, event.event_id, event.item_id, event.type]
            entry = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            per_user = arguments.setdefault(event.user_id, [str(self._limit), ttl, since])
            per_user += (event.event_id, str(microseconds), entry)
            positions.setdefault(event.user_id, []).append(position)
        calls = [(keys(user_id), values) for user_id, values in arguments.items()]
        with unavailable():
            answers = await self._append.run(self._client, calls, kept=True)
        new = zip(positions.values(), answers, strict=True)
        return sorted(of_user[i] for of_user, answer in new for i in _integers(answer))

    async def read(self, user_id: str) -> Known:
        """What is kept of the user, events oldest first; nothing for an unknown one."""
        names = keys(user_id)
        with unavailable():
            [answer] = await self._read.run(self._client, [((names.events, names.profile), [])])
        match answer:
            case [events, profile]:
                kept, oldest = _events(user_id, events)[-self._limit :], self._oldest()
                if oldest is not None:
                    kept = [event for event in kept if event.timestamp >= oldest]
                return Known(kept, _profile(profile))
        raise HistoryUnavailable(f"Redis answered {answer!r} instead of a history and a profile")

    def _oldest(self) -> datetime | None:
        """The earliest time of an event that may still be used."""
        return None if self._max_age is None else datetime.now(UTC) - self._max_age

    async def put_profile(self, user_id: str, profile: Mapping[str, str]) -> None:
        """Keep a profile in the place of the one before; an empty one leaves nothing."""
        key, value = keys(user_id).profile, json.dumps(dict(profile), ensure_ascii=False)
        ends = () if self._ttl_ms is None else ("PX", self._ttl_ms)
        words = ("SET", key, value, *ends) if profile else ("UNLINK", key)
        with unavailable():
            await send(self._client, [Command(key, words)], kept=True)

    async def forget(self, user_id: str) -> bool:
        """Remove everything that is kept about the user; whether there was anything."""
        names = keys(user_id)
        with unavailable():
            [gone] = await send(
                self._client, [Command(names.events, ("UNLINK", *names))], kept=True
            )
        return _integer(gone) > 0

    async def ping(self) -> bool:
        """Whether Redis answers now. Never raises for a Redis that does not."""
        try:
            with unavailable():
                await self._client.ping()
        except HistoryUnavailable:
            return False
        return True


class Keys(NamedTuple):
    """A hash, a sorted set, and a string."""

    events: str
    order: str
    profile: str


def keys(user_id: str) -> Keys:
    """The keys of a user: in one slot, and nobody else's."""
    prefix = f"sidrec:history:{slot(user_id)}"
    return Keys(f"{prefix}:events", f"{prefix}:order", f"{prefix}:profile")


def _microseconds(timestamp: datetime, field: str) -> int:
    if timestamp.utcoffset() is None:
        raise InvalidInput(field, "needs a timezone")
    microseconds = (timestamp - _EPOCH) // _MICROSECOND
    if abs(microseconds) > _EXACT:
        raise InvalidInput(field, "outside the years 1685 to 2254")
    return microseconds


def _events(user_id: str, answer: object) -> list[Event]:
    """What `history_read.lua` answered, in order."""
    try:
        rows: list[tuple[int, str, str, str]] = json.loads(text(answer))
        rows.sort()  # microseconds come first, then the event id
        return [
            Event(event_id, user_id, item_id, type_, _EPOCH + timedelta(microseconds=microseconds))
            for microseconds, event_id, item_id, type_ in rows
        ]
    except (TypeError, ValueError, OverflowError) as error:
        raise HistoryUnavailable("a history does not hold what sidrec wrote") from error


def _profile(answer: object) -> dict[str, str]:
    if answer is None:
        return {}
    try:
        profile = json.loads(text(answer))
        return {str(name): str(value) for name, value in profile.items()}
    except (AttributeError, ValueError) as error:
        raise HistoryUnavailable("a profile does not hold what sidrec wrote") from error


def _integer(answer: object) -> int:
    if not isinstance(answer, int):
        raise HistoryUnavailable(f"Redis answered {answer!r} instead of a number")
    return answer


def _integers(answer: object) -> list[int]:
    if not isinstance(answer, list):
        raise HistoryUnavailable(f"Redis answered {answer!r} instead of numbers")
    return [_integer(number) for number in answer]
