"""What each user was shown lately, and in which arms, so that what they do then finds its arm.

One sorted set a user, which expires with the longest window of the experiments. Only answers that
belong to an experiment are in it, the last `KEPT` of a user.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import ExperimentsUnavailable
from service.experiments.counters import ArmKey
from service.redis_calls import Script, send, slot, text, unavailable
from service.redis_client import RedisClient
from service.redis_command import Command

KEPT = 100

CLOCKS_S = 5.0
"""How far the clock of whoever sends events may be behind ours, which stamps the answers."""


class Shown(NamedTuple):
    """An answer of `at` (seconds since 1970), and the arms that it belonged to."""

    request_id: str
    at: float
    arms: tuple[ArmKey, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that a user did; `request_id` of the answer that it was done in, if it is known."""

    user_id: str
    type: str
    at: float
    request_id: str | None = None


def credited(heard: Heard, trail: Iterable[Shown], windows: Mapping[str, float]) -> set[ArmKey]:
    """The arms that an event counts for: those of the answer that it names, or of every answer
    within the experiment's window (seconds, by its key) before it."""
    found = set()
    for shown in trail:
        if heard.request_id not in (None, shown.request_id):
            continue
        # Whoever names the answer has seen it, whatever the clocks say.
        earliest = shown.at - CLOCKS_S if heard.request_id is None else float("-inf")
        found |= {
            key
            for key in shown.arms
            if earliest <= heard.at <= shown.at + windows.get(key.experiment, float("-inf"))
        }
    return found


class Trails:
    """Every method raises `ExperimentsUnavailable` when Redis does not do its part; repeat it."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._add = Script("experiments/trail_add.lua")

    async def add(self, shown: Mapping[str, Sequence[Shown]], now: float, keep_s: float) -> None:
        """Adds to the trails of users, in one round trip; what is older than `keep_s` goes."""
        fixed = [repr(1000 * (now - keep_s)), str(KEPT), str(round(1000 * keep_s))]
        calls = [
            ([trail_key(user)], [*fixed, *(part for one in answers[-KEPT:] for part in _row(one))])
            for user, answers in shown.items()
        ]
        with unavailable(ExperimentsUnavailable):
            await self._add.run(self._client, calls)

    async def read(self, users: Collection[str]) -> dict[str, list[Shown]]:
        """The trails of users, oldest first, in one round trip."""
        keys = [trail_key(user) for user in users]
        commands = [
            Command(key, ("ZRANGE", key, 0, -1, "WITHSCORES"), {"withscores": True}) for key in keys
        ]
        with unavailable(ExperimentsUnavailable):
            answers = await send(self._client, commands)
        return {
            user: [_shown(member, score) for member, score in answer]
            for user, answer in zip(users, answers, strict=True)
        }

    async def forget(self, user_id: str) -> bool:
        """Removes a trail; whether there was one."""
        key = trail_key(user_id)
        with unavailable(ExperimentsUnavailable):
            return bool(*await send(self._client, [Command(key, ("UNLINK", key))], kept=True))


def trail_key(user_id: str) -> str:
    return f"sidrec:shown:{slot(user_id)}"


def _row(shown: Shown) -> tuple[str, str]:
    member = json.dumps([shown.request_id, shown.arms], separators=(",", ":"))
    return repr(1000 * shown.at), member


def _shown(member: object, ms: float) -> Shown:
    try:
        request_id, arms = json.loads(text(member))
        return Shown(request_id, float(ms) / 1000, tuple(ArmKey(*arm) for arm in arms))
    except (TypeError, ValueError) as error:
        raise ExperimentsUnavailable("a trail does not hold what sidrec wrote") from error
