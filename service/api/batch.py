"""`POST /v1/recommendations/batch`: many users, one request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from service.api.answer_schemas import Recommendations
from service.api.disconnect import unless_gone
from service.api.door import Admitted
from service.api.problems import Problem, documented, problem_of
from service.api.recommendations import answer_one, check
from service.api.schemas import RecommendationRequest, RequestBody
from service.api.scopes import READ
from service.api.state import Service, caller_of, most, service_of
from service.api.told import tell_batch
from service.errors import InvalidInput, SidrecError

router = APIRouter(tags=["recommendations"], route_class=Admitted)

MOST_TRACED = 8
"""Answers of a batch that may show their beam: each can be as large as a thousand others."""

# Checked one by one, so that a mistake in one of them is not a mistake in all.
Wanted = Annotated[
    Any,
    WithJsonSchema(
        {
            "description": "the body of `/v1/recommendations`; anything else is answered as there",
            "anyOf": [{"$ref": "#/components/schemas/RecommendationRequest"}, {}],
        }
    ),
]


class BatchRequest(RequestBody):
    """Requests as `/v1/recommendations` takes them, each answered or refused on its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"requests": [{"user_id": "mei", "k": 2}, {"history": ["p02327"], "k": 2}]}
            ]
        }
    )

    requests: list[Wanted] = Field(min_length=1)


class BatchResult(BaseModel):
    """What the request in the same place would have been answered alone: one of the two."""

    status: int = Field(description="the HTTP status it would have had")
    answer: Recommendations | None = None
    problem: Problem | None = None


class BatchResults(BaseModel):
    request_id: str
    results: list[BatchResult] = Field(description="in the order of the requests")


@router.post("/v1/recommendations/batch", openapi_extra=READ, responses=documented(413, 422, 503))
async def recommend_batch(batch: BatchRequest, request: Request) -> BatchResults:
    """Recommendations for many users, searched together.

    The answer is 200 whatever became of single requests; `status` says it for each. Each takes a
    place of its own among those that are worked on at once: where too few are free, or the engine's
    queue is full, the whole batch is refused with 503. What is let in is let in as a whole.
    """
    service = service_of(request)
    limit = most(request, min(service.settings.max_batch, service.settings.max_in_flight))
    if len(batch.requests) > limit:
        raise InvalidInput("requests", f"has {len(batch.requests)}, at most {limit} go at once")
    traced = sum(isinstance(one, dict) and one.get("trace") is True for one in batch.requests)
    if traced > MOST_TRACED:
        raise InvalidInput("requests", f"ask for {traced} traces, at most {MOST_TRACED} go at once")
    request_id = request.state.request_id
    caller = caller_of(request)
    places = service.admission.place(len(batch.requests))
    with places, service.holder.take() as current:
        # Where it is full, those of them that have a deadline can still be answered.
        patient = not service.queue.full_for(caller)
        answer = partial(
            answer_one,
            service=service,
            current=current,
            request_id=request_id,
            caller=caller,
            patient=patient,
        )
        work = [_result(one, service, request_id, answer) for one in batch.requests]
        results = await unless_gone(request, _together(work))
    answers = [result.answer for result in results if result.answer is not None]
    tell_batch(answers, len(results) - len(answers))
    return BatchResults(request_id=request_id, results=results)


async def _together(work: Iterable[Awaitable[BatchResult]]) -> list[BatchResult]:
    return list(await asyncio.gather(*work))


async def _result(
    one: Any,
    service: Service,
    request_id: str,
    answer_to: Callable[[RecommendationRequest], Awaitable[Recommendations]],
) -> BatchResult:
    try:
        wanted = RecommendationRequest.model_validate(one, from_attributes=True)
        check(wanted, service.settings)
        answer = await answer_to(wanted)
    except (SidrecError, ValidationError) as error:
        found = problem_of(request_id, error)
        return BatchResult(status=found.status, problem=found)
    return BatchResult(status=200, answer=answer)
