"""The items: `GET` and `PUT /v1/items`; `GET`, `PUT` and `DELETE /v1/items/{id}`"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from model_store.edition import Edition
from service.api.answer_schemas import Item, Items
from service.api.item_schemas import BatchWritten, ItemBatch, ItemChange, ItemWritten
from service.api.paths import register_ids
from service.api.problems import documented
from service.api.scopes import READ, WRITE, ScopedRoute
from service.api.state import most, service_of
from service.browsing import browse
from service.catalogue.plan import Delete
from service.changing import change as make
from service.errors import InvalidInput, NotFound
from service.holder import InService

register_ids()
router = APIRouter(tags=["items"], route_class=ScopedRoute)

ItemInPath = Annotated[str, Path(min_length=1, max_length=256)]


@router.get("/v1/items", openapi_extra=READ, responses=documented(422))
async def read_items(
    request: Request,
    query: Annotated[str, Query(max_length=256, description="words of a title or an id")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    after: Annotated[
        str | None, Query(min_length=1, max_length=256, description="`next` of the page before")
    ] = None,
) -> Items:
    """The catalogue at present, or what has all the words of `query` in it, page by page: in the
    order of SIDs, so that what the model takes for alike stands together."""
    catalogue = service_of(request).holder.current.catalogue.current.catalogue
    behind = -1 if after is None else catalogue.row_of.get(after)
    if behind is None:
        raise InvalidInput("after", "names no item that is there")
    page = await asyncio.to_thread(browse, catalogue, query, behind, limit)
    items = [_item(catalogue, row) for row in page.rows]
    return Items(items=items, next=items[-1].item_id if page.more else None)


@router.get("/v1/items/{item_id:id}", openapi_extra=READ, responses=documented(404, 422))
async def read_item(item_id: str, request: Request) -> Item:
    """What is known of an item at present."""
    return _item(*known(service_of(request).holder.current, item_id))


@router.put("/v1/items", openapi_extra=WRITE, responses=documented(413, 422, 503))
async def put_items(batch: ItemBatch, request: Request) -> BatchWritten:
    """Makes many changes in their order; one that is refused hinders no other.

    Nothing was acknowledged unless the answer is 200. Repeating a batch changes nothing.
    """
    service = service_of(request)
    limit = most(request, service.settings.max_items)
    if len(batch.items) > limit:
        raise InvalidInput("items", f"has {len(batch.items)}, at most {limit} go at once")
    done = await make(service.holder, [item.change() for item in batch.items])
    return BatchWritten.of(batch, done)


@router.put("/v1/items/{item_id:id}", openapi_extra=WRITE, responses=documented(413, 422, 503))
async def put_item(item_id: ItemInPath, change: ItemChange, request: Request) -> ItemWritten:
    """Adds an item, or changes what is named of one. When this answers, the item is recommendable
    here as it is now, and soon after in every process that shares the Redis."""
    done = await make(service_of(request).holder, [change.put(item_id)])
    [outcome] = done.outcomes
    if isinstance(outcome, InvalidInput):
        raise outcome
    return ItemWritten.of(outcome, done.version)


@router.delete(
    "/v1/items/{item_id:id}", openapi_extra=WRITE, status_code=204, responses=documented(422, 503)
)
async def delete_item(item_id: ItemInPath, request: Request) -> None:
    """Removes an item, if it is there. No answer that this process begins after this one contains
    it; a history that speaks of it is still understood."""
    await make(service_of(request).holder, [Delete(item_id)])


def known(in_service: InService, item_id: str) -> tuple[Edition, int]:
    """The catalogue at present, and the row of an item in it. Raises `NotFound`."""
    catalogue = in_service.catalogue.current.catalogue
    row = catalogue.row_of.get(item_id)
    if row is None:
        bundle = in_service.bundle
        raise NotFound(f"bundle {bundle.name} {bundle.version} has no item {item_id!r}")
    return catalogue, row


def _item(catalogue: Edition, row: int) -> Item:
    attributes = catalogue.attributes(row)
    item_id, title = attributes.pop("item_id"), attributes.pop("title")
    return Item(item_id=item_id, title=title, sid=catalogue.sids[row], attributes=attributes)
