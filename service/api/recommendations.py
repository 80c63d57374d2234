"""`POST /v1/recommendations`"""

from dataclasses import replace

from fastapi import APIRouter, Request

from service.answer import Ask
from service.api.answer_schemas import Recommendations
from service.api.disconnect import unless_gone
from service.api.door import Admitted
from service.api.problems import documented
from service.api.schemas import BundleWanted, RecommendationRequest
from service.api.scopes import READ
from service.api.state import Service, caller_of, service_about, service_of
from service.api.told import tell_recommendations
from service.errors import InvalidInput
from service.experiments.treatment import Treated
from service.holder import Holder, InService, Version
from service.settings import Settings
from service.spans import annotate, span

router = APIRouter(tags=["recommendations"], route_class=Admitted)


@router.post("/v1/recommendations", openapi_extra=READ, responses=documented(404, 413, 422, 503))
async def recommend(wanted: RecommendationRequest, request: Request) -> Recommendations:
    """The items that a user will most likely want next, by the bundle in service.

    Where the model cannot be asked, the answer is popular items, and `reason` says why.
    """
    user_id = wanted.user_id
    service = service_of(request) if user_id is None else service_about(request, user_id)
    check(wanted, service.settings)
    request_id = request.state.request_id
    with service.admission.place(), service.holder.take() as current:
        work = answer_one(wanted, service, current, request_id, caller_of(request))
        answer = await unless_gone(request, work)
    tell_recommendations(answer)
    return answer


def check(wanted: RecommendationRequest, settings: Settings) -> None:
    """Raises `InvalidInput` for what the schema does not know: settings."""
    limit = settings.history_limit
    if wanted.history is not None and len(wanted.history) > limit:
        raise InvalidInput("history", f"has {len(wanted.history)} items, at most {limit} are used")


async def answer_one(
    wanted: RecommendationRequest,
    service: Service,
    current: InService,
    request_id: str,
    caller: str,
    *,
    patient: bool = False,
) -> Recommendations:
    """The answer to a request that was checked and admitted, under the arms of its user; counted in
    the metrics and for the experiments."""
    ask = replace(wanted.ask(), caller=caller, patient=patient)
    with span("recommendation"):
        if wanted.bundle is not None:
            treated = await _by(wanted.bundle, ask, service.holder)
        else:
            treated = await service.experiments.recommend(ask, current, service.holder)
        annotate(source=treated.answer.source, reason=treated.answer.reason)
    service.metrics.answers.answered(treated.answer)
    service.experiments.answered(treated, wanted.user_id, request_id)
    return Recommendations.of(
        request_id, wanted.user_id, treated.bundle, treated.answer, treated.arms
    )


async def _by(wanted: BundleWanted, ask: Ask, holder: Holder) -> Treated:
    """The answer of a version that the request names, outside of any experiment. Raises
    `ModelNotLoaded`."""
    with holder.take(Version(wanted.name, wanted.version)) as model:
        return Treated(await model.recommender.recommend(ask), model.bundle)
