"""Users and answers of each arm, in Redis.

Users are kept one by one, as digests, up to a bound for each arm and outcome, and are counted
exactly; beyond it by a HyperLogLog, whose standard error is 0.81%, and the digests are removed.
Everything that is added once may be added again: users are sets, and counts of answers come with
the token of a delivery. All keys of an experiment share a slot of a Redis Cluster.
"""

import hashlib
import math
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from service.errors import ExperimentsUnavailable
from service.experiments.definition import Experiment
from service.redis_calls import Script, send, slot, text, unavailable
from service.redis_client import RedisClient
from service.redis_command import Command

Outcome = Literal["exposed", "clicked", "purchased"]
OUTCOMES: tuple[Outcome, ...] = ("exposed", "clicked", "purchased")

EXACT_USERS = 1_000_000
"""Users of an arm that are counted one by one: about 48 bytes each in Redis."""
SKETCH_ERROR = 0.0081
"""Standard error of Redis's HyperLogLog."""

_TTL_MS = 400 * 86_400_000
REPEATABLE_S = 600
"""How long a delivery is known."""

_GROWTH = 1.1  # from one bucket of milliseconds to the next


class ArmKey(NamedTuple):
    """An arm, by its experiment's key and its name."""

    experiment: str
    arm: str


@dataclass(slots=True)
class Tally:
    """What is to be added to an arm."""

    users: dict[Outcome, set[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def user(self, outcome: Outcome, user_id: str) -> None:
        self.users.setdefault(outcome, set()).add(digest(user_id))

    def answer(self, ms: float, *, fallback: bool, empty: bool) -> None:
        self.counts["answers"] += 1
        self.counts["fallbacks"] += fallback
        self.counts["empty"] += empty
        self.counts[f"ms:{max(0, math.ceil(math.log(max(ms, 1), _GROWTH)))}"] += 1


@dataclass(frozen=True, slots=True)
class Users:
    """How many; exact ones are counted, others estimated."""

    count: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Totals:
    """What an arm has come to."""

    users: Mapping[Outcome, Users]
    counts: Mapping[str, int]

    def quantile_ms(self, q: float) -> float | None:
        """A time in which the share `q` of the answers was done, up to a tenth too long; None
        where there are none."""
        buckets = sorted((int(k[3:]), n) for k, n in self.counts.items() if k.startswith("ms:"))
        left = q * sum(n for _, n in buckets)
        for bucket, n in buckets:
            left -= n
            if left <= 1e-9:
                return _GROWTH**bucket
        return None


class ArmCounters:
    """Every method raises `ExperimentsUnavailable` when Redis does not do its part; repeat it."""

    def __init__(self, client: RedisClient, *, exact_users: int = EXACT_USERS) -> None:
        self._client = client
        self._bound = exact_users
        self._write = Script("experiments/counters_write.lua")
        self._read = Script("experiments/counters_read.lua")

    async def add(self, tallies: Mapping[ArmKey, Tally], token: str) -> None:
        """Adds in one round trip; the same token again adds nothing twice."""
        calls = [(_written(key, token), self._arguments(tally)) for key, tally in tallies.items()]
        with unavailable(ExperimentsUnavailable):
            await self._write.run(self._client, calls)

    async def read(self, experiment: Experiment) -> dict[str, Totals]:
        """By the names of the arms."""
        keys = [ArmKey(experiment.key, arm.name) for arm in experiment.arms]
        calls = [([_counts(key), *_users(key)], OUTCOMES) for key in keys]
        with unavailable(ExperimentsUnavailable):
            answers = await self._read.run(self._client, calls)
        return {key.arm: _totals(answer) for key, answer in zip(keys, answers, strict=True)}

    async def forget(self, experiment: Experiment, user_id: str) -> bool:
        """Removes a user from the sets; whether there was anything. A HyperLogLog holds no users,
        and its estimate keeps counting one who was."""
        return await self._each(experiment, "SREM", digest(user_id)) > 0

    async def remove(self, experiment: Experiment) -> None:
        """Removes all that was counted."""
        await self._each(experiment, "UNLINK")

    async def _each(self, experiment: Experiment, command: str, *arguments: str) -> int:
        keys = [ArmKey(experiment.key, arm.name) for arm in experiment.arms]
        names = [name for key in keys for name in _users(key)[::2]]
        if command == "UNLINK":
            names = [name for key in keys for name in (_counts(key), *_users(key))]
        commands = [Command(name, (command, name, *arguments)) for name in names]
        with unavailable(ExperimentsUnavailable):
            return sum(await send(self._client, commands, kept=True))

    def _arguments(self, tally: Tally) -> list[str]:
        arguments = [str(self._bound), str(_TTL_MS), str(REPEATABLE_S * 1000)]
        for outcome in OUTCOMES:
            users = tally.users.get(outcome, ())
            arguments += [outcome, str(len(users)), *users]
        for name, count in tally.counts.items():
            arguments += [name, str(count)]
        return arguments


def digest(user_id: str) -> str:
    """Eleven characters for a user; among a billion users two have the same with 3% chance."""
    hashed = hashlib.blake2b(user_id.encode(), digest_size=8, person=b"sidrec-counted")
    return b64encode(hashed.digest()).rstrip(b"=").decode()


def _prefix(key: ArmKey) -> str:
    return f"sidrec:experiment:{slot(key.experiment)}:{key.arm}"


def _counts(key: ArmKey) -> str:
    return f"{_prefix(key)}:counts"


def _users(key: ArmKey) -> list[str]:
    prefix = _prefix(key)
    return [f"{prefix}:{outcome}{kind}" for outcome in OUTCOMES for kind in ("", ":sketch")]


def _written(key: ArmKey, token: str) -> list[str]:
    return [_counts(key), f"{_prefix(key)}:delivery:{token}", *_users(key)]


def _totals(answer: object) -> Totals:
    if not isinstance(answer, list) or len(answer) % 2:
        raise ExperimentsUnavailable(f"Redis answered {answer!r} instead of counts")
    flags = zip(OUTCOMES, _pairs(answer[: 2 * len(OUTCOMES)]), strict=True)
    users = {
        outcome: Users(int(text(n)), exact=text(exact) == "1") for outcome, (exact, n) in flags
    }
    counts = {text(name): int(text(n)) for name, n in _pairs(answer[2 * len(OUTCOMES) :])}
    return Totals(users, counts)


def _pairs(values: Sequence[object]) -> list[tuple[object, object]]:
    return list(zip(values[::2], values[1::2], strict=True))
