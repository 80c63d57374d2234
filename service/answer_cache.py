"""Answers of a short while ago, in Redis, for those who ask the same in the same state.

A key is a digest of everything that an answer follows from, so nothing has to be invalidated: what
changes is asked under another key, and old entries expire. Redis in trouble is a miss. An answer
that follows from what is stored of a user is kept beside that, under the user's hash tag, and
listed, so that it is forgotten with the user.
"""

import hashlib
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

import structlog
from pydantic import TypeAdapter
from pydantic_core import to_json
from structlog.typing import FilteringBoundLogger

from service import history
from service.redis_calls import TROUBLE, Script, send, slot, unavailable
from service.redis_client import RedisClient
from service.redis_command import Command
from service.spans import redis_span

T = TypeVar("T")

_PAUSE_S = 1.0
"""How long Redis is left alone after it failed: a miss must not cost a timeout every time."""

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """The name of an answer; `user_id` where it follows from what is stored of a user."""

    name: str
    user_id: str | None = None


class AnswerCache(Generic[T]):
    """Keeps answers of one kind for `ttl_ms`; for one event loop.

    `state` is what they follow from beside the request, as long as this cache lives: bundle,
    engine, settings. Processes that share a Redis and differ in it do not see each other's answers.
    """

    def __init__(self, client: RedisClient, kind: type[T], *, ttl_ms: int, state: Any) -> None:
        if ttl_ms < 1:
            raise ValueError(f"ttl_ms: {ttl_ms} is less than 1")
        self._client = client
        self._kind = TypeAdapter(kind)
        self._ttl_ms = ttl_ms
        self._state = to_json(state)
        self._resumes = 0.0
        self._put = Script("answer_put.lua")

    def key(self, *parts: Any, user_id: str | None = None) -> AnswerKey:
        """The name of an answer that follows from `parts`: whatever has a JSON form. The order of
        their fields counts, for a prompt may follow it. `user_id` says whose stored history or
        profile is among them."""
        digest = hashlib.blake2b(self._state, digest_size=20)
        digest.update(to_json(parts))
        of_user = "" if user_id is None else f"{slot(user_id)}:"
        return AnswerKey(f"sidrec:answer:{of_user}{digest.hexdigest()}", user_id)

    async def get(self, key: AnswerKey) -> T | None:
        """What was put under this key in the last `ttl_ms`; None for a miss."""
        if monotonic() < self._resumes:
            return None
        try:
            with redis_span():
                [text] = await send(self._client, [Command(key.name, ("GET", key.name))])
            return None if text is None else self._kind.validate_json(text)
        except (*TROUBLE, ValueError) as error:
            self._pause(error)
            return None

    async def put(self, key: AnswerKey, answer: T) -> None:
        """Keeps an answer, or does not: whoever asks again computes it again."""
        if monotonic() < self._resumes:
            return
        content = self._kind.dump_json(answer)
        try:
            if key.user_id is None:
                words = ("SET", key.name, content, "PX", self._ttl_ms)
                with redis_span():
                    await send(self._client, [Command(key.name, words)])
            else:
                names = [key.name, _list(key.user_id), *history.keys(key.user_id)]
                call = names, [content.decode(), str(self._ttl_ms)]
                await self._put.run(self._client, [call])
        except TROUBLE as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        self._resumes = monotonic() + _PAUSE_S
        _log.warning("answer cache", error=str(error) or type(error).__name__)


class KeptAnswers:
    """The answers that follow from what is stored of a user, whoever keeps them."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def forget(self, user_id: str) -> bool:
        """Removes those of a user; whether there were any. Call it when what they follow from is
        gone, so that none can come after. Raises HistoryUnavailable."""
        listed = _list(user_id)
        with unavailable():
            [answers] = await send(self._client, [Command(listed, ("ZRANGE", listed, 0, -1))])
            removing = Command(listed, ("UNLINK", listed, *answers))
            return bool(*await send(self._client, [removing], kept=True))


def _list(user_id: str) -> str:
    return f"sidrec:answer:{slot(user_id)}"
