"""`POST /v1/recommendations`"""

from fastapi import APIRouter, Request
from structlog.contextvars import bind_contextvars

from service.api.disconnect import unless_gone
from service.api.problems import documented
from service.api.schemas import RecommendationRequest, Recommendations
from service.api.state import service_of
from service.errors import InvalidInput

router = APIRouter(tags=["recommendations"])


@router.post("/v1/recommendations", responses=documented(413, 422, 503))
async def recommend(wanted: RecommendationRequest, request: Request) -> Recommendations:
    """The items that a user will most likely want next, by the bundle in service.

    Where the model cannot be asked, the answer is popular items, and `reason` says why.
    """
    service = service_of(request)
    limit = service.settings.history_limit
    if wanted.history is not None and len(wanted.history) > limit:
        raise InvalidInput("history", f"has {len(wanted.history)} items, at most {limit} are used")
    current = service.holder.current
    with service.admission.place():
        answer = await unless_gone(request, current.recommender.recommend(wanted.ask()))
    service.metrics.recommendation(answer)
    bind_contextvars(source=answer.source, reason=answer.reason)
    return Recommendations.of(request.state.request_id, wanted.user_id, current.bundle, answer)
