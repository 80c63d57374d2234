"""The bodies of requests and answers."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, model_validator

from model_store.bundle import Bundle
from service import history
from service.eligibility.filter import Filter
from service.eligibility.policy import Seen
from service.recommender import Answer, Ask
from service.settings import MAX_BEAM_WIDTH, MAX_DEADLINE_MS
from service.sources import Reason, Source

UserId = Annotated[str, Field(min_length=1, max_length=128)]
ItemId = Annotated[str, Field(min_length=1, max_length=256)]
EventId = Annotated[str, Field(min_length=1, max_length=256)]
ProfileName = Annotated[str, Field(min_length=1, max_length=64)]
MAX_EXCLUDED = 1000
ProfileValue = Annotated[str, Field(max_length=256)]
Profile = Annotated[dict[ProfileName, ProfileValue], Field(max_length=32)]
Scene = Annotated[str, Field(min_length=1, max_length=64)]


def _in_utc(timestamp: datetime) -> datetime:
    return timestamp if timestamp.utcoffset() is not None else timestamp.replace(tzinfo=UTC)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecommendationRequest(_Request):
    """Who asks, and for what."""

    user_id: UserId | None = Field(None, description="whose stored history is read")
    k: Annotated[StrictInt, Field(ge=1, le=200)] = Field(10, description="how many items")
    history: list[ItemId] | None = Field(
        None, description="item ids, oldest first; used instead of the stored history"
    )
    profile: Profile | None = Field(
        None,
        description="what the bundle's prompt says of a user; fields that are not sent come from"
        " the stored profile, which is read with the stored history",
    )
    scene: Scene | None = Field(
        None, description="where the items will be shown; one that the bundle knows"
    )
    deadline_ms: Annotated[StrictInt, Field(ge=1, le=MAX_DEADLINE_MS)] | None = Field(
        None,
        description="milliseconds until the answer is due, from its source that can keep to it;"
        " by default what the deployment says",
    )
    beam_width: Annotated[StrictInt, Field(ge=1, le=MAX_BEAM_WIDTH)] | None = Field(
        None, description="SIDs kept at each step of the search, at least k"
    )
    exclude: list[ItemId] = Field(
        [], max_length=MAX_EXCLUDED, description="item ids that the answer must not contain"
    )
    exclude_seen: Seen | None = Field(
        None,
        description="which items of the user's past it must not contain, stored ones included:"
        " those bought, or all; by default what the deployment says",
    )
    filter: Filter | None = Field(None, description="what the attributes of each item must be")

    def ask(self) -> Ask:
        return Ask(
            k=self.k,
            user_id=self.user_id,
            history=self.history,
            profile=self.profile or {},
            scene=self.scene,
            beam_width=self.beam_width,
            deadline_ms=self.deadline_ms,
            exclude=self.exclude,
            exclude_seen=self.exclude_seen,
            filter=self.filter,
        )


class BundleName(BaseModel):
    name: str
    version: int


class RecommendedItem(BaseModel):
    rank: int = Field(description="from 1")
    item_id: str
    title: str | None
    sid: str
    score: float | None = Field(description="log-probability of the SID; null for popular items")
    source: Source = Field(description="another than the answer's where that one ran out")


class Recommendations(BaseModel):
    """Items in order, and how they came about."""

    request_id: str
    user_id: str | None
    bundle: BundleName
    source: Source = Field(
        description="where the first item comes from: the model by the history (and profile and"
        " scene), the model by profile and scene alone, what is popular in the scene, or at all"
    )
    reason: Reason | None = Field(
        description="why the source before that one did not answer; null where none is before"
    )
    items: list[RecommendedItem]
    history_used: int = Field(description="history items in the prompt")
    unknown_items: int = Field(description="history items that the bundle does not know")
    eligible_items: int = Field(
        description="items that the answer could have contained; it has fewer than k items"
        " only where this is fewer"
    )
    seen_items: int | None = Field(
        description="items left out because the user has seen them; null where the stored"
        " history could not be read, so that some may be in the answer"
    )
    timing_ms: dict[str, float] = Field(description="milliseconds per stage, and in total")

    @classmethod
    def of(cls, request_id: str, user_id: str | None, bundle: Bundle, answer: Answer) -> Self:
        return cls(
            request_id=request_id,
            user_id=user_id,
            bundle=BundleName(name=bundle.name, version=bundle.version),
            source=answer.source,
            reason=answer.reason,
            items=[
                RecommendedItem(
                    rank=rank,
                    item_id=pick.item_id,
                    title=pick.title,
                    sid=pick.sid,
                    score=pick.score,
                    source=pick.source,
                )
                for rank, pick in enumerate(answer.picks, start=1)
            ],
            history_used=answer.history_used,
            unknown_items=answer.unknown_items,
            eligible_items=answer.eligible_items,
            seen_items=answer.seen_items,
            timing_ms=answer.timing_ms,
        )


class NewEvent(_Request):
    """One thing that a user did."""

    event_id: EventId = Field(description="unique per user; one that is known is a duplicate")
    user_id: UserId
    item_id: ItemId
    type: str = Field("click", pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,31}$")
    timestamp: Annotated[datetime, AfterValidator(_in_utc)] = Field(
        description="ISO 8601 (UTC where it names no zone), or seconds or milliseconds since 1970"
    )

    scene: Scene | None = Field(
        None,
        description="where the item was shown: it gets popular there, if the bundle knows the"
        " scene; not part of the history",
    )

    def event(self) -> history.Event:
        return history.Event(self.event_id, self.user_id, self.item_id, self.type, self.timestamp)


class EventBatch(_Request):
    """A batch of events. A bare JSON list of them is taken for the same."""

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


class NewProfile(_Request):
    """What is known of a user, in the place of what was known before."""

    profile: Profile = Field(
        description="fields that the bundle declares, with values that it declares for them"
    )


class UserProfile(BaseModel):
    """What is stored of a user; empty for a user never heard of."""

    user_id: str
    profile: dict[str, str]


class Item(BaseModel):
    item_id: str
    title: str | None
    sid: str
    attributes: dict[str, Any] = Field(description="whatever the item came with")
