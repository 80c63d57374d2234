"""What users did and are: `POST /v1/events`, `GET /v1/users/{id}/history`,
`PUT` and `GET /v1/users/{id}/profile`, `DELETE /v1/users/{id}`"""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request

from service.api.paths import register_ids
from service.api.problems import documented
from service.api.scopes import READ, WRITE, ScopedRoute
from service.api.state import most, service_about, service_of
from service.api.user_schemas import (
    EventBatch,
    EventsAccepted,
    NewEvent,
    NewProfile,
    UserHistory,
    UserProfile,
)
from service.errors import InvalidInput
from service.forgetting import forget
from service.settings import Settings

register_ids()
router = APIRouter(tags=["users"], route_class=ScopedRoute)

UserInPath = Annotated[str, Path(min_length=1, max_length=128)]


@router.post("/v1/events", openapi_extra=WRITE, responses=documented(413, 422, 503))
async def append_events(batch: EventBatch, request: Request) -> EventsAccepted:
    """Adds events to the histories of their users; repeating a batch changes nothing.

    A bare list of events is accepted as well. Nothing was acknowledged unless the answer is 200.
    """
    service = service_of(request)
    _check(batch.events, most(request, service.settings.max_events), service.settings)
    events = [event.event() for event in batch.events]
    new = await service.history.append(events)
    service.popularity.count((events[i], batch.events[i].scene) for i in new)
    # All of them: those that came before may have been lost behind an answer that was not 200.
    service.experiments.heard(event.heard() for event in batch.events)
    duplicates = len(batch.events) - len(new)
    service.metrics.answers.events(len(new), duplicates)
    return EventsAccepted(accepted=len(new), duplicates=duplicates)


@router.get("/v1/users/{user_id:id}/history", openapi_extra=READ, responses=documented(422, 503))
async def read_history(user_id: UserInPath, request: Request) -> UserHistory:
    """The events kept of a user, oldest first; none for a user never heard of."""
    known = await service_about(request, user_id).history.read(user_id)
    return UserHistory.of(user_id, known.events)


@router.put(
    "/v1/users/{user_id:id}/profile", openapi_extra=WRITE, responses=documented(413, 422, 503)
)
async def put_profile(user_id: UserInPath, wanted: NewProfile, request: Request) -> UserProfile:
    """Keeps a profile for the prompts of this user, in the place of the one before.

    It expires like a history, and is renewed with it; an empty one is forgotten at once. Fields
    and values that the bundle in service does not declare are refused, because in a prompt they
    would silently say nothing.
    """
    service = service_about(request, user_id)
    service.holder.current.recommender.profiles.check_stored(wanted.profile)
    await service.history.put_profile(user_id, wanted.profile)
    return UserProfile(user_id=user_id, profile=wanted.profile)


@router.get("/v1/users/{user_id:id}/profile", openapi_extra=READ, responses=documented(422, 503))
async def read_profile(user_id: UserInPath, request: Request) -> UserProfile:
    """The profile that is stored of a user; an empty one where there is none."""
    known = await service_about(request, user_id).history.read(user_id)
    return UserProfile(user_id=user_id, profile=known.profile)


@router.delete(
    "/v1/users/{user_id:id}", openapi_extra=WRITE, status_code=204, responses=documented(422, 503)
)
async def forget_user(user_id: UserInPath, request: Request) -> None:
    """Removes everything that is kept of a user: history, profile, cached answers, and
    its part in experiments that are not over.

    What is counted over all users, such as what is popular, names nobody and stays.
    """
    await forget(user_id, service_about(request, user_id).keepers)


def _check(events: list[NewEvent], limit: int, settings: Settings) -> None:
    """Raises `InvalidInput` for what the schema does not know: settings, and the time."""
    if len(events) > limit:
        raise InvalidInput("events", f"has {len(events)}, at most {limit} go at once")
    latest = datetime.now(UTC) + timedelta(seconds=settings.future_tolerance_s)
    for position, event in enumerate(events):
        if event.timestamp > latest:
            raise InvalidInput(f"events.{position}.timestamp", "lies in the future")
