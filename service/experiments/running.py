"""The experiments as this process knows them, and the arms of a request.

They are read from Redis every so often, in the background; while Redis is away the last known ones
go on, so that users stay where they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from structlog.typing import FilteringBoundLogger

from service.experiments.assignment import Assignment
from service.experiments.definition import Arm, Experiment
from service.experiments.store import Definitions, DefinitionStore
from service.holder import Version

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in an experiment; one who was forced into it is not counted."""

    experiment: Experiment
    arm: Arm
    forced: bool = False


class Running:
    """Knows what `refresh` read last. For one event loop."""

    def __init__(self, store: DefinitionStore, gone: Callable[[str], None]) -> None:
        """`gone` is told the names of experiments that are no more."""
        self._store = store
        self._gone = gone
        self._assignments: list[tuple[Experiment, Assignment]] = []
        self.definitions = Definitions()
        self.by_key: dict[str, Experiment] = {}

    async def refresh(self) -> Definitions:
        """Reads what has changed. Raises `ExperimentsUnavailable`."""
        found = await self._store.read(self.definitions)
        if found is not self.definitions:
            if int(found.version) < int(self.definitions.version):
                _log.error("experiments were lost", known=len(self.by_key), now=len(found.by_name))
            for name in self.definitions.by_name.keys() - found.by_name:
                self._gone(name)
            experiments = sorted(found.by_name.values(), key=lambda e: e.name)
            self._assignments = [(e, Assignment(e.salt, e.shares())) for e in experiments]
            self.by_key = {e.key: e for e in experiments}
            self.definitions = found
        return found

    @property
    def longest_window_s(self) -> int:
        return max((e.window_s for e in self.by_key.values()), default=1)

    def counts(self, event_type: str, purchase_types: frozenset[str]) -> bool:
        """Whether an event of this type can say anything about an experiment."""
        return any(
            event_type in purchase_types or event_type in e.click_types
            for e in self.by_key.values()
        )

    def versions(self) -> dict[Version, list[str]]:
        """The versions that arms name, with the experiments that they belong to; without those that
        have ended."""
        found: dict[Version, list[str]] = {}
        now = datetime.now(UTC)
        for experiment, _ in self._assignments:
            if experiment.status_at(now) == "ended":
                continue
            named = (arm.bundle for arm in experiment.arms if arm.bundle is not None)
            for version in {Version(bundle.name, bundle.version) for bundle in named}:
                found.setdefault(version, []).append(experiment.name)
        return found

    def of(self, user_id: str | None, scene: str | None) -> list[Membership]:
        """The arms that a request belongs to now, by the names of the experiments."""
        if user_id is None or not self._assignments:
            return []
        return list(self._members(user_id, scene, datetime.now(UTC)))

    def _members(self, user_id: str, scene: str | None, now: datetime) -> Iterator[Membership]:
        for experiment, assignment in self._assignments:
            status = experiment.status_at(now)
            if status == "ended" or experiment.scene not in (None, scene):
                continue
            # Testers may look at an arm before its experiment starts.
            name = experiment.forced.get(user_id)
            forced = name is not None
            if not forced and status == "running":
                name = assignment.arm(user_id)
            arm = None if name is None else experiment.arm(name)
            if arm is not None:
                yield Membership(experiment, arm, forced)
