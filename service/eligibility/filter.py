"""The filter language: conditions over the attributes of an item, as JSON. Knows no catalogue.

    {"category": "keyboards"}                    equal to
    {"brand": {"in": ["A", "B"]}}                one of
    {"tags": {"all": ["red", "new"]}}            has each of several values
    {"price": {"gte": 10, "lt": 50}}             within a range
    {"stock": {"exists": true}}                  has a value at all
    {"not": {"brand": "A"}}                      everything else, items without a brand included
    {"or": [{"category": "mice"}, {"price": {"lt": 5}}]}

All entries of one object must hold, and so must all tests of one attribute. An attribute with
several values is equal to each of them, and `in` a list that has one of them.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    TypeAdapter,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

MAX_DEPTH = 8
"""Objects inside of one another, by and, or, not."""
MAX_TESTS = 64
"""Tests of attributes in one filter."""
MAX_VALUES = 1000
"""Values in one list."""
MAX_NAME = 64
"""Characters in the name of an attribute."""

Value = str | int | float | bool


def _value(value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    raise ValueError("must be a text, a number, true or false")


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    if not math.isfinite(value) or abs(value) >= 2**63:
        raise ValueError("must be a number within 64 bits")
    return value


def _not_nullable(schema: dict[str, Any]) -> None:
    """In the schema of a field that may be absent, but not null."""
    schema.update(schema.pop("anyOf")[0])
    del schema["default"]


_VALUE_SCHEMA = {"type": ["string", "number", "boolean"]}

AnyValue = Annotated[Any, AfterValidator(_value), WithJsonSchema(_VALUE_SCHEMA)]
AnyNumber = Annotated[Any, AfterValidator(_number), WithJsonSchema({"type": "number"})]


def _values(values: list[Any]) -> list[Any]:
    # Lists are long, and nearly always of texts: all of those are looked at in one go.
    return values if set(map(type, values)) <= {str, bool} else _EACH.validate_python(values)


_EACH = TypeAdapter(list[AnyValue])
Values = Annotated[
    list[Any],
    Field(max_length=MAX_VALUES),
    AfterValidator(_values),
    WithJsonSchema({"type": "array", "items": _VALUE_SCHEMA, "maxItems": MAX_VALUES}),
]


class Test(BaseModel):
    """What one attribute must be; all that is given must hold. A bare value means `eq`."""

    __test__ = False  # pytest collects classes of this name

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_alias=True)

    eq: AnyValue = Field(None, description="is, or has, this value")
    in_: Values = Field([], alias="in", description="is, or has, one of these values")
    all: Values = Field([], description="has each of these values")
    gt: AnyNumber = None
    gte: AnyNumber = None
    lt: AnyNumber = None
    lte: AnyNumber = None
    exists: StrictBool = Field(True, description="has a value at all, or has none")

    @model_validator(mode="before")
    @classmethod
    def _bare_value(cls, given: Any) -> Any:
        if isinstance(given, dict | Test):
            return given
        if isinstance(given, list):
            raise ValueError('several values go into "in" (one of them) or "all" (each of them)')
        return {"eq": _value(given)}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"needs one of: {', '.join(self.operators())}")
        return self

    @classmethod
    def operators(cls) -> list[str]:
        """Their names in JSON."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    def given(self) -> Iterator[tuple[str, Any]]:
        """The operators that are there, by their names in JSON, and their operands."""
        for name, field in type(self).model_fields.items():
            if name in self.model_fields_set:
                yield field.alias or name, getattr(self, name)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        form = handler.resolve_ref_schema(handler(core))
        for operand in form["properties"].values():
            operand.pop("default", None)
        return {"anyOf": [_VALUE_SCHEMA, {**form, "minProperties": 1}], "title": "Test"}


class Filter(BaseModel):
    """Conditions that must all hold. A key that is not `and`, `or` or `not` names an attribute."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        validate_by_alias=True,
        json_schema_extra={"examples": [{"category": "keyboards", "price": {"gte": 10, "lt": 50}}]},
    )
    __pydantic_extra__: dict[Annotated[str, Field(max_length=MAX_NAME)], Test]

    and_: list["Filter"] = Field([], alias="and", description="all of them hold")
    or_: list["Filter"] = Field([], alias="or", description="at least one of them holds")
    not_: "Filter | None" = Field(
        None, alias="not", description="it does not hold", json_schema_extra=_not_nullable
    )

    @field_validator("not_", mode="before")
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("must be a filter")
        return value

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        # Each object is checked after those inside it, so that neither recursion goes deep.
        if self.depth() > MAX_DEPTH:
            raise ValueError(f"is more than {MAX_DEPTH} objects deep")
        if self.size() > MAX_TESTS:
            raise ValueError(f"has more than {MAX_TESTS} tests")
        return self

    @property
    def tests(self) -> dict[str, Test]:
        """By attribute."""
        return self.__pydantic_extra__

    def alternatives(self) -> list["Filter"] | None:
        """Those of `or`; None without one. None of no alternatives holds."""
        return self.or_ if "or_" in self.model_fields_set else None

    def parts(self) -> list["Filter"]:
        """The filters directly inside this one."""
        return [*self.and_, *self.or_, *([self.not_] if self.not_ is not None else [])]

    def names(self) -> set[str]:
        """The attributes that are tested, here or inside."""
        return set(self.tests).union(*(part.names() for part in self.parts()))

    def depth(self) -> int:
        return 1 + max((part.depth() for part in self.parts()), default=0)

    def size(self) -> int:
        """How many tests, and objects inside, there are."""
        return len(self.tests) + sum(1 + part.size() for part in self.parts())
