"""Changes to the catalogue while several versions are loaded: acknowledged means in force in each.

The active version gives new items their SIDs; the others read the changes and give SIDs of their
own. Whoever may answer next has them by then.
"""

import asyncio
from collections.abc import Sequence

import structlog
from structlog.typing import FilteringBoundLogger

from service.catalogue.live import Done
from service.catalogue.plan import Change
from service.errors import CatalogueUnavailable, SidrecError
from service.holder import Holder, InService

_PATIENCE_S = 2.0

_log: FilteringBoundLogger = structlog.get_logger(__name__)


async def change(holder: Holder, changes: Sequence[Change]) -> Done:
    """Makes changes by way of the active version, and waits for the others that are loaded.

    Raises `CatalogueUnavailable` and `Overloaded`. A version that is not active and has trouble of
    its own keeps nobody from changing anything: it is left behind, and cannot become active so.
    """
    with holder.take() as model:
        done = await model.catalogue.change(changes)
        there = {model.version}
    while behind := [other for other in holder.loaded if other.version not in there]:
        found = await asyncio.gather(*(_reached(other, done.version) for other in behind))
        for other, error in zip(behind, found, strict=True):
            if error is None:
                continue
            if other is holder.current:
                raise CatalogueUnavailable(f"{other.version} does not follow: {error}") from error
            _log.warning("catalogue behind", version=str(other.version), error=str(error))
        there.update(other.version for other in behind)
    return done


async def _reached(model: InService, version: int) -> Exception | None:
    """What kept its catalogue from reaching a version of the changes; None: nothing."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await model.catalogue.reach(version)
    except (SidrecError, TimeoutError) as error:
        return error
    return None
