"""For machines that watch: `/livez`, `/readyz`, `/metrics`"""

from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from service.api.answer_schemas import BundleName
from service.api.problems import documented
from service.api.scopes import METRICS, OPEN, ScopedRoute
from service.api.state import service_of
from service.errors import CatalogueUnavailable, EngineDead

router = APIRouter(tags=["health"], route_class=ScopedRoute)


class Alive(BaseModel):
    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """`degraded`: Redis is away, so only requests that carry their history are personal."""

    status: Literal["ready", "degraded"]
    bundle: BundleName
    redis: Literal["ok", "away"]


@router.get("/livez", openapi_extra=OPEN)
async def livez() -> Alive:
    """Whether the process answers at all. Looks at nothing else."""
    return Alive()


@router.get("/readyz", openapi_extra=OPEN, responses=documented(503))
async def readyz(request: Request) -> Ready:
    """Whether requests can be sent here: a bundle is loaded, its engine is alive, and the
    changes to its catalogue have been read."""
    service = service_of(request)
    current = service.holder.current
    if not current.engine.alive:
        raise EngineDead("the engine has stopped")
    if not current.catalogue.complete:
        raise CatalogueUnavailable("the changes to the catalogue have not been read yet")
    there = await service.history.ping()
    return Ready(
        status="ready" if there else "degraded",
        bundle=BundleName(name=current.bundle.name, version=current.bundle.version),
        redis="ok" if there else "away",
    )


@router.get("/metrics", openapi_extra=METRICS, response_class=Response)
async def metrics(request: Request) -> Response:
    """The Prometheus text format."""
    service = service_of(request)
    current = service.holder.current
    told = service.metrics
    told.catalogue.now(current.catalogue.stats())
    engines = [model.engine.stats() for model in service.holder.loaded]
    told.engine.ran(engines, alive=current.engine.alive)
    return Response(told.exposition(), media_type=CONTENT_TYPE_LATEST)
