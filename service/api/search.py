"""`POST /v1/search` and `GET /v1/items/{id}/describe`: items by words, and words for an item."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from service.answer import Ask
from service.api.answer_schemas import BundleName, RecommendedItem
from service.api.beam_schemas import BeamShown, beam_shown
from service.api.disconnect import unless_gone
from service.api.door import Admitted
from service.api.items import known
from service.api.paths import register_ids
from service.api.problems import documented
from service.api.schemas import (
    EXPLAIN,
    FILTER,
    MAX_EXCLUDED,
    MAX_K,
    TRACE,
    ItemId,
    RequestBody,
)
from service.api.scopes import READ
from service.api.state import caller_of, service_of
from service.api.told import tell
from service.eligibility.wanted import WantedFilter
from service.settings import MAX_BEAM_WIDTH

register_ids()
router = APIRouter(tags=["search"], route_class=Admitted)


class SearchRequest(RequestBody):
    """What is looked for, in words."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "轻量化无线鼠标", "k": 2, "explain": True}]}
    )

    query: str = Field(
        min_length=1,
        max_length=512,
        description="a title, or words of one that stand side by side; tokens of the model, such"
        " as those of a SID, are refused",
    )
    k: Annotated[StrictInt, Field(ge=1, le=MAX_K)] = Field(10, description="how many items")
    beam_width: Annotated[StrictInt, Field(ge=1, le=MAX_BEAM_WIDTH)] | None = Field(
        None, description="SIDs kept at each step of the search, at least k"
    )
    exclude: list[ItemId] = Field(
        [], max_length=MAX_EXCLUDED, description="item ids that the answer must not contain"
    )
    filter: WantedFilter | None = FILTER
    explain: StrictBool = EXPLAIN
    trace: StrictBool = TRACE

    def ask(self) -> Ask:
        return Ask(
            k=self.k,
            beam_width=self.beam_width,
            exclude=self.exclude,
            filter=self.filter,
            explain=self.explain,
            trace=self.trace,
        )


class SearchResults(BaseModel):
    """Items in order. There is nothing to fall back to: a model that cannot be asked is a 503."""

    request_id: str
    bundle: BundleName
    items: list[RecommendedItem] = Field(description="best first")
    eligible_items: int = Field(description="items that the answer could have contained")
    timing_ms: dict[str, float] = Field(description="milliseconds per stage, and in total")
    beam: BeamShown = None


class Description(BaseModel):
    """What the model says of an item: the title that it writes for the item's SID."""

    request_id: str
    bundle: BundleName
    item_id: str
    sid: str
    title: str | None = Field(description="the one in the catalogue")
    text: str = Field(description="the one that the model writes")
    complete: bool = Field(description="whether the model came to an end by itself")
    timing_ms: dict[str, float] = Field(description="milliseconds per stage, and in total")


@router.post("/v1/search", openapi_extra=READ, responses=documented(409, 413, 422, 503))
async def search(wanted: SearchRequest, request: Request) -> SearchResults:
    """The items whose titles the query may be, or be a part of, by the bundle in service.

    A bundle that was not trained to find items by their titles answers 409.
    """
    service = service_of(request)
    with service.admission.place(), service.holder.take() as current:
        work = current.titles.search(wanted.query, replace(wanted.ask(), caller=caller_of(request)))
        answer = await unless_gone(request, work)
    found = SearchResults(
        request_id=request.state.request_id,
        bundle=BundleName(name=current.bundle.name, version=current.bundle.version),
        items=RecommendedItem.ranked(answer.picks),
        eligible_items=answer.eligible_items,
        timing_ms=answer.timing_ms,
        beam=beam_shown(answer),
    )
    service.metrics.answers.titles("search", found.timing_ms)
    tell(found.bundle, found.timing_ms)
    return found


@router.get(
    "/v1/items/{item_id:id}/describe", openapi_extra=READ, responses=documented(404, 409, 422, 503)
)
async def describe(item_id: str, request: Request) -> Description:
    """The title that the model writes for an item, to see what it makes of the item's SID.

    Items that share a SID are described alike. A bundle that was not trained to write titles
    answers 409.
    """
    service = service_of(request)
    with service.admission.place(), service.holder.take() as current:
        bundle = current.bundle
        catalogue, row = known(current, item_id)
        found = await unless_gone(request, current.titles.describe(catalogue.sids[row]))
    described = Description(
        request_id=request.state.request_id,
        bundle=BundleName(name=bundle.name, version=bundle.version),
        item_id=item_id,
        sid=catalogue.sids[row],
        title=catalogue.titles[row],
        text=found.text,
        complete=found.complete,
        timing_ms=found.timing_ms,
    )
    service.metrics.answers.titles("describe", described.timing_ms)
    tell(described.bundle, described.timing_ms)
    return described
