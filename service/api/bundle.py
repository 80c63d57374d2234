"""`GET /v1/bundle`: what answers at present, and what it may be asked."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.api.schemas import MAX_K
from service.api.scopes import READ, ScopedRoute
from service.api.state import service_of
from service.eligibility.columns import Type
from service.holder import InService
from service.settings import Settings

router = APIRouter(tags=["models"], route_class=ScopedRoute)


class LevelOfSid(BaseModel):
    name: str
    size: int = Field(description="codes that there are")


class ProfileFieldShown(BaseModel):
    name: str
    values: list[str] | None = Field(description="that it may have; null for any")


class Attribute(BaseModel):
    name: str
    type: Type = Field(description="what filters may compare it with; several: lists of values")


class Abilities(BaseModel):
    """null for what it can do, else why it cannot."""

    search: str | None = Field(description="`POST /v1/search`")
    describe: str | None = Field(description="`GET /v1/items/{id}/describe`")


class BundleInService(BaseModel):
    """The active bundle, as far as those who ask it need to know it."""

    name: str
    version: int
    created: datetime
    engine: str
    items: int = Field(description="that can be recommended now")
    levels: list[LevelOfSid] = Field(description="of its SIDs, the first one first")
    profile: list[ProfileFieldShown] = Field(description="fields that its prompt speaks of")
    scenes: list[str] = Field(description="that it knows")
    attributes: list[Attribute] = Field(description="that filters can test")
    answers: Abilities
    beam_width: int = Field(description="of a request that names none")
    max_k: int

    @classmethod
    def of(cls, model: InService, settings: Settings) -> Self:
        bundle, now = model.bundle, model.catalogue.current
        prompt = bundle.manifest.prompt
        return cls(
            name=bundle.name,
            version=bundle.version,
            created=bundle.manifest.created,
            engine=settings.engine,
            items=now.catalogue.listed,
            levels=[LevelOfSid(name=one.name, size=one.size) for one in bundle.spec.levels],
            profile=[
                ProfileFieldShown(name=one.name, values=one.values and list(one.values))
                for one in prompt.profile
            ],
            scenes=list(prompt.scenes),
            attributes=[
                Attribute(name=name, type=type_) for name, type_ in now.filters.types().items()
            ],
            answers=Abilities(
                search=model.titles.why_no("search"), describe=model.titles.why_no("describe")
            ),
            beam_width=settings.beam_width,
            max_k=MAX_K,
        )


@router.get("/v1/bundle", openapi_extra=READ)
async def read_bundle(request: Request) -> BundleInService:
    """What answers at present, and what it may be asked."""
    service = service_of(request)
    return BundleInService.of(service.holder.current, service.settings)
