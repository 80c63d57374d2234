"""What the service answers. `docs/openapi.json` describes every field.

These are not the service's own schemas, which bring the model along; a test holds both to the same
document. What a newer service adds is passed over: fields, and words such as a new `source`, which
are therefore plain strings here.
"""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FieldError(_Answer):
    """What is wrong with one field of a request; empty for the whole body."""

    field: str
    message: str


class ProblemDetails(_Answer):
    """Why a request was refused or failed (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = ""
    request_id: str = ""
    errors: list[FieldError] = []

    @property
    def kind(self) -> str:
        """The last word of the type, such as `overloaded`."""
        return self.type.rpartition(":")[2]


class BundleName(_Answer):
    name: str
    version: int


class Level(_Answer):
    """What one code of a SID added to its score."""

    token: str
    log_probability: float
    eligible_items: int


class RecommendedItem(_Answer):
    rank: int
    item_id: str
    title: str | None
    sid: str
    score: float | None
    source: str
    levels: list[Level] | None = None


class BeamPrefix(_Answer):
    """The beginning of a SID, and what became of it at a level of the search."""

    prefix: str
    token: str | None
    parent: int | None
    log_probability: float
    score: float
    fate: str
    eligible_items: int


class BeamLevel(_Answer):
    level: str
    width: int
    considered: int
    removed: int
    prefixes: list[BeamPrefix]


class ArmName(_Answer):
    experiment: str
    arm: str


class Recommendations(_Answer):
    """Items in order, and how they came about."""

    request_id: str
    user_id: str | None
    bundle: BundleName
    source: str
    reason: str | None
    items: list[RecommendedItem]
    history_used: int
    unknown_items: int
    eligible_items: int
    seen_items: int | None
    timing_ms: dict[str, float]
    cached: bool = False
    beam: list[BeamLevel] | None = None
    experiments: list[ArmName] = []


class BatchResult(_Answer):
    """What one request of a batch would have been answered by itself."""

    status: int
    answer: Recommendations | None = None
    problem: ProblemDetails | None = None


class BatchResults(_Answer):
    request_id: str
    results: list[BatchResult]


class SearchResults(_Answer):
    request_id: str
    bundle: BundleName
    items: list[RecommendedItem]
    eligible_items: int
    timing_ms: dict[str, float]
    beam: list[BeamLevel] | None = None


class Description(_Answer):
    """What the model takes an item for: the title that it writes for the item's SID."""

    request_id: str
    bundle: BundleName
    item_id: str
    sid: str
    title: str | None
    text: str
    complete: bool
    timing_ms: dict[str, float]


class EventsAccepted(_Answer):
    accepted: int
    duplicates: int


class StoredEvent(_Answer):
    event_id: str
    item_id: str
    type: str
    timestamp: datetime


class UserHistory(_Answer):
    """Events, oldest first."""

    user_id: str
    events: list[StoredEvent]


class UserProfile(_Answer):
    user_id: str
    profile: dict[str, str]


class Item(_Answer):
    item_id: str
    title: str | None
    sid: str
    attributes: dict[str, Any]


class ItemWritten(_Answer):
    item_id: str
    status: str
    sid: str | None
    catalogue_version: int


class BatchOutcome(_Answer):
    """What became of one change; `error` says why it was refused."""

    item_id: str
    status: str | None
    sid: str | None
    error: FieldError | None


class BatchWritten(_Answer):
    catalogue_version: int
    refused: int
    items: list[BatchOutcome]
