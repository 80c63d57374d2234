"""What can be asked for, as dictionaries whose keys a type checker knows.

What is left out is left to the service; `docs/openapi.json` describes every field.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, Required, TypedDict


class _Search(TypedDict, total=False):
    k: int
    beam_width: int
    filter: Mapping[str, Any]
    exclude: Sequence[str]
    explain: bool
    trace: bool


class SearchAsk(_Search, total=False):
    """How a search by words is narrowed and shown."""


class SimilarAsk(_Search, total=False):
    """The same for items like one, and where they will be shown."""

    scene: str


class Version(TypedDict):
    """A version of a bundle that the service has loaded."""

    name: str
    version: int


class Ask(_Search, total=False):
    """What a recommendation may be like, and what is known of the user beside what is stored."""

    scene: str
    history: Sequence[str]
    profile: Mapping[str, str]
    deadline_ms: int
    exclude_seen: Literal["nothing", "purchased", "history"]
    bundle: Version


class NamedAsk(Ask, total=False):
    """One request of a batch."""

    user_id: str


class Event(TypedDict):
    """One thing that a user did. `event_id` is made where it is left out, `timestamp` is now then;
    a time without a zone is UTC."""

    user_id: str
    item_id: str
    type: NotRequired[str]
    event_id: NotRequired[str]
    timestamp: NotRequired[datetime | str | float]
    scene: NotRequired[str]
    request_id: NotRequired[str]


class Change(TypedDict, total=False):
    """What becomes of an item: what is left out stays as it is."""

    item_id: Required[str]
    title: str | None
    sid: str
    attributes: Mapping[str, Any]
    deleted: bool
