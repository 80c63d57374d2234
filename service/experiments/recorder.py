"""Carries what is to be counted to Redis, in the background: never while a request waits.

Answers go first, then the events of the turn before, so that a click finds the answer that it
belongs to even where another process gave that one. A turn that failed is repeated as a whole:
nothing in it counts twice. What does not fit, or could not be delivered for long, is lost, and
counted as lost.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
from structlog.typing import FilteringBoundLogger

from service.errors import ExperimentsUnavailable
from service.experiments.counters import REPEATABLE_S, ArmCounters, ArmKey, Outcome, Tally
from service.experiments.running import Running
from service.experiments.trail import Heard, Shown, Trails, credited
from service.repeated import repeated

LIMIT = 50_000
"""Answers and events that wait at most."""

_AT_ONCE = 200
"""That go in one turn: what encoding them takes is what a request may have to wait."""

_GIVEN_UP_S = REPEATABLE_S / 2

Lost = Callable[[str, int], None]

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Exposure:
    """An answer that left, with the arms that it belonged to; `ms` that it took."""

    user_id: str
    shown: Shown
    ms: float
    fallback: bool
    empty: bool


@dataclass(slots=True)
class _Turn:
    """What is delivered together, for the first time at `since` (monotonic)."""

    answers: list[Exposure] = field(default_factory=list)
    events: list[Heard] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    token: str = field(default_factory=lambda: secrets.token_hex(8))


class Recorder:
    """For one event loop. `purchase_types` are the types of events that are purchases, `lost` is
    told of what will never be counted."""

    def __init__(
        self,
        counters: ArmCounters,
        trails: Trails,
        running: Running,
        *,
        purchase_types: Iterable[str],
        lost: Lost,
    ) -> None:
        self._counters = counters
        self._trails = trails
        self._running = running
        self._purchase_types = frozenset(purchase_types)
        self._lost = lost
        self._answers: list[Exposure] = []
        self._fresh: list[Heard] = []
        self._due: list[Heard] = []
        self._failed: _Turn | None = None
        self._one = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Answers and events that are not in Redis yet."""
        failed = self._failed
        under_way = 0 if failed is None else len(failed.answers) + len(failed.events)
        return len(self._answers) + len(self._fresh) + len(self._due) + under_way

    def answered(self, exposure: Exposure) -> None:
        """Takes note of an answer; returns at once."""
        if self.waiting >= LIMIT:
            self._lost("answers", 1)
        else:
            self._answers.append(exposure)

    def heard(self, events: Iterable[Heard]) -> None:
        """Takes note of what users did, as far as it can count for an experiment."""
        counting = [e for e in events if self._running.counts(e.type, self._purchase_types)]
        room = max(0, LIMIT - self.waiting)
        self._fresh += counting[:room]
        if len(counting) > room:
            self._lost("events", len(counting) - room)

    async def deliver(self) -> None:
        """Delivers all answers that wait, and the events that waited when this was last called.
        Raises `ExperimentsUnavailable`, and then the next call goes on where this one failed."""
        async with self._one:
            while turn := self._failed or self._next():
                self._failed = turn
                try:
                    await self._send(turn)
                except ExperimentsUnavailable:
                    if time.monotonic() - turn.since > _GIVEN_UP_S:
                        self._failed = None
                        self._lost("answers", len(turn.answers))
                        self._lost("events", len(turn.events))
                    raise
                self._failed = None
            self._due, self._fresh = self._fresh, []

    async def forget(self, user_id: str) -> None:
        """Drops what waits of a user; what is on its way arrives before this returns."""
        async with self._one:
            self._answers = [a for a in self._answers if a.user_id != user_id]
            self._fresh = [e for e in self._fresh if e.user_id != user_id]
            self._due = [e for e in self._due if e.user_id != user_id]
            if (failed := self._failed) is not None:
                failed.answers = [a for a in failed.answers if a.user_id != user_id]
                failed.events = [e for e in failed.events if e.user_id != user_id]

    @asynccontextmanager
    async def delivering(self, every_s: float) -> AsyncIterator[None]:
        """Delivers until left, and then what is left, as far as Redis takes it."""
        try:
            async with repeated(self._try, every_s):
                yield
        finally:
            for _ in range(2):  # the second time the events that came last
                await self._try()
            if self.waiting:
                _log.warning("experiments not delivered", waiting=self.waiting)

    async def _try(self) -> None:
        try:
            await self.deliver()
        except ExperimentsUnavailable as error:
            _log.warning("experiments wait", waiting=self.waiting, error=str(error))
        except Exception:
            _log.exception("experiments failed")
            self._failed = None

    def _next(self) -> _Turn | None:
        """Takes the next ones; events only behind all answers."""
        answers, self._answers = self._answers[:_AT_ONCE], self._answers[_AT_ONCE:]
        if answers:
            return _Turn(answers=answers)
        events, self._due = self._due[:_AT_ONCE], self._due[_AT_ONCE:]
        return _Turn(events=events) if events else None

    async def _send(self, turn: _Turn) -> None:
        if turn.answers:
            await self._counters.add(_tallies(turn.answers), turn.token)
            await self._trails.add(
                _by_user(turn.answers), time.time(), self._running.longest_window_s
            )
        if turn.events:
            users = {event.user_id for event in turn.events}
            tallies = self._credit(turn.events, await self._trails.read(users))
            await self._counters.add(tallies, turn.token)

    def _credit(
        self, events: Iterable[Heard], trails: dict[str, list[Shown]]
    ) -> dict[ArmKey, Tally]:
        known = self._running.by_key
        windows = {key: float(experiment.window_s) for key, experiment in known.items()}
        tallies: dict[ArmKey, Tally] = {}
        for event in events:
            for arm in credited(event, trails[event.user_id], windows):
                for outcome in self._outcomes(event.type, arm):
                    tallies.setdefault(arm, Tally()).user(outcome, event.user_id)
        return tallies

    def _outcomes(self, event_type: str, arm: ArmKey) -> Sequence[Outcome]:
        found: list[Outcome] = []
        if event_type in self._running.by_key[arm.experiment].click_types:
            found.append("clicked")
        if event_type in self._purchase_types:
            found.append("purchased")
        return found


def _tallies(answers: Iterable[Exposure]) -> dict[ArmKey, Tally]:
    tallies: dict[ArmKey, Tally] = {}
    for one in answers:
        for arm in one.shown.arms:
            tally = tallies.setdefault(arm, Tally())
            tally.user("exposed", one.user_id)
            tally.answer(one.ms, fallback=one.fallback, empty=one.empty)
    return tallies


def _by_user(answers: Iterable[Exposure]) -> dict[str, list[Shown]]:
    found: dict[str, list[Shown]] = {}
    for one in answers:
        found.setdefault(one.user_id, []).append(one.shown)
    return found
