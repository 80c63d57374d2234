"""From a bundle's folder to something that answers."""

import asyncio
from functools import partial

import torch
from redis.asyncio import Redis

from model_store.bundle import Bundle
from service.answer import Answer
from service.answer_cache import AnswerCache
from service.catalogue.changes import Changes
from service.catalogue.live import LiveCatalogue
from service.eligibility.policy import Policy
from service.engine import create_engine
from service.history import History
from service.holder import InService
from service.popularity import Popularity
from service.recommender import Recommender
from service.settings import Settings
from service.titles import Titles


async def load_model(
    settings: Settings, history: History, popularity: Popularity, client: Redis
) -> InService:
    """Loads the bundle that the settings name, off the event loop, and asks its engine once. The
    changes to its catalogue are in `client`.

    Raises `BundleError` and `EngineError`, and then leaves nothing running.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    bundle = await asyncio.to_thread(Bundle.load, settings.bundle)
    engine = await asyncio.to_thread(
        partial(create_engine, settings.engine, bundle, **settings.engine_options)
    )
    try:
        policy = Policy(
            settings.exclude_seen,
            settings.purchase_types,
            settings.rules,
            settings.filter_cache_mb << 20,
        )
        changes = Changes(client, settings.catalogue, f"{bundle.name}/{bundle.version}")
        catalogue = await LiveCatalogue.open(
            bundle, engine, policy, changes, poll_s=settings.catalogue_poll_ms / 1000
        )
    except BaseException:
        await asyncio.to_thread(engine.close)
        raise
    recommender = Recommender(
        bundle,
        engine,
        history,
        beam_width=settings.beam_width,
        policy=policy,
        popularity=popularity,
        deadline_ms=settings.deadline_ms,
        cache=_cache(settings, bundle, client),
        catalogue=lambda: catalogue.current,
    )
    titles = Titles(bundle, engine, recommender)
    in_service = InService(bundle, engine, recommender, titles, catalogue)
    try:
        await recommender.warm_up()
    except BaseException:
        await in_service.close()
        raise
    return in_service


def _cache(settings: Settings, bundle: Bundle, client: Redis) -> AnswerCache[Answer] | None:
    if not settings.cache_ttl_ms:
        return None
    # The manifest has a checksum of every file of the bundle; the settings are those of answers.
    names = {
        *("engine", "engine_options", "beam_width"),
        *("exclude_seen", "purchase_types", "rules", "catalogue"),
    }
    state = [bundle.manifest, settings.model_dump(mode="json", include=names)]
    return AnswerCache(client, Answer, ttl_ms=settings.cache_ttl_ms, state=state)
