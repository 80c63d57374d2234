"""What is in service: a bundle, its engine, and the recommender over both, replaced as one."""

import asyncio
from dataclasses import dataclass
from functools import partial

import torch

from model_store.bundle import Bundle
from service.eligibility.policy import Policy
from service.engine import Engine, create_engine
from service.history import History
from service.popularity import Popularity
from service.recommender import Recommender
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class InService:
    """A bundle that answers. A request takes one of these and stays with it to its end."""

    bundle: Bundle
    engine: Engine
    recommender: Recommender


@dataclass(slots=True)
class Holder:
    """Holds what is in service; whoever assigns `current` decides what the next request gets."""

    current: InService

    async def close(self) -> None:
        """Frees what is in service at that moment."""
        await asyncio.to_thread(self.current.engine.close)


async def load_model(settings: Settings, history: History, popularity: Popularity) -> InService:
    """Loads the bundle that the settings name, off the event loop, and asks its engine once.

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
        recommender = await asyncio.to_thread(
            partial(
                Recommender,
                bundle,
                engine,
                history,
                beam_width=settings.beam_width,
                policy=policy,
                popularity=popularity,
                deadline_ms=settings.deadline_ms,
            )
        )
        await recommender.warm_up()
    except BaseException:
        await asyncio.to_thread(engine.close)
        raise
    return InService(bundle, engine, recommender)
