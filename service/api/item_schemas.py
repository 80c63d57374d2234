"""The bodies of changes to the catalogue, and of what became of them."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from service.api.problems import FieldError
from service.api.schemas import ItemId
from service.catalogue.live import Done
from service.catalogue.plan import Change, Delete, Outcome, Put, Status
from service.errors import InvalidInput

AttributeName = Annotated[str, Field(min_length=1, max_length=128)]


class ItemChange(BaseModel):
    """A new item, or what changes of one. What is not named stays as it is; null empties it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "title": "Quillon K3 Wireless Mouse, Teal",
                    "attributes": {"brand": "Quillon", "category": "mice", "price": 129.9},
                }
            ]
        },
    )

    title: Annotated[str, Field(max_length=4096)] | None = Field(None, description="for people")
    sid: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None,
        description="in the words of the bundle in service; a new item without one gets the SID"
        " that the bundle's quantizer finds for its text, and an item that has one keeps it",
    )
    attributes: dict[AttributeName, Any] = Field(
        {}, max_length=256, description="of the catalogue's names and types"
    )

    def put(self, item_id: str) -> Put:
        title = {"title": self.title} if "title" in self.model_fields_set else {}
        return Put(item_id, {**self.attributes, **title}, self.sid)


class NamedChange(ItemChange):
    """One change of a batch."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item_id": "p01068", "attributes": {"price": 99.9}}]}
    )

    item_id: ItemId
    deleted: StrictBool = Field(
        False, description="removes the item; nothing else may be said of it"
    )

    @model_validator(mode="after")
    def _only_deleted(self) -> Self:
        if self.deleted and self.model_fields_set - {"item_id", "deleted"}:
            raise ValueError("an item that is deleted has no title, sid or attributes")
        return self

    def change(self) -> Change:
        return Delete(self.item_id) if self.deleted else self.put(self.item_id)


class ItemBatch(BaseModel):
    """Changes, made in their order, each whatever becomes of the others."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {"item_id": "p01068", "attributes": {"price": 99.9}},
                        {"item_id": "p02247", "deleted": True},
                    ]
                }
            ]
        },
    )

    items: list[NamedChange] = Field(min_length=1)


class ItemWritten(BaseModel):
    item_id: str
    status: Status
    sid: str | None = Field(description="null for an item that is gone")
    catalogue_version: int = Field(description="the change is in this version and all later ones")

    @classmethod
    def of(cls, outcome: Outcome, version: int) -> Self:
        return cls(
            item_id=outcome.item_id,
            status=outcome.status,
            sid=outcome.sid,
            catalogue_version=version,
        )


class BatchOutcome(BaseModel):
    item_id: str
    status: Status | None = Field(description="null for a change that was refused")
    sid: str | None
    error: FieldError | None = Field(description="why it was refused")


class BatchWritten(BaseModel):
    """What became of the changes, in their order."""

    catalogue_version: int
    refused: int
    items: list[BatchOutcome]

    @classmethod
    def of(cls, batch: ItemBatch, done: Done) -> Self:
        outcomes = [
            BatchOutcome(
                item_id=wanted.item_id,
                status=None if isinstance(outcome, InvalidInput) else outcome.status,
                sid=None if isinstance(outcome, InvalidInput) else outcome.sid,
                error=FieldError(field=f"items.{place}.{outcome.field}", message=outcome.reason)
                if isinstance(outcome, InvalidInput)
                else None,
            )
            for place, (wanted, outcome) in enumerate(zip(batch.items, done.outcomes, strict=True))
        ]
        refused = sum(outcome.error is not None for outcome in outcomes)
        return cls(catalogue_version=done.version, refused=refused, items=outcomes)
