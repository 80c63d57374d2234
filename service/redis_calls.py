"""What every use of Redis here shares: scripts by their digest, one error for all trouble."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files

import redis.exceptions
from redis.asyncio import Redis, RedisCluster

from service.errors import HistoryUnavailable, SidrecError
from service.spans import redis_span

Call = tuple[Sequence[str], Sequence[str]]
"""Keys, which share a slot of a Redis Cluster, and arguments."""


class Script:
    """A Lua script of this package that the server is asked to run by its digest."""

    def __init__(self, name: str) -> None:
        self._text = files("service").joinpath(name).read_text(encoding="utf-8")
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Redis | RedisCluster, calls: Sequence[Call]) -> list[object]:
        """Run all calls in one round trip; the answers in the same order."""
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
        client: Redis | RedisCluster, command: str, script: str, calls: Sequence[Call]
    ) -> list[object]:
        async with client.pipeline(transaction=False) as pipeline:
            for names, arguments in calls:
                pipeline.execute_command(command, script, len(names), *names, *arguments)
            return list(await pipeline.execute(raise_on_error=False))


@contextmanager
def unavailable(kind: type[SidrecError] = HistoryUnavailable) -> Iterator[None]:
    """Around each use of Redis: a span of the request that it is for, and an error of this kind for
    whatever keeps Redis from doing its part."""
    try:
        with redis_span():
            yield
    except (
        redis.exceptions.RedisError,
        redis.exceptions.RedisClusterException,
        OSError,
    ) as error:
        raise kind(f"Redis: {error or type(error).__name__}") from error


def text(answer: object) -> str:
    """A reply as text; a client may have been made with decode_responses."""
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def slot(name: str) -> str:
    """`name` as a hash tag: keys with it lie in one slot of a cluster, and nobody else has them."""
    # A cluster hashes what stands between the first "{" and the next "}", unless that is empty.
    return "{" + name.replace("%", "%25").replace("}", "%7D") + "}"
