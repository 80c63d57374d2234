"""How versions come and go while others answer: load, activate, roll back, unload.

Whatever fails changes nothing: what was active still is, and nothing is left of the attempt.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import structlog
from structlog.typing import FilteringBoundLogger

from model_store.errors import BundleError, ModelStoreError
from service.errors import (
    CatalogueUnavailable,
    EngineError,
    InvalidInput,
    ModelConflict,
    ModelUnusable,
    SidrecError,
)
from service.holder import Holder, InService, Version
from service.loading import Loader
from service.memory import give_back
from service.metrics.models import ModelMetrics
from service.origin import Origin
from service.settings import Settings
from service.warm_up import WarmedUp, warm_up

_TRIES = 100
_PAUSE_S = 0.02
_DRAIN_S = 30.0

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class Models:
    """Over one holder. For one event loop."""

    def __init__(
        self,
        holder: Holder,
        loader: Loader,
        origin: Origin,
        metrics: ModelMetrics,
        settings: Settings,
    ) -> None:
        self.loading: str | None = None
        self._settings = settings
        self._holder = holder
        self._loader = loader
        self._origin = origin
        self._metrics = metrics
        self._tell()

    async def load(self, name: str | None, number: int | None) -> tuple[InService, bool]:
        """Loads a version beside those there are, and warms it up; whether it is new. The champion
        where there is no number.

        Raises `NotFound` and `StoreUnavailable` for what the store does not have or say,
        `DoesNotFit` and `ModelUnusable` for what cannot be served here, and `ModelConflict` while
        another one is being loaded, where as many as may be are, and where the engine or the
        settings allow but one.
        """
        with self._only_one(f"{name or 'the bundle'} {number or 'champion'}"):
            version = await asyncio.to_thread(self._origin.resolve, name, number)
            if version in (there := [model.version for model in self._holder.loaded]):
                return self._holder.get(*version), False
            if self._holder.current.engine.alone:
                raise ModelConflict(self._holder.current.engine.alone)
            if len(there) >= (most := self._settings.max_models):
                raise ModelConflict(
                    f"{len(there)} of {most} versions are loaded"
                    f" ({', '.join(map(str, there))}): unload one first"
                )
            self.loading = str(version)
            model = await self._loaded(version)
            try:
                with suppress(CatalogueUnavailable):  # it cannot be active before it is read
                    await self._catch_up(model)
                self._holder.add(model)
            except BaseException:
                await model.close()
                raise
        self._tell()
        return model, True

    async def load_each(self, versions: Iterable[Version]) -> None:
        """Loads those that are not there, as far as that is possible; the log says what is not."""
        for version in versions:
            try:
                await self.load(*version)
            except SidrecError as error:
                _log.warning("not_loaded", version=str(version), error=str(error))

    async def warm_up(self, version: Version) -> WarmedUp:
        """Searches with a loaded version once more. Raises `ModelNotLoaded` and `EngineError`."""
        with self._holder.take(version) as model:
            return await warm_up(
                model.bundle, model.engine, model.catalogue.current, self._settings.beam_width
            )

    async def activate(self, version: Version) -> None:
        """Lets the next request have this version. Requests that have begun stay with theirs.

        Raises `ModelNotLoaded`, `ModelConflict` where its engine has stopped, and
        `CatalogueUnavailable` where changes that are in force now cannot be read.
        """
        await self._activate(version)

    async def roll_back(self) -> None:
        """Activates what was active before. Raises as `activate`, and `ModelConflict` where there
        is nothing to go back to."""
        before = self._holder.previous
        if before is None:
            raise ModelConflict("nothing that is loaded was active before")
        await self._activate(before, back=True)

    async def unload(self, version: Version) -> None:
        """Frees a version when the requests that are with it have ended.

        Raises `ModelNotLoaded`, and `ModelConflict` for the active one, or where they do not end.
        """
        await self._holder.remove(version, within_s=_DRAIN_S)
        await asyncio.to_thread(give_back)
        _log.info("unloaded", version=str(version))
        self._tell()

    async def _activate(self, version: Version, *, back: bool = False) -> None:
        with self._holder.take(version) as model:
            await self._catch_up(model)
            if not model.engine.alive:
                raise ModelConflict(f"the engine of {version} has stopped")
            before = self._holder.current
            # Nothing has been awaited since the catalogues were equal.
            self._holder.activate(version, back=back)
        if model is not before:
            self._metrics.swapped("rollback" if back else "activate")
            _log.info("activated", version=str(version), before=str(before.version))
            self._tell()

    async def _loaded(self, version: Version) -> InService:
        try:
            with self._metrics.loading():
                folder = await asyncio.to_thread(self._origin.fetch, version)
                model = await self._loader.load(folder, version)
        except BundleError as error:
            raise ModelUnusable(str(version), error.problems) from error
        except (EngineError, InvalidInput, ModelStoreError) as error:
            raise ModelUnusable(str(version), [str(error)]) from error
        _log.info("loaded", version=str(version), seconds=round(model.loaded.seconds, 3))
        return model

    async def _catch_up(self, model: InService) -> None:
        """Ends when all changes that are in force in the active version are in this one.

        Redis is asked only where some are missing: without it one can still roll back. Raises
        `CatalogueUnavailable`.
        """
        for _ in range(_TRIES):
            active, own = self._holder.current.catalogue, model.catalogue
            if own.current.version >= active.current.version and own.complete >= active.complete:
                return
            await own.change(())
            if own.current.version < active.current.version:
                await asyncio.sleep(_PAUSE_S)
        raise ModelConflict(f"the catalogue changes faster than {model.version} can follow")

    def _tell(self) -> None:
        """The metrics, of what there is now."""
        self._metrics.bundles(
            [model.version for model in self._holder.loaded],
            self._holder.current.version,
            self._settings.engine,
        )

    @contextmanager
    def _only_one(self, what: str) -> Iterator[None]:
        if self.loading is not None:
            raise ModelConflict(f"{self.loading} is being loaded")
        self.loading = what
        try:
            yield
        finally:
            self.loading = None
