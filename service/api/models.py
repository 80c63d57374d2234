"""Which versions are loaded, and which answers: `GET` and `POST /v1/models`,
`POST /v1/models/{name}/{version}/activate` and `/warm-up`, `POST /v1/models/rollback`,
`DELETE /v1/models/{name}/{version}`"""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.answer_schemas import BundleName
from service.api.problems import documented
from service.api.schemas import BundleText, RequestBody, VersionNumber
from service.api.scopes import ADMIN, ScopedRoute
from service.api.state import Service, service_of
from service.holder import InService, Version

router = APIRouter(tags=["models"], route_class=ScopedRoute)

NameInPath = Annotated[str, Path(max_length=64, description="of the bundle")]
VersionInPath = Annotated[int, Path(ge=1, lt=1 << 63)]


class Wanted(RequestBody):
    """Which version of the store."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2}, {"name": "demo"}]})

    name: BundleText | None = Field(
        None, description="of the bundle; by default SIDREC_MODEL, or the only one of the store"
    )
    version: VersionNumber | None = Field(None, description="by default the store's champion")


class Memory(BaseModel):
    """Bytes by the sizes of its files, not measured: engines other than torch's do not tell."""

    weights: int
    cache: int = Field(description="what the engine may keep of prompts")
    catalogue: int


class Model(BaseModel):
    """A version that is loaded and can answer."""

    name: str
    version: int
    active: bool = Field(description="whether it answers requests that name no version")
    requests: int = Field(description="requests that are with it at present")
    loaded_at: datetime
    load_seconds: float
    items: int
    catalogue_version: int = Field(
        description="number of the last change of the catalogue in force"
    )
    memory: Memory

    @classmethod
    def of(cls, model: InService, service: Service) -> Self:
        catalogue, need = model.catalogue.current, model.loaded.need
        return cls(
            name=model.version.name,
            version=model.version.number,
            active=model is service.holder.current,
            requests=service.holder.requests(model),
            loaded_at=model.loaded.at,
            load_seconds=round(model.loaded.seconds, 3),
            items=catalogue.catalogue.listed,
            catalogue_version=catalogue.version,
            memory=Memory(weights=need.weights, cache=need.cache, catalogue=need.catalogue),
        )


class Models(BaseModel):
    models: list[Model] = Field(description="in the order in which they were loaded")
    previous: BundleName | None = Field(description="what a rollback would activate")
    loading: str | None = Field(description="what is being loaded at present")
    max_models: int = Field(description="as many may be loaded at once")

    @classmethod
    def of(cls, service: Service) -> Self:
        before = service.holder.previous
        return cls(
            models=[Model.of(model, service) for model in service.holder.loaded],
            previous=None
            if before is None
            else BundleName(name=before.name, version=before.number),
            loading=service.models.loading,
            max_models=service.settings.max_models,
        )


class WarmedUp(BaseModel):
    searches: int
    seconds: float


@router.get("/v1/models", openapi_extra=ADMIN)
async def list_models(request: Request) -> Models:
    """The versions that are loaded."""
    return Models.of(service_of(request))


@router.post(
    "/v1/models",
    status_code=201,
    openapi_extra=ADMIN,
    responses=documented(404, 409, 413, 422, 503, 507),
)
async def load_model(wanted: Wanted, request: Request, response: Response) -> Model:
    """Loads a version beside those that are loaded, and warms it up with real searches. Answers
    when it can be activated; 200 where it was loaded already.

    What fails changes nothing: a version that cannot be served is a 422 with the reasons, one that
    the memory is too small for a 507 with the figures.
    """
    service = service_of(request)
    model, new = await service.models.load(wanted.name, wanted.version)
    if not new:
        response.status_code = 200
    return Model.of(model, service)


@router.post("/v1/models/rollback", openapi_extra=ADMIN, responses=documented(404, 409, 503))
async def roll_back(request: Request) -> Models:
    """Activates the version that was active before the last activation, if it is still loaded."""
    service = service_of(request)
    await service.models.roll_back()
    return Models.of(service)


@router.post(
    "/v1/models/{name}/{version}/activate",
    openapi_extra=ADMIN,
    responses=documented(404, 409, 422, 503),
)
async def activate(name: NameInPath, version: VersionInPath, request: Request) -> Models:
    """Lets every request from now on be answered by a loaded version; requests that have begun end
    with theirs. Changes of the catalogue that are in force now are in force in it then."""
    service = service_of(request)
    await service.models.activate(Version(name, version))
    return Models.of(service)


@router.post(
    "/v1/models/{name}/{version}/warm-up", openapi_extra=ADMIN, responses=documented(404, 422, 503)
)
async def warm_up(name: NameInPath, version: VersionInPath, request: Request) -> WarmedUp:
    """Searches with a loaded version, with short prompts and long ones, alone and together. Loading
    does it too."""
    done = await service_of(request).models.warm_up(Version(name, version))
    return WarmedUp(searches=done.searches, seconds=round(done.seconds, 3))


@router.delete(
    "/v1/models/{name}/{version}",
    status_code=204,
    openapi_extra=ADMIN,
    responses=documented(404, 409, 422),
)
async def unload(name: NameInPath, version: VersionInPath, request: Request) -> None:
    """Frees a version that is not active. New requests do not get it, and it leaves when those that
    are with it have ended; where they do not within 30 seconds it stays, and the answer is 409. The
    same is said of a version that an experiment needs which has not ended."""
    service, wanted = service_of(request), Version(name, version)
    await service.experiments.check_unused(wanted)
    await service.models.unload(wanted)
