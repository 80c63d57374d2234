"""What users did: `POST /v1/events`, `GET /v1/users/{id}/history`, `DELETE /v1/users/{id}`"""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request

from service.api.paths import register_ids
from service.api.problems import documented
from service.api.schemas import EventBatch, EventsAccepted, NewEvent, UserHistory
from service.api.state import service_of
from service.errors import InvalidInput
from service.settings import Settings

register_ids()
router = APIRouter(tags=["users"])

UserInPath = Annotated[str, Path(min_length=1, max_length=128)]


@router.post("/v1/events", responses=documented(413, 422, 503))
async def append_events(batch: EventBatch, request: Request) -> EventsAccepted:
    """Adds events to the histories of their users; repeating a batch changes nothing.

    A bare list of events is accepted as well. Nothing was acknowledged unless the answer is 200.
    """
    service = service_of(request)
    _check(batch.events, service.settings)
    new = await service.history.append([event.event() for event in batch.events])
    return EventsAccepted(accepted=len(new), duplicates=len(batch.events) - len(new))


@router.get("/v1/users/{user_id:id}/history", responses=documented(422, 503))
async def read_history(user_id: UserInPath, request: Request) -> UserHistory:
    """The events kept of a user, oldest first; none for a user never heard of."""
    known = await service_of(request).history.read(user_id)
    return UserHistory.of(user_id, known.events)


@router.delete("/v1/users/{user_id:id}", status_code=204, responses=documented(422, 503))
async def forget_user(user_id: UserInPath, request: Request) -> None:
    """Removes everything that is kept of a user."""
    await service_of(request).history.forget(user_id)


def _check(events: list[NewEvent], settings: Settings) -> None:
    """Raises `InvalidInput` for what the schema does not know: settings, and the time."""
    if len(events) > settings.max_events:
        raise InvalidInput("events", f"has {len(events)}, at most {settings.max_events} go at once")
    latest = datetime.now(UTC) + timedelta(seconds=settings.future_tolerance_s)
    for position, event in enumerate(events):
        if event.timestamp > latest:
            raise InvalidInput(f"events.{position}.timestamp", "lies in the future")
