"""The bodies of requests and answers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
    model_validator,
)

from model_store.bundle import Bundle
from service import history
from service.answer import Answer, Ask, Pick
from service.eligibility.filter import Filter
from service.eligibility.policy import Seen
from service.settings import MAX_BEAM_WIDTH, MAX_DEADLINE_MS
from service.sources import Reason, Source

UserId = Annotated[str, Field(min_length=1, max_length=128)]
ItemId = Annotated[str, Field(min_length=1, max_length=256)]
EventId = Annotated[str, Field(min_length=1, max_length=256)]
ProfileName = Annotated[str, Field(min_length=1, max_length=64)]
MAX_EXCLUDED = 1000
FILTER = Field(None, description="what the attributes of each item must be")
EXPLAIN = Field(False, description="say of each item what each level of its SID added to the score")
ProfileValue = Annotated[str, Field(max_length=256)]
Profile = Annotated[dict[ProfileName, ProfileValue], Field(max_length=32)]
Scene = Annotated[str, Field(min_length=1, max_length=64)]


def _in_utc(timestamp: datetime) -> datetime:
    return timestamp if timestamp.utcoffset() is not None else timestamp.replace(tzinfo=UTC)


Timestamp = Annotated[
    datetime,
    AfterValidator(_in_utc),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}]}),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecommendationRequest(_Request):
    """Who asks, and for what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "mei", "k": 2, "profile": {"性别": "女", "年龄": "26-35岁"}},
                {"history": ["p02327", "p02147"], "exclude_seen": "history", "explain": True},
            ]
        }
    )

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
    explain: StrictBool = EXPLAIN
    filter: Filter | None = FILTER

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
            explain=self.explain,
            filter=self.filter,
        )


class BundleName(BaseModel):
    name: str
    version: int


class LevelShown(BaseModel):
    """What one code of a SID added, given those before it."""

    token: str
    log_probability: float = Field(description="of this code; those of all levels sum to the score")
    eligible_items: int = Field(
        description="items that might have been shown under the SID up to here"
    )


class RecommendedItem(BaseModel):
    rank: int = Field(description="from 1")
    item_id: str
    title: str | None
    sid: str
    score: float | None = Field(description="log-probability of the SID; null for popular items")
    source: Source = Field(description="another than the answer's where that one ran out")
    levels: list[LevelShown] | None = Field(
        None,
        description="the score by level, where the request said `explain`",
        exclude_if=lambda levels: levels is None,
    )

    @classmethod
    def ranked(cls, picks: Sequence[Pick]) -> list[Self]:
        return [
            cls(
                rank=rank,
                item_id=pick.item_id,
                title=pick.title,
                sid=pick.sid,
                score=pick.score,
                source=pick.source,
                levels=None
                if pick.levels is None
                else [
                    LevelShown(
                        token=level.token,
                        log_probability=level.log_probability,
                        eligible_items=level.eligible_items,
                    )
                    for level in pick.levels
                ],
            )
            for rank, pick in enumerate(picks, start=1)
        ]


class Recommendations(BaseModel):
    """Items in order, and how they came about."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "2bd0ad9fdf7ad19ec2b7baf3b72de417",
                    "user_id": "mei",
                    "bundle": {"name": "demo", "version": 1},
                    "source": "model",
                    "reason": None,
                    "items": [
                        {
                            "rank": 1,
                            "item_id": "p00638",
                            "title": "Quillon K3 4K Portable Display, 32 inch, Light Grey",
                            "sid": "<a_42><b_103><c_74><d_36>",
                            "score": -3.3977737426757812,
                        }
                    ],
                    "history_used": 2,
                    "unknown_items": 0,
                    "eligible_items": 2600,
                    "seen_items": 0,
                    "timing_ms": {"history": 0.52, "search": 25.62, "total": 26.38},
                }
            ]
        }
    )

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
    cached: bool = Field(
        False,
        description="whether it was computed for an earlier request that asked the same in the"
        " same state; left out where it was not",
        exclude_if=lambda cached: not cached,
    )

    @classmethod
    def of(cls, request_id: str, user_id: str | None, bundle: Bundle, answer: Answer) -> Self:
        return cls(
            request_id=request_id,
            user_id=user_id,
            bundle=BundleName(name=bundle.name, version=bundle.version),
            source=answer.source,
            reason=answer.reason,
            items=RecommendedItem.ranked(answer.picks),
            history_used=answer.history_used,
            unknown_items=answer.unknown_items,
            eligible_items=answer.eligible_items,
            seen_items=answer.seen_items,
            timing_ms=answer.timing_ms,
            cached=answer.cached,
        )


class NewEvent(_Request):
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

    def event(self) -> history.Event:
        return history.Event(self.event_id, self.user_id, self.item_id, self.type, self.timestamp)


class EventBatch(_Request):
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


class NewProfile(_Request):
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


class Item(BaseModel):
    item_id: str
    title: str | None
    sid: str
    attributes: dict[str, Any] = Field(description="whatever the item came with")
