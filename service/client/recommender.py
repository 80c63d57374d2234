"""The client: one method for each thing that can be asked of a service."""

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from service.client.answers import (
    BatchResults,
    BatchWritten,
    Description,
    EventsAccepted,
    Item,
    ItemWritten,
    Recommendations,
    SearchResults,
    UserHistory,
    UserProfile,
)
from service.client.calls import Calls, Patience
from service.client.errors import Unavailable, Unexpected
from service.client.wants import Ask, Change, Event, NamedAsk, SearchAsk, SimilarAsk

_URL = "http://127.0.0.1:8000"
Answer = TypeVar("Answer", bound=BaseModel)


class Recommender:
    """A client of one service, or of a balancer before several. Close it, or use it as a context
    manager: it keeps connections.

    `url` is by default `SIDREC_URL`, else the service of this machine; `key` is by default
    `SIDREC_KEY`, else none. A call ends within `timeout_s` with all its attempts, of which there
    are `retries` after the first. Repeated are only calls that change nothing when they are
    repeated: all but `request`, unless it is told so.

    Every method raises `ClientError`: `Problem` where the service said why not, `Unreachable` where
    no answer came.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 3,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        key = key or os.environ.get("SIDREC_KEY")
        self._client = httpx2.AsyncClient(
            base_url=url or os.environ.get("SIDREC_URL") or _URL,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            transport=transport,
        )
        self._calls = Calls(self._client, Patience(timeout_s, retries))

    async def recommend(self, user_id: str | None = None, **wanted: Unpack[Ask]) -> Recommendations:
        """The items that a user will most likely want next."""
        body = _body(user_id=user_id, **wanted)
        return await self._ask(Recommendations, "POST", "/v1/recommendations", body)

    async def recommend_batch(self, requests: Iterable[NamedAsk]) -> BatchResults:
        """The same for many at once. One that cannot be used fails alone: look at each status."""
        body = {"requests": [dict(one) for one in requests]}
        return await self._ask(BatchResults, "POST", "/v1/recommendations/batch", body)

    async def similar(self, item_id: str, **wanted: Unpack[SimilarAsk]) -> Recommendations:
        """What people take next who took this item."""
        path = f"/v1/items/{_part(item_id)}/similar"
        return await self._ask(Recommendations, "POST", path, _body(**wanted))

    async def search(self, query: str, **wanted: Unpack[SearchAsk]) -> SearchResults:
        """Items for words, where the bundle was trained for that; else raises `Conflict`."""
        return await self._ask(SearchResults, "POST", "/v1/search", _body(query=query, **wanted))

    async def describe(self, item_id: str) -> Description:
        """The title that the model writes for an item; `Conflict` where it cannot."""
        return await self._ask(Description, "GET", f"/v1/items/{_part(item_id)}/describe")

    async def add_events(self, events: Iterable[Event]) -> EventsAccepted:
        """Keeps what users did. When this returns, it is stored; where it raises, nothing may be
        taken for stored, and repeating the same events, with their ids, is safe."""
        body = {"events": [_whole(event) for event in events]}
        return await self._ask(EventsAccepted, "POST", "/v1/events", body)

    async def history(self, user_id: str) -> UserHistory:
        """What is kept of what a user did; no events for a user never heard of."""
        return await self._ask(UserHistory, "GET", f"/v1/users/{_part(user_id)}/history")

    async def profile(self, user_id: str) -> UserProfile:
        """What is stored of what a user is."""
        return await self._ask(UserProfile, "GET", f"/v1/users/{_part(user_id)}/profile")

    async def put_profile(self, user_id: str, profile: Mapping[str, str]) -> UserProfile:
        """Stores it in the place of what was there."""
        path = f"/v1/users/{_part(user_id)}/profile"
        return await self._ask(UserProfile, "PUT", path, {"profile": dict(profile)})

    async def forget(self, user_id: str) -> None:
        """Removes everything that is kept of a user."""
        await self.request("DELETE", f"/v1/users/{_part(user_id)}", idempotent=True)

    async def item(self, item_id: str) -> Item:
        """What is known of an item at present."""
        return await self._ask(Item, "GET", f"/v1/items/{_part(item_id)}")

    async def put_item(
        self,
        item_id: str,
        *,
        title: str | None = None,
        sid: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> ItemWritten:
        """Adds an item, or changes what is named of one. To empty a title use `put_items`."""
        body = _body(title=title, sid=sid, attributes=attributes)
        return await self._ask(ItemWritten, "PUT", f"/v1/items/{_part(item_id)}", body)

    async def put_items(self, changes: Sequence[Change]) -> BatchWritten:
        """Many changes in their order; look at `refused`, because one hinders no other."""
        body = {"items": [dict(change) for change in changes]}
        return await self._ask(BatchWritten, "PUT", "/v1/items", body)

    async def delete_item(self, item_id: str) -> None:
        """Removes an item, if it is there."""
        await self.request("DELETE", f"/v1/items/{_part(item_id)}", idempotent=True)

    async def ready(self) -> bool:
        """Whether the service can answer now, at the first attempt."""
        try:
            await self.request("GET", "/readyz")
        except (Unavailable, Unexpected):
            return False
        return True

    async def request(
        self, method: str, path: str, body: Any = None, *, idempotent: bool = False
    ) -> Any:
        """Any other call, such as `POST /v1/models`: the answer's document as it came. Sent once,
        unless `idempotent` says that sending it again changes nothing."""
        return await self._calls.send(method, path, body, idempotent=idempotent)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _ask(self, answer: type[Answer], method: str, path: str, body: Any = None) -> Answer:
        content = await self._calls.send(method, path, body, idempotent=True)
        try:
            return answer.model_validate(content)
        except ValidationError as error:
            raise Unexpected(f"{method} {path}: {error}", 200) from None


def _body(**given: Any) -> dict[str, Any]:
    """What is None is left to the service."""
    return {key: value for key, value in given.items() if value is not None}


def _part(identifier: str) -> str:
    """An identifier as one part of a path, slashes included."""
    return quote(identifier, safe="")


def _whole(event: Event) -> dict[str, Any]:
    """An event that is kept once however often it is sent: its id and time are made here."""
    made = {"event_id": uuid.uuid4().hex, "timestamp": datetime.now(UTC), **event}
    if isinstance(moment := made["timestamp"], datetime):
        made["timestamp"] = moment.isoformat()
    return made
