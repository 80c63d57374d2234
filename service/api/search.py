"""`POST /v1/search`, and `GET /v1/items/{id}/describe`: items by words, and words for an item."""

from time import perf_counter
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictInt

from service.api.disconnect import unless_gone
from service.api.paths import register_ids
from service.api.problems import documented
from service.api.schemas import BundleName, RecommendedItem, _Request
from service.api.state import service_of
from service.settings import MAX_BEAM_WIDTH

register_ids()
router = APIRouter(tags=["search"])


class SearchRequest(_Request):
    """What is looked for, in words."""

    query: str = Field(
        min_length=1,
        max_length=512,
        description="a title, or some words of one, as the bundle's items have them",
        examples=["轻量化无线鼠标"],
    )
    k: Annotated[StrictInt, Field(ge=1, le=200)] = Field(10, description="how many items")
    beam_width: Annotated[StrictInt, Field(ge=1, le=MAX_BEAM_WIDTH)] | None = Field(
        None, description="SIDs kept at each step of the search, at least k"
    )
    explain: bool = Field(False, description="say of each item what each level of its SID added")


class SearchResults(BaseModel):
    request_id: str
    bundle: BundleName
    items: list[RecommendedItem] = Field(description="best first")
    timing_ms: dict[str, float] = Field(description="milliseconds per stage, and in total")


class Description(BaseModel):
    """What the model says of an item: the title that it writes for the item's SID."""

    request_id: str
    bundle: BundleName
    item_id: str
    sid: str
    title: str | None = Field(description="the one in the catalogue")
    text: str = Field(description="the one that the model writes")
    complete: bool = Field(description="whether the model came to an end by itself")
    timing_ms: dict[str, float]
