"""From a bundle's folder to something that answers, beside whatever answers meanwhile.

1. What it will take is read off the headers of its files, and must be there.
2. The bundle is read and checked, checksums included, and its engine is made; each on a thread.
3. The files must be those that were checked.
4. Its catalogue catches up with the changes in Redis.
5. It warms up with real searches.

A step that fails undoes those before it.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from model_store.bundle import Bundle, validate
from model_store.errors import BundleError
from service.answer import Answer
from service.answer_cache import AnswerCache
from service.catalogue.changes import Changes
from service.catalogue.live import LiveCatalogue
from service.eligibility.policy import Policy
from service.engine import Engine, create_engine
from service.engine_queue import EngineQueue
from service.history import History
from service.holder import InService, Loaded, Version
from service.memory import Need
from service.popularity import Popularity
from service.recommender import Recommender
from service.redis_client import RedisClient
from service.settings import Settings
from service.titles import Titles
from service.warm_up import warm_up

Marks = Mapping[str, tuple[int, int, int]]


class Loader:
    """Loads bundles with the same settings, the same Redis, and one queue for the searches of all.

    For one event loop.
    """

    def __init__(
        self,
        settings: Settings,
        history: History,
        popularity: Popularity,
        client: RedisClient,
        queue: EngineQueue,
    ) -> None:
        self._settings = settings
        self._history = history
        self._popularity = popularity
        self._client = client
        self._queue = queue
        self._policy = Policy(
            settings.exclude_seen,
            settings.purchase_types,
            settings.rules,
            settings.filter_cache_mb << 20,
        )
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)

    async def load(self, folder: Path, version: Version | None = None) -> InService:
        """The bundle in `folder`, warmed up; `version` is what it must be.

        Raises `BundleError`, `EngineError`, `DoesNotFit`, `SidError`, and `InvalidInput` for rules
        of the settings that are about what its catalogue lacks; then nothing is left running.
        """
        began = perf_counter()
        settings = self._settings
        need = await asyncio.to_thread(self._need, folder)
        need.check(str(version or folder))
        marks = await asyncio.to_thread(_marks, folder)
        bundle = await asyncio.to_thread(Bundle.load, folder)
        if version not in (None, found := Version(bundle.name, bundle.version)):
            raise BundleError([f"its manifest says that it is {found}"])
        async with AsyncExitStack() as undo:
            engine = await self._engine(bundle)
            undo.push_async_callback(asyncio.to_thread, engine.close)
            if await asyncio.to_thread(_marks, folder) != marks:
                raise BundleError([f"{folder} changed while it was loaded"])
            changes = Changes(self._client, settings.catalogue, f"{bundle.name}/{bundle.version}")
            catalogue = await LiveCatalogue.open(
                bundle, engine, self._policy, changes, poll_s=settings.catalogue_poll_ms / 1000
            )
            undo.push_async_callback(catalogue.close)
            recommender, titles = await asyncio.to_thread(
                self._answering, bundle, engine, catalogue
            )
            await warm_up(bundle, engine, catalogue.current, settings.beam_width)
            self._popularity.watch(bundle.manifest.prompt.scenes)
            loaded = Loaded(datetime.now(UTC), perf_counter() - began, need)
            undo.pop_all()
        return InService(bundle, engine, recommender, titles, catalogue, loaded)

    def _need(self, folder: Path) -> Need:
        try:
            return Need.of(folder, self._settings.engine, self._settings.engine_options)
        except BundleError as error:
            raise BundleError(validate(folder) or error.problems) from error

    async def _engine(self, bundle: Bundle) -> Engine:
        settings = self._settings
        make = partial(create_engine, settings.engine, bundle, **settings.engine_options)
        making = asyncio.ensure_future(asyncio.to_thread(make))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # Nothing stops the thread, so the engine that it makes is closed when it is there.
            making.add_done_callback(_close)
            raise

    def _answering(
        self, bundle: Bundle, engine: Engine, catalogue: LiveCatalogue
    ) -> tuple[Recommender, Titles]:
        settings = self._settings
        recommender = Recommender(
            bundle,
            engine,
            self._history,
            beam_width=settings.beam_width,
            policy=self._policy,
            popularity=self._popularity,
            deadline_ms=settings.deadline_ms,
            cache=_cache(settings, bundle, self._client),
            catalogue=lambda: catalogue.current,
            queue=self._queue,
        )
        return recommender, Titles(bundle, engine, recommender)


def _marks(folder: Path) -> Marks:
    """What tells each file of a folder from another in its place."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path): (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in found.items()}


def _close(making: asyncio.Future[Engine]) -> None:
    if not making.cancelled() and making.exception() is None:
        asyncio.get_running_loop().run_in_executor(None, making.result().close)


def _cache(settings: Settings, bundle: Bundle, client: RedisClient) -> AnswerCache[Answer] | None:
    if not settings.cache_ttl_ms:
        return None
    # The manifest has a checksum of every file of the bundle; the settings are those of answers.
    names = {
        *("engine", "engine_options", "beam_width"),
        *("exclude_seen", "purchase_types", "rules", "catalogue"),
    }
    state = [bundle.manifest, settings.model_dump(mode="json", include=names)]
    return AnswerCache(client, Answer, ttl_ms=settings.cache_ttl_ms, state=state)
