"""The application: lifespan, routers, middleware list."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import TypedDict

import structlog
from fastapi import FastAPI
from starlette.middleware import Middleware
from structlog.typing import FilteringBoundLogger

from service.answer_cache import KeptAnswers
from service.api import (
    batch,
    bundle,
    docs,
    experiments,
    health,
    items,
    models,
    playground,
    recommendations,
    search,
    similar,
    users,
)
from service.api.admission import Admission
from service.api.body_limit import BodyLimit
from service.api.guard import Guard
from service.api.middleware import RequestScope
from service.api.problems import handle_problems
from service.api.scopes import ScopedApp, require_scopes
from service.api.security_headers import SecurityHeaders
from service.api.state import Service
from service.engine_queue import EngineQueue
from service.experiments.experiments import Experiments
from service.history import History
from service.holder import Holder
from service.keys.keyring import Keyring
from service.loading import Loader
from service.memory import GIVE_BACK_S, give_back
from service.metrics import Metrics
from service.metrics.http import HttpMetrics
from service.models import Models
from service.origin import origin_of
from service.popularity import Popularity
from service.pseudonyms import Pseudonyms
from service.redis_client import RedisClient, connect_any
from service.redis_server import EmbeddedRedis
from service.redis_watch import kept_running
from service.repeated import repeated
from service.settings import Settings
from service.tracing import Tracing

_log: FilteringBoundLogger = structlog.get_logger(__name__)


class State(TypedDict):
    """What the lifespan hands to each request."""

    service: Service


def create_app(settings: Settings) -> FastAPI:
    """An application that loads nothing before its lifespan starts.

    Raises `TracingUnavailable`. The lifespan raises `KeysInvalid`, `BundleError` and `SidrecError`
    (of these `EngineError`, `DoesNotFit`, `NotFound`, `StoreUnavailable`, `RedisStartFailed`), and
    frees what it had started by then.
    """
    admission = Admission(settings.max_in_flight)
    queue = EngineQueue(settings.max_wait_ms)
    metrics = Metrics(lambda: admission.in_flight, settings.max_in_flight, queue)
    tracing = Tracing(settings.otlp_endpoint)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(
                repeated(partial(asyncio.to_thread, give_back), GIVE_BACK_S)
            )
            await stack.enter_async_context(tracing.exported())
            keyring = await _keyring(settings, metrics.http, stack)
            client = await _connect(settings, stack)
            history = _history(client, settings)
            popularity = _popularity(client, settings)
            loader = Loader(settings, history, popularity, client, queue)
            origin = await asyncio.to_thread(origin_of, settings)
            holder = Holder(await loader.load(await asyncio.to_thread(origin.first)))
            stack.push_async_callback(holder.close)
            manager = Models(holder, loader, origin, metrics.models, settings)
            await stack.enter_async_context(popularity.kept_fresh())
            metrics.answers.popularity(lambda: popularity.age)
            experiments = Experiments(
                client, metrics.experiments, purchase_types=settings.purchase_types
            )
            await stack.enter_async_context(experiments.followed())
            # Else their users would leave their arms with every restart.
            await manager.load_each(experiments.versions())
            service = Service(
                *(settings, holder, manager, history, popularity, metrics, admission, queue),
                *(Guard(keyring, metrics.http), experiments),
                # In this order: an answer is not kept once what it follows from is gone.
                keepers=(history, KeptAnswers(client), experiments),
                pseudonyms=_pseudonyms(settings),
            )
            yield {"service": service}

    app = ScopedApp(
        title="sidrec",
        summary="Recommendations by generative recommenders that speak semantic IDs",
        version=version("sidrec"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=tracing.of_fastapi,
        # Outermost first.
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(RequestScope, metrics=metrics.http, tracing=tracing),
            Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        ],
    )
    handle_problems(app)
    for module in (
        *(recommendations, batch, similar, search, users, items, bundle, models, experiments),
        *(health, docs, *([playground] if settings.playground else [])),
    ):
        app.include_router(module.router)
    require_scopes(app)
    return app


async def _keyring(
    settings: Settings, metrics: HttpMetrics, stack: AsyncExitStack
) -> Keyring | None:
    """The keys in force, kept so until `stack` ends; None where nobody needs one."""
    if not settings.keyed:
        _log.warning("no_keys", host=settings.host, hint="whoever can connect may do everything")
        return None
    keyring = Keyring(settings.keys or (), settings.keys_file, reloaded=metrics.keys)
    await stack.enter_async_context(keyring.kept_fresh())
    return keyring


async def _connect(settings: Settings, stack: AsyncExitStack) -> RedisClient:
    """Connects to the Redis of the settings, or to a private one that ends with `stack`."""
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
    else:
        embedded = EmbeddedRedis(settings.state_dir / "redis")
        await asyncio.to_thread(embedded.start)
        stack.push_async_callback(asyncio.to_thread, embedded.stop)
        await stack.enter_async_context(kept_running(embedded))
        url = embedded.url
    timeout = settings.redis_timeout_ms
    client = connect_any(
        url,
        timeout_ms=timeout,
        connect_timeout_ms=timeout,
        replicas=settings.redis_wait_replicas,
    )
    stack.push_async_callback(client.aclose)
    return client


def _history(client: RedisClient, settings: Settings) -> History:
    days = settings.history_ttl_days
    ttl = timedelta(days=days) if days else None
    max_age = timedelta(days=age) if (age := settings.history_max_age_days) else None
    return History(client, limit=settings.history_limit, ttl=ttl, max_age=max_age)


def _popularity(client: RedisClient, settings: Settings) -> Popularity:
    return Popularity(
        client,
        half_life=timedelta(hours=settings.popular_half_life_h),
        weights=settings.popular_weights,
        refresh=timedelta(milliseconds=settings.popular_refresh_ms),
    )


def _pseudonyms(settings: Settings) -> Pseudonyms:
    key = settings.log_user_key
    return Pseudonyms(key.get_secret_value() if key else None, clear=settings.log_user_ids)
