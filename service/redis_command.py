"""What is asked of Redis, and what it is worth once it is answered."""

from dataclasses import dataclass, field
from typing import Any

import redis.exceptions


@dataclass(frozen=True, slots=True)
class Command:
    """`words` as they are sent. All keys in them are in the slot of `key`; `options` are those of
    the client's parser for this command."""

    key: str
    words: tuple[str | bytes | int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Copies:
    """How many replicas must have a write that is acknowledged, and how long that may take."""

    replicas: int = 0
    timeout_ms: int = 0

    @property
    def command(self) -> tuple[str, int, int]:
        """Waits for all writes that its connection has sent before."""
        return "WAIT", self.replicas, self.timeout_ms

    def refusal(self, answer: object) -> Exception | None:
        """Why a write is not to be acknowledged, by what `command` was answered."""
        if isinstance(answer, Exception):
            return answer
        if isinstance(answer, int) and answer >= self.replicas:
            return None
        return TooFewCopies(f"{answer} of {self.replicas} replicas have it")


ONE = Copies()
"""That of whoever was written to."""


class TooFewCopies(redis.exceptions.RedisError):
    """A write was done, but fewer replicas have it than one has to wait for."""


def raised(answers: list[Any]) -> list[Any]:
    """The answers. Raises the first exception among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
