"""Whether an attribute fits its column: a catalogue's types come from the items of its bundle."""

import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

from service.errors import InvalidInput

_OWN = ("item_id", "title")
"""Columns that are not attributes of the interface."""


def check_attributes(attributes: Mapping[str, Any], schema: pa.Schema) -> None:
    """Raises `InvalidInput` for the first attribute that the catalogue does not have, or whose
    value has another type than its column."""
    names = [name for name in schema.names if name not in _OWN]
    for name, value in attributes.items():
        if name not in names:
            raise InvalidInput(
                f"attributes.{name}", f"is not known; there are {', '.join(names) or 'none'}"
            )
        check_value(f"attributes.{name}", value, schema.field(name).type)


def check_value(field: str, value: Any, kind: pa.DataType) -> None:
    """Raises `InvalidInput` unless `value`, as JSON has it, is of a column's type; null is."""
    if value is None:
        return
    if kinds.is_list(kind) or kinds.is_large_list(kind):
        if not isinstance(value, list):
            raise InvalidInput(field, f"must be a list, not {_shown(value)}")
        for place, part in enumerate(value):
            check_value(f"{field}.{place}", part, kind.value_type)
    elif kinds.is_struct(kind):
        names = [part.name for part in kind]
        if not isinstance(value, dict) or set(value) - set(names):
            raise InvalidInput(field, f"must be an object of {', '.join(names)}")
        for name, part in value.items():
            check_value(f"{field}.{name}", part, kind.field(name).type)
    else:
        _check_scalar(field, value, kind)


def _check_scalar(field: str, value: Any, kind: pa.DataType) -> None:
    if kinds.is_boolean(kind):
        wanted, fits = "true or false", isinstance(value, bool)
    elif kinds.is_integer(kind):
        wanted, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif kinds.is_floating(kind):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        wanted, fits = "a number", fits and math.isfinite(value)
    elif kinds.is_null(kind):
        wanted, fits = "null, as it is for every item", False
    else:
        wanted, fits = "a string", isinstance(value, str)
    if not fits:
        raise InvalidInput(field, f"must be {wanted}, not {_shown(value)}")
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, OverflowError, UnicodeError, TypeError) as error:
        raise InvalidInput(field, f"{_shown(value)} does not fit into {kind}") from error


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
