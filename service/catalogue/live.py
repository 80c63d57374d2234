"""The catalogue of this process: takes changes, writes them to Redis, applies them.

One task does all of it, so that no two things happen at once:

1. It waits for changes of its own callers, for a short while; callers who come while it works are
   served together.
2. Theirs are planned against the version that it has, and written only if Redis still has that
   one; else it reads what others wrote, and plans again. So SIDs are given away by one at a time,
   whichever process that is.
3. What was written, or read, becomes the next snapshot, on a thread.
4. Only then are the callers told. Requests that have begun keep the snapshot that they took.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Self

import structlog
from structlog.typing import FilteringBoundLogger

from model_store.bundle import Bundle
from service.catalogue.assign import Assigner
from service.catalogue.changes import PAGE, Changes, Record, VersionLost, with_sid
from service.catalogue.plan import Change, Outcome, Plan, Planner
from service.catalogue.snapshot import Snapshot
from service.eligibility.policy import Policy
from service.engine import Engine
from service.errors import CatalogueUnavailable, InvalidInput, Overloaded, SidrecError
from service.repeated import set_within

_MOST_WAITING = 20_000
"""Changes that may wait in this process; more are refused."""

_REST_S = 0.1
"""Time between two snapshots at least: searches of different tries do not share a batch."""

_FAILED_REST_S = 2.0
"""After an error of our own: what failed may fail again, with a trace in the log each time."""

_ATTEMPTS = 20

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """Changes that were written and are in force here; outcomes in the order of the changes."""

    version: int
    outcomes: list[Outcome | InvalidInput]


@dataclass(frozen=True, slots=True)
class CatalogueStats:
    """For the metrics: age_s since all changes were known here, None if they never were; seconds
    that each snapshot took since the last call."""

    version: int
    items: int
    unlisted: int
    age_s: float | None
    applied_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Caller:
    changes: Sequence[Change]
    future: asyncio.Future[Done] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class LiveCatalogue:
    """For one bundle and its engine, on one event loop. Make one with `LiveCatalogue.open`."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        policy: Policy,
        changes: Changes,
        planner: Planner,
        first: Snapshot,
    ) -> None:
        self.current = first
        self._bundle = bundle
        self._engine = engine
        self._policy = policy
        self._changes = changes
        self._planner = planner
        self._records: dict[str, Record] = {}
        self._callers: deque[_Caller] = deque()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._known_at: float | None = None
        self._damaged = False
        self._away = False
        self._applied_s: deque[float] = deque(maxlen=1000)

    @classmethod
    async def open(
        cls, bundle: Bundle, engine: Engine, policy: Policy, changes: Changes, *, poll_s: float
    ) -> Self:
        """Reads all changes there are, and from then on follows them, asking every `poll_s`. Where
        Redis is away it begins with the bundle's own catalogue, and is not `complete`. Raises
        `InvalidInput` for rules of the policy that are about what the catalogue lacks."""
        assigner = await asyncio.to_thread(Assigner.load, bundle)
        first = await asyncio.to_thread(Snapshot.first, bundle, engine, policy)
        self = cls(bundle, engine, policy, changes, Planner(bundle, assigner), first)
        with suppress(CatalogueUnavailable):
            await self._catch_up()
        self._task = asyncio.create_task(self._follow(poll_s))
        return self

    @property
    def complete(self) -> bool:
        """Whether the changes have been read since this process started."""
        return self._known_at is not None

    async def change(self, changes: Sequence[Change]) -> Done:
        """Returns when the changes are in Redis and in `current`, each with its outcome; those
        that cannot be done have `InvalidInput` for theirs, and hinder no other.

        Raises `CatalogueUnavailable` when Redis does not do its part (the changes may have been
        made then, or not; they can be repeated), `Overloaded` when too many wait.
        """
        refused = await asyncio.to_thread(self._planner.refused, changes)
        possible = [change for i, change in enumerate(changes) if i not in refused]
        waiting = sum(len(caller.changes) for caller in self._callers)
        if waiting + len(possible) > _MOST_WAITING:
            raise Overloaded(f"{waiting} changes to the catalogue wait")
        if self._closing.is_set():
            raise CatalogueUnavailable("the service stops")
        caller = _Caller(possible)
        self._callers.append(caller)
        self._wake.set()
        done = await caller.future
        left = iter(done.outcomes)
        return Done(done.version, [refused.get(i) or next(left) for i in range(len(changes))])

    async def reach(self, version: int) -> None:
        """Returns when the changes up to `version` are in `current`, at once where they are.

        Raises `CatalogueUnavailable` when Redis does not do its part.
        """
        if self.current.version < version:
            await self.change(())

    def stats(self) -> CatalogueStats:
        now = self.current
        return CatalogueStats(
            now.version,
            now.catalogue.listed,
            len(now.catalogue.unlisted),
            None if self._known_at is None else monotonic() - self._known_at,
            [self._applied_s.popleft() for _ in range(len(self._applied_s))],
        )

    async def close(self) -> None:
        """Ends when what is being done is done; callers who wait are told that nothing was
        acknowledged."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await self._task
        self._settle(list(self._callers), CatalogueUnavailable("the service stops"))

    async def _follow(self, poll_s: float) -> None:
        while not self._closing.is_set():
            await set_within(self._wake, poll_s)
            self._wake.clear()
            before, began = self.current, monotonic()
            callers = [c for c in self._callers if not c.future.cancelled()]
            self._callers.clear()
            try:
                await self._turn(callers)
            except SidrecError as error:
                self._settle(callers, error)
                if not self._away:
                    _log.warning("catalogue changes unavailable", error=str(error))
                self._away = True
            except Exception as error:
                _log.exception("catalogue changes failed")
                self._settle(callers, error)
                self._damaged = True
                await set_within(self._closing, _FAILED_REST_S)
            if self.current is not before:
                await set_within(self._closing, max(_REST_S, 2 * (monotonic() - began)))

    async def _turn(self, callers: Sequence[_Caller]) -> None:
        if self._damaged:
            await self._start_over()
        if not callers:
            await self._catch_up()
            return
        changes = [change for caller in callers for change in caller.changes]
        if not self.complete:
            await self._catch_up()
        plan = await self._write(changes)
        outcomes = iter(plan.outcomes)
        for caller in callers:
            done = Done(self.current.version, [next(outcomes) for _ in caller.changes])
            if not caller.future.done():
                caller.future.set_result(done)

    async def _write(self, changes: Sequence[Change]) -> Plan:
        """Plans, writes and applies; again from the start where others were faster."""
        for _ in range(_ATTEMPTS):
            now = self.current
            plan = await asyncio.to_thread(self._planner.plan, changes, self._records, now)
            version = await self._changes.write(now.version, plan.records)
            if version is not None:
                self._known()
                if plan.records:
                    await self._apply(plan.records, version)
                return plan
            await self._catch_up()
        raise CatalogueUnavailable("other processes write all the time")

    async def _catch_up(self) -> None:
        """Reads and applies what has been written behind the version that is here."""
        try:
            records, version = await self._read(self.current)
        except VersionLost as error:
            _log.error("changes to the catalogue were lost", error=str(error))
            await self._start_over()
            return
        if records:
            await self._apply(records, version)
        self._known()

    async def _start_over(self) -> None:
        """From the bundle and all that Redis holds now."""
        first = await asyncio.to_thread(Snapshot.first, self._bundle, self._engine, self._policy)
        records, version = await self._read(first)
        self._records = {}
        await self._apply(records, version, first)
        self._known()

    async def _read(self, before: Snapshot) -> tuple[list[Record], int]:
        """What was decided behind a snapshot, one record an item, and the version of that."""
        found: dict[str, Record] = {}
        version = before.version
        while True:
            page, version = await self._changes.read(version)
            found |= {record.item_id: record for record in page}
            if len(page) < PAGE:
                break
        records = await asyncio.to_thread(self._planner.usable, list(found.values()))
        sids = await asyncio.to_thread(self._planner.complete, records, before)
        if sids:
            sids = await self._changes.claim(sids)
            records = [with_sid(r, sids[r.item_id]) if r.item_id in sids else r for r in records]
        return records, version

    async def _apply(
        self, records: Sequence[Record], version: int, before: Snapshot | None = None
    ) -> None:
        """Makes the snapshot behind `before`, by default the present one."""
        began = monotonic()
        self._damaged = True  # until it is done: a ledger that was half written is of no use
        self.current = await asyncio.to_thread(
            self._after, records, version, before or self.current
        )
        self._records.update((record.item_id, record) for record in records)
        self._damaged = False
        self._applied_s.append(monotonic() - began)

    def _after(self, records: Sequence[Record], version: int, before: Snapshot) -> Snapshot:
        edition = self._planner.edition(records, before.catalogue)
        if len(edition.ledger) > 2 * edition.ledger.items + 100_000:
            edition = edition.compacted()
        return before.after(version, edition, self._engine, self._policy)

    def _known(self) -> None:
        self._known_at = monotonic()
        if self._away:
            _log.info("catalogue changes available again")
        self._away = False

    @staticmethod
    def _settle(callers: Sequence[_Caller], error: Exception) -> None:
        for caller in callers:
            if not caller.future.done():
                caller.future.set_exception(error)
