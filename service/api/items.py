"""`GET /v1/items/{id}`"""

from fastapi import APIRouter, Request

from model_store.bundle import Bundle
from service.api.paths import register_ids
from service.api.problems import documented
from service.api.schemas import Item
from service.api.state import service_of
from service.errors import NotFound

register_ids()
router = APIRouter(tags=["items"])


@router.get("/v1/items/{item_id:id}", responses=documented(404, 422))
async def read_item(item_id: str, request: Request) -> Item:
    """What the bundle in service knows of an item."""
    bundle = service_of(request).holder.current.bundle
    row = known_row(bundle, item_id)
    attributes = bundle.catalogue.attributes(row)
    del attributes["item_id"], attributes["title"]
    return Item(
        item_id=item_id,
        title=bundle.catalogue.titles[row],
        sid=bundle.sids[row],
        attributes=attributes,
    )


def known_row(bundle: Bundle, item_id: str) -> int:
    """The catalogue row of an item; raises `NotFound`."""
    row = bundle.catalogue.row_of.get(item_id)
    if row is None:
        raise NotFound(f"bundle {bundle.name} {bundle.version} has no item {item_id!r}")
    return row
