"""User histories in Redis: who did what to which item, when. Item ids only, no SIDs, no HTTP.

Per user two keys with one hash tag, so that they share a slot of a Redis Cluster: a hash of the
events and a sorted set of their order (see `history_append.lua`).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.errors import HistoryUnavailable, InvalidInput

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


class History:
    """The last `limit` events per user by (timestamp, event id), the latter as code points.

    The same events give the same history in whatever order, batches and repetitions they arrive:
    an event id that is already kept is a duplicate, whatever else it carries, and an event older
    than everything in a full history is dropped. A history expires `ttl` after the last append
    (None: never). Every method is one round trip, but for a server that does not know our scripts
    yet. A failed `append` may have been applied in part; repeat it, nothing is counted twice.

    Raises HistoryUnavailable from every method but `ping` when Redis does not do its part.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        limit: int = 200,
        ttl: timedelta | None = timedelta(days=90),
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit: {limit} is less than 1")
        if ttl is not None and ttl < timedelta(milliseconds=1):
            raise ValueError(f"ttl: {ttl} is less than a millisecond")
        self._client = client
        self._limit = limit
        self._ttl_ms = "" if ttl is None else str(ttl // timedelta(milliseconds=1))
        self._append = _Script("history_append.lua")
        self._read = _Script("history_read.lua")

    @property
    def client(self) -> Redis | RedisCluster:
        """The Redis, for whoever keeps other things there."""
        return self._client

    async def append(self, events: Sequence[Event]) -> int:
        """Add events of any number of users, atomically per user; how many were new and are kept.

        The number is too small where a connection broke after Redis had done part of the work.
        Raises InvalidInput for a timestamp without a timezone or outside the years 1685 to 2254.
        """
        arguments: dict[str, list[str]] = {}
        for position, event in enumerate(events):
            microseconds = _microseconds(event.timestamp, f"events.{position}.timestamp")
            row = [microseconds, event.event_id, event.item_id, event.type]
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            per_user = arguments.setdefault(event.user_id, [str(self._limit), self._ttl_ms])
            per_user += (event.event_id, str(microseconds), text)
        calls = [(keys(user_id), values) for user_id, values in arguments.items()]
        with _unavailable():
            return sum(map(_integer, await self._append.run(self._client, calls)))

    async def read(self, user_id: str) -> list[Event]:
        """The user's events, oldest first, timestamps in UTC; empty for an unknown user."""
        with _unavailable():
            [answer] = await self._read.run(self._client, [(keys(user_id)[:1], [])])
        return _events(user_id, answer)[-self._limit :]

    async def forget(self, user_id: str) -> bool:
        """Remove everything that is kept about the user; whether there was anything."""
        with _unavailable():
            return _integer(await self._client.unlink(*keys(user_id))) > 0

    async def ping(self) -> bool:
        """Whether Redis answers now. Never raises for a Redis that does not."""
        try:
            with _unavailable():
                await self._client.ping()
        except HistoryUnavailable:
            return False
        return True


def connect(
    url: str, *, timeout_ms: int = 250, connect_timeout_ms: int = 100, max_connections: int = 64
) -> Redis:
    """A client that fits a latency budget: waits are bounded, a lost connection is replaced once.

    An operation waits at most `timeout_ms` for a free connection, `connect_timeout_ms` for a new
    one, and `timeout_ms` for each reply. Call `aclose` on it in the event loop that used it.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_ms / 1000,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=connect_timeout_ms / 1000,
        # Balancers reset idle connections, which shows only at the next write; every write of ours
        # can be repeated. A timeout is not tried again: that would spend the budget twice.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,)),
    )
    return Redis.from_pool(pool)


def keys(user_id: str) -> tuple[str, str]:
    """The hash and the sorted set of a user: in one slot, and nobody else's."""
    # A cluster hashes what stands between the first "{" and the next "}", unless that is empty.
    tag = user_id.replace("%", "%25").replace("}", "%7D")
    return f"sidrec:history:{{{tag}}}:events", f"sidrec:history:{{{tag}}}:order"


class _Script:
    """A Lua script of this package that the server is asked to run by its digest."""

    def __init__(self, name: str) -> None:
        self._text = files("service").joinpath(name).read_text(encoding="utf-8")
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(
        self, client: Redis | RedisCluster, calls: Sequence[tuple[Sequence[str], Sequence[str]]]
    ) -> list[object]:
        """Run one call per (keys, arguments) in one round trip; the answers in the same order."""
        answers = await self._send(client, "EVALSHA", self._digest, calls)
        unknown = [
            position
            for position, answer in enumerate(answers)
            if isinstance(answer, redis.exceptions.NoScriptError)
        ]
        if unknown:
            # EVAL also teaches the script, to just the nodes of a cluster that lack it.
            again = [calls[position] for position in unknown]
            for position, answer in zip(
                unknown, await self._send(client, "EVAL", self._text, again), strict=True
            ):
                answers[position] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    @staticmethod
    async def _send(
        client: Redis | RedisCluster,
        command: str,
        script: str,
        calls: Sequence[tuple[Sequence[str], Sequence[str]]],
    ) -> list[object]:
        async with client.pipeline(transaction=False) as pipeline:
            for names, arguments in calls:
                pipeline.execute_command(command, script, len(names), *names, *arguments)
            return list(await pipeline.execute(raise_on_error=False))


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (
        redis.exceptions.RedisError,
        redis.exceptions.RedisClusterException,
        OSError,
    ) as error:
        raise HistoryUnavailable(f"Redis: {error or type(error).__name__}") from error


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
        rows: list[tuple[int, str, str, str]] = json.loads(_text(answer))
        rows.sort()  # microseconds come first, then the event id
        return [
            Event(event_id, user_id, item_id, type_, _EPOCH + timedelta(microseconds=microseconds))
            for microseconds, event_id, item_id, type_ in rows
        ]
    except (TypeError, ValueError, OverflowError) as error:
        raise HistoryUnavailable("a history does not hold what sidrec wrote") from error


def _text(answer: object) -> str:
    # A client may have been made with decode_responses.
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _integer(answer: object) -> int:
    if not isinstance(answer, int):
        raise HistoryUnavailable(f"Redis answered {answer!r} instead of a number")
    return answer
