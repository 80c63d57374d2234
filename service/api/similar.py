"""`POST /v1/items/{id}/similar`"""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, StrictBool, StrictInt

from service.answer import Ask
from service.api.answer_schemas import Recommendations
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
from service.api.told import tell_recommendations
from service.eligibility.wanted import WantedFilter
from service.settings import MAX_BEAM_WIDTH

register_ids()
router = APIRouter(tags=["recommendations"], route_class=Admitted)


class SimilarRequest(RequestBody):
    """How many, and which not."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"k": 2, "exclude": ["p01068"]}]})

    k: Annotated[StrictInt, Field(ge=1, le=MAX_K)] = Field(10, description="how many items")
    scene: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="where the items will be shown; one that the bundle knows"
    )
    beam_width: Annotated[StrictInt, Field(ge=1, le=MAX_BEAM_WIDTH)] | None = Field(
        None, description="SIDs kept at each step of the search, at least k"
    )
    exclude: list[ItemId] = Field(
        [], max_length=MAX_EXCLUDED, description="item ids that the answer must not contain"
    )
    filter: WantedFilter | None = FILTER
    explain: StrictBool = EXPLAIN
    trace: StrictBool = TRACE

    def ask(self, item_id: str) -> Ask:
        return Ask(
            k=self.k,
            history=[item_id],
            scene=self.scene,
            beam_width=self.beam_width,
            exclude=[item_id, *self.exclude],
            filter=self.filter,
            explain=self.explain,
            trace=self.trace,
        )


@router.post(
    "/v1/items/{item_id:id}/similar", openapi_extra=READ, responses=documented(404, 413, 422, 503)
)
async def similar(item_id: str, wanted: SimilarRequest, request: Request) -> Recommendations:
    """What someone of whom nothing is known but this one item will most likely want next.

    The item itself is left out. Otherwise the answer is as that of `/v1/recommendations`.
    """
    service = service_of(request)
    with service.admission.place(), service.holder.take() as current:
        known(current, item_id)
        ask = replace(wanted.ask(item_id), caller=caller_of(request))
        answer = await unless_gone(request, current.recommender.recommend(ask))
    service.metrics.answers.answered(answer)
    said = Recommendations.of(request.state.request_id, None, current.bundle, answer)
    tell_recommendations(said)
    return said
