"""All of experiments as one thing: who is in which arm, what is counted, what was found."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from structlog.typing import FilteringBoundLogger

from service.answer import Ask
from service.errors import (
    Conflict,
    ExperimentsUnavailable,
    InvalidInput,
    ModelConflict,
    NotFound,
)
from service.experiments.counters import EXACT_USERS, ArmCounters, ArmKey
from service.experiments.definition import MAX_FORCED, Design, Experiment
from service.experiments.findings import make_report
from service.experiments.recorder import Exposure, Recorder
from service.experiments.report import Report
from service.experiments.rules import check_beside, check_change, check_models
from service.experiments.running import Running
from service.experiments.store import DefinitionStore
from service.experiments.trail import Heard, Shown, Trails
from service.experiments.treatment import Models, Treated, recommend_under
from service.holder import InService, Version
from service.metrics.experiments import ExperimentMetrics
from service.redis_client import RedisClient
from service.repeated import repeated

MOST = 100
"""Experiments that are kept: each is looked at in every request, and has labels in the metrics."""

_POLL_S = 1.0
_DELIVER_S = 0.5
_ATTEMPTS = 20

Changed = TypeVar("Changed", bound=Experiment | None)

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class Experiments:
    """For one event loop. `purchase_types` are the types of events that are purchases.

    What asks or changes Redis raises `ExperimentsUnavailable` when Redis does not do its part;
    `recommend`, `answered` and `heard` never wait for it.
    """

    def __init__(
        self,
        client: RedisClient,
        metrics: ExperimentMetrics,
        *,
        purchase_types: Iterable[str],
        exact_users: int = EXACT_USERS,
    ) -> None:
        self._metrics = metrics
        metrics.waiting(lambda: self._recorder.waiting)
        self._exact_users = exact_users
        self._store = DefinitionStore(client)
        self._running = Running(self._store, self._gone)
        self._told: set[tuple[str, str]] = set()
        self._counters = ArmCounters(client, exact_users=exact_users)
        self._trails = Trails(client)
        self._recorder = Recorder(
            self._counters,
            self._trails,
            self._running,
            purchase_types=purchase_types,
            lost=metrics.lost,
        )

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Until left, follows the definitions and delivers what is counted."""
        await self._look()
        async with self._recorder.delivering(_DELIVER_S), repeated(self._look, _POLL_S):
            yield

    def versions(self) -> list[Version]:
        """The versions that arms name, each once, as last read. Of experiments that have ended,
        none; of those that are still to start too, for testers see them."""
        return list(self._running.versions())

    async def check_unused(self, version: Version) -> None:
        """Raises `ModelConflict` where an experiment needs this version. While Redis is away the
        experiments that were known last count."""
        with suppress(ExperimentsUnavailable):
            await self._running.refresh()
        if names := self._running.versions().get(version):
            which = "an arm of the experiment" if len(names) == 1 else "in arms of the experiments"
            raise ModelConflict(
                f"{version} is {which} {', '.join(names)}: stop or delete what needs it first"
            )

    # What requests need.

    async def recommend(self, ask: Ask, active: InService, models: Models) -> Treated:
        """The answer to a request, under the arms that its user and scene belong to."""
        members = self._running.of(ask.user_id, ask.scene)
        return await recommend_under(members, ask, active, models, self._skipped)

    def answered(self, treated: Treated, user_id: str | None, request_id: str) -> None:
        """Takes note that an answer leaves; returns at once."""
        members = [member for member in treated.arms if not member.forced]
        if user_id is None or not members:
            return
        answer = treated.answer
        arms = tuple(ArmKey(m.experiment.key, m.arm.name) for m in members)
        shown = Shown(request_id, time.time(), arms)
        fallback = bool(answer.picks) and answer.source.startswith("popular")
        self._recorder.answered(
            Exposure(user_id, shown, answer.timing_ms["total"], fallback, not answer.picks)
        )
        for member in members:
            self._metrics.exposed(member.experiment.name, member.arm.name)

    def heard(self, events: Iterable[Heard]) -> None:
        """Takes note of what users did; returns at once. Repetitions change nothing."""
        self._recorder.heard(events)

    # What those who run experiments need.

    async def all(self) -> list[Experiment]:
        """By name."""
        found = await self._running.refresh()
        return [found.by_name[name] for name in sorted(found.by_name)]

    async def get(self, name: str) -> Experiment:
        """Raises `NotFound`."""
        return _known((await self._running.refresh()).by_name, name)

    async def put(self, name: str, design: Design, models: Sequence[InService]) -> Experiment:
        """Begins an experiment, or changes what may be changed of one. Raises `InvalidInput` for
        what the loaded models cannot do, and `Conflict` for what other experiments do, or what
        cannot change any more."""

        async def change(known: Mapping[str, Experiment]) -> Experiment:
            now, before = datetime.now(UTC), known.get(name)
            new = Experiment.of(name, design, now, before)
            if before is not None:
                check_change(before, new, now)
            elif len(known) >= MOST:
                raise Conflict("name", f"there are {MOST} experiments: delete one that has ended")
            if new.status_at(now) == "ended" and (
                before is None or before.status_at(now) != "ended"
            ):
                raise InvalidInput("end", "lies in the past")
            await check_models(new, models)
            check_beside(new, known.values())
            return new

        return await self._change(name, change)

    async def stop(self, name: str) -> Experiment:
        """Ends an experiment now, if it has not ended; what it found stays. Raises `NotFound`, and
        `Conflict` for one that has not started."""

        async def change(known: Mapping[str, Experiment]) -> Experiment:
            now, before = datetime.now(UTC), _known(known, name)
            if before.status_at(now) == "scheduled":
                raise Conflict("name", "has not started: delete it instead")
            ended = before.status_at(now) == "ended"
            return before if ended else before.model_copy(update={"end": now})

        return await self._change(name, change)

    async def force(self, name: str, user_id: str, arm: str | None) -> Experiment:
        """Lets a user see an arm in any case, uncounted; None ends that. Raises `NotFound`, and
        `InvalidInput` for an arm that there is not."""

        async def change(known: Mapping[str, Experiment]) -> Experiment:
            before = _known(known, name)
            forced = {user: to for user, to in before.forced.items() if user != user_id}
            if arm is not None:
                if before.arm(arm) is None:
                    names = ", ".join(one.name for one in before.arms)
                    raise InvalidInput("arm", f"must be one of: {names}")
                forced[user_id] = arm
            if len(forced) > MAX_FORCED:
                raise Conflict("user_id", f"{MAX_FORCED} users are forced already")
            return before.model_copy(update={"forced": forced})

        return await self._change(name, change)

    async def remove(self, name: str) -> None:
        """Removes an experiment and all that it counted, if it is there."""
        try:
            before = await self.get(name)
        except NotFound:
            return

        async def change(known: Mapping[str, Experiment]) -> None:
            return None

        await self._change(name, change)
        await self._counters.remove(before)

    async def report(self, name: str) -> Report:
        """What an experiment has found so far. Raises `NotFound`."""
        experiment = await self.get(name)
        await self._recorder.deliver()
        totals = await self._counters.read(experiment)
        now = datetime.now(UTC)
        return await asyncio.to_thread(make_report, experiment, totals, now, self._exact_users)

    async def forget(self, user_id: str) -> bool:
        """Removes every trace of a user; whether there was any. What another process has not
        delivered yet may still come: that takes it half a second."""
        await self._recorder.forget(user_id)
        found = await self._trails.forget(user_id)
        for experiment in await self.all():
            found |= await self._counters.forget(experiment, user_id)
            if user_id in experiment.forced:
                await self.force(experiment.name, user_id, None)
                found = True
        return found

    async def _change(
        self,
        name: str,
        change: Callable[[Mapping[str, Experiment]], Awaitable[Changed]],
    ) -> Changed:
        """Writes what `change` makes of all experiments; again where others were faster."""
        for _ in range(_ATTEMPTS):
            known = await self._running.refresh()
            new = await change(known.by_name)
            if await self._store.write(known, name, new):
                await self._running.refresh()
                return new
        raise ExperimentsUnavailable("other processes write all the time")

    def _skipped(self, name: str, reason: str) -> None:
        """Counts every answer, and logs the first of a process."""
        self._metrics.skipped(name, reason)
        if (name, reason) not in self._told:
            self._told.add((name, reason))
            _log.warning("arm_not_given", experiment=name, reason=reason)

    def _gone(self, name: str) -> None:
        self._metrics.gone(name)
        self._told = {told for told in self._told if told[0] != name}

    async def _look(self) -> None:
        try:
            await self._running.refresh()
        except ExperimentsUnavailable as error:
            _log.warning("experiments unread", error=str(error))


def _known(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    if name not in experiments:
        raise NotFound(f"there is no experiment {name!r}")
    return experiments[name]
