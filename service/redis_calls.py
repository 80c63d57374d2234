"""What every use of Redis here shares: scripts by their digest, one error for all trouble."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import redis.exceptions

from service.errors import HistoryUnavailable, SidrecError
from service.redis_client import RedisClient
from service.redis_command import Command, raised
from service.spans import redis_span

Call = tuple[Sequence[str], Sequence[str]]
"""Keys, which share a slot of a Redis Cluster, and arguments."""

TROUBLE = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)
"""Whatever keeps Redis from doing its part."""


async def send(
    client: RedisClient, commands: Sequence[Command], *, kept: bool = False
) -> list[Any]:
    """Run all commands in one round trip to each node that has keys of them; the answers in the
    same order.

    `kept`: these are writes that will be acknowledged, for which the client may have to wait until
    replicas have them too. Raises the first exception among the answers.
    """
    return raised(await client.pipelined(commands, kept=kept))


class Script:
    """A Lua script of this package that the server is asked to run by its digest."""

    def __init__(self, name: str) -> None:
        self._text = files("service").joinpath(name).read_text(encoding="utf-8")
        self._digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(
        self, client: RedisClient, calls: Sequence[Call], *, kept: bool = False
    ) -> list[Any]:
        """Run all calls, as `send` does commands."""
        commands = [_command("EVALSHA", self._digest, call) for call in calls]
        answers = await client.pipelined(commands, kept=kept)
        unknown = [
            position
            for position, answer in enumerate(answers)
            if isinstance(answer, redis.exceptions.NoScriptError)
        ]
        if unknown:
            # EVAL also teaches the script, to just the nodes of a cluster that lack it.
            again = [_command("EVAL", self._text, calls[position]) for position in unknown]
            taught = await client.pipelined(again, kept=kept)
            for position, answer in zip(unknown, taught, strict=True):
                answers[position] = answer
        return raised(answers)


def _command(name: str, script: str, call: Call) -> Command:
    keys, arguments = call
    return Command(keys[0], (name, script, len(keys), *keys, *arguments))


@contextmanager
def unavailable(kind: type[SidrecError] = HistoryUnavailable) -> Iterator[None]:
    """Around each use of Redis: a span of the request that it is for, and an error of this kind for
    whatever keeps Redis from doing its part."""
    try:
        with redis_span():
            yield
    except TROUBLE as error:
        raise kind(f"Redis: {error or type(error).__name__}") from error


def text(answer: object) -> str:
    """A reply as text; a client may have been made with decode_responses."""
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def slot(name: str) -> str:
    """`name` as a hash tag: keys with it lie in one slot of a cluster, and nobody else has them."""
    # A cluster hashes what stands between the first "{" and the next "}", unless that is empty.
    return "{" + name.replace("%", "%25").replace("}", "%7D") + "}"
