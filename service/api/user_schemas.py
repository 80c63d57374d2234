"""The bodies about what is kept of users: events and profiles."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from service import history
from service.api.schemas import EventId, ItemId, Profile, RequestBody, Scene, UserId
from service.experiments.trail import Heard


def _no_number_in_text(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        float(given)
    except ValueError:
        return given
    raise ValueError("is no date; numbers go without quotes")


def _in_utc(timestamp: datetime) -> datetime:
    return timestamp if timestamp.utcoffset() is not None else timestamp.replace(tzinfo=UTC)


Timestamp = Annotated[
    datetime,
    BeforeValidator(_no_number_in_text),
    AfterValidator(_in_utc),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]}),
]


class NewEvent(RequestBody):
    """One thing that a user did."""

    event_id: EventId = Field(description="unique per user; one that is known is a duplicate")
    user_id: UserId
    item_id: ItemId
    type: str = Field("click", pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,31}$")
    timestamp: Timestamp = Field(
        description="ISO 8601 (UTC where it names no zone), or seconds or milliseconds since 1970"
    )

    scene: Scene | None = Field(
        None,
        description="where the item was shown: it gets popular there, if the bundle knows the"
        " scene; not part of the history",
    )

    request_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None,
        description="of the answer in which the item was shown: experiments count by it; not part"
        " of the history",
    )

    def event(self) -> history.Event:
        return history.Event(self.event_id, self.user_id, self.item_id, self.type, self.timestamp)

    def heard(self) -> Heard:
        return Heard(self.user_id, self.type, self.timestamp.timestamp(), self.request_id)


class EventBatch(RequestBody):
    """A batch of events. A bare JSON list of them is taken for the same."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "event_id": "1",
                            "user_id": "mei",
                            "item_id": "p02327",
                            "type": "click",
                            "timestamp": "2026-11-22T09:00:00Z",
                        }
                    ]
                }
            ]
        }
    )

    events: list[NewEvent] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"events": value} if isinstance(value, list) else value


class EventsAccepted(BaseModel):
    accepted: int = Field(description="events that were new and are kept")
    duplicates: int = Field(
        description="events that were known, or older than all of a full history"
    )


class StoredEvent(BaseModel):
    event_id: str
    item_id: str
    type: str
    timestamp: datetime


class UserHistory(BaseModel):
    """What is kept of a user."""

    user_id: str
    events: list[StoredEvent] = Field(description="oldest first")

    @classmethod
    def of(cls, user_id: str, events: list[history.Event]) -> Self:
        return cls(
            user_id=user_id,
            events=[
                StoredEvent(
                    event_id=event.event_id,
                    item_id=event.item_id,
                    type=event.type,
                    timestamp=event.timestamp,
                )
                for event in events
            ],
        )


class NewProfile(RequestBody):
    """What is known of a user, in the place of what was known before."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"profile": {"性别": "女", "年龄": "26-35岁"}}]}
    )

    profile: Profile = Field(
        description="fields that the bundle declares, with values that it declares for them"
    )


class UserProfile(BaseModel):
    """What is stored of a user; empty for a user never heard of."""

    user_id: str
    profile: dict[str, str]
