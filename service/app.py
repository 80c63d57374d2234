"""The application: lifespan, routers, middleware list."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from typing import TypedDict

from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.middleware import Middleware

from service.api import batch, experiments, health, items, recommendations, search, similar, users
from service.api.admission import Admission
from service.api.body_limit import BodyLimit
from service.api.middleware import RequestScope
from service.api.problems import handle_problems
from service.api.state import Service
from service.experiments.experiments import Experiments
from service.history import History, connect
from service.holder import Holder
from service.loading import load_model
from service.metrics import Metrics
from service.popularity import Popularity
from service.redis_server import EmbeddedRedis
from service.settings import Settings


class State(TypedDict):
    """What the lifespan hands to each request."""

    service: Service


def create_app(settings: Settings) -> FastAPI:
    """An application that loads nothing before its lifespan starts.

    The lifespan raises `BundleError`, `EngineError` and `RedisStartFailed`, and frees what it had
    started by then.
    """
    admission = Admission(settings.max_in_flight)
    metrics = Metrics(lambda: admission.in_flight)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            client = await _connect(settings, stack)
            history = _history(client, settings)
            popularity = _popularity(client, settings)
            holder = Holder(await load_model(settings, history, popularity, client))
            stack.push_async_callback(holder.close)
            await stack.enter_async_context(popularity.kept_fresh())
            metrics.popularity(lambda: popularity.age)
            experiments = Experiments(client, metrics, purchase_types=settings.purchase_types)
            await stack.enter_async_context(experiments.followed())
            bundle = holder.current.bundle
            metrics.bundle(bundle.name, bundle.version, settings.engine)
            yield {
                "service": Service(
                    settings, holder, history, popularity, metrics, admission, experiments
                )
            }

    app = FastAPI(
        title="sidrec",
        summary="Recommendations by generative recommenders that speak semantic IDs",
        version=version("sidrec"),
        lifespan=lifespan,
        redirect_slashes=False,
        # Outermost first.
        middleware=[
            Middleware(RequestScope, metrics=metrics),
            Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
        ],
    )
    handle_problems(app)
    for module in (recommendations, batch, similar, search, users, items, experiments, health):
        app.include_router(module.router)
    return app


async def _connect(settings: Settings, stack: AsyncExitStack) -> Redis:
    """Connects to the Redis of the settings, or to a private one that ends with `stack`."""
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
    else:
        embedded = EmbeddedRedis(settings.state_dir / "redis")
        await asyncio.to_thread(embedded.start)
        stack.push_async_callback(asyncio.to_thread, embedded.stop)
        url = embedded.url
    timeout = settings.redis_timeout_ms
    client = connect(url, timeout_ms=timeout, connect_timeout_ms=timeout)
    stack.push_async_callback(client.aclose)
    return client


def _history(client: Redis, settings: Settings) -> History:
    days = settings.history_ttl_days
    ttl = timedelta(days=days) if days else None
    return History(client, limit=settings.history_limit, ttl=ttl)


def _popularity(client: Redis, settings: Settings) -> Popularity:
    return Popularity(
        client,
        half_life=timedelta(hours=settings.popular_half_life_h),
        weights=settings.popular_weights,
        refresh=timedelta(milliseconds=settings.popular_refresh_ms),
    )
