"""Definitions of experiments in Redis: numbered, one writer at a time, the same for every replica.

All of them are read together, because there are few, and because whether a new one may run depends
on the others. Both keys share a slot of a Redis Cluster.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError
from structlog.typing import FilteringBoundLogger

from service.errors import ExperimentsUnavailable
from service.experiments.definition import Experiment
from service.redis_calls import Script, slot, text, unavailable
from service.redis_client import RedisClient

_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Definitions:
    """All experiments by name, as of a version."""

    version: str = "0"
    by_name: Mapping[str, Experiment] = field(default_factory=dict)


class DefinitionStore:
    """Every method raises `ExperimentsUnavailable` when Redis does not do its part; a write may
    have been done then, or not."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        prefix = f"sidrec:experiments:{slot('definitions')}"
        self._keys = (f"{prefix}:all", f"{prefix}:version")
        self._read = Script("experiments/definitions_read.lua")
        self._write = Script("experiments/definitions_write.lua")

    async def read(self, known: Definitions) -> Definitions:
        """What there is now; `known` itself where nothing has changed since."""
        with unavailable(ExperimentsUnavailable):
            [answer] = await self._read.run(self._client, [(self._keys, [known.version])])
        if not isinstance(answer, list) or not answer:
            raise ExperimentsUnavailable(f"Redis answered {answer!r} instead of experiments")
        version, *documents = map(text, answer)
        if version == known.version:
            return known
        experiments = [e for document in documents if (e := _experiment(document)) is not None]
        return Definitions(version, {e.name: e for e in experiments})

    async def write(self, known: Definitions, name: str, new: Experiment | None) -> bool:
        """Puts an experiment in the place of the one of this name; None removes it. False where
        somebody else wrote behind `known`: read that first."""
        document = "" if new is None else new.model_dump_json()
        with unavailable(ExperimentsUnavailable):
            call = (self._keys, [known.version, name, document])
            [after] = await self._write.run(self._client, [call], kept=True)
        if not isinstance(after, int):
            raise ExperimentsUnavailable(f"Redis answered {after!r} instead of a number")
        return after >= 0


def _experiment(document: str) -> Experiment | None:
    """None for one that this version of the service does not understand: a later one may have
    written it, and the others shall run all the same."""
    try:
        return Experiment.model_validate_json(document)
    except ValidationError as error:
        _log.error("experiment not understood", error=str(error.errors()[0]["msg"]))
        return None
