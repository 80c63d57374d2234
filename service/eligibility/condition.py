"""Conditions bound to a catalogue's columns: checked, in normal form, and equal by content.

Two filters that say the same in other words mostly become equal conditions, so that a cache can
hold one mask for both.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from service.eligibility.column import Column, Key, Mask, WrongType
from service.eligibility.columns import Columns
from service.eligibility.filter import Filter, Test, Value
from service.errors import InvalidInput

_LISTED = 20


class Condition(ABC):
    """Immutable, hashable."""

    @abstractmethod
    def mask(self, columns: Columns) -> Mask:
        """The items for which it holds, (items,), a new array."""


@dataclass(frozen=True, slots=True)
class OneOf(Condition):
    name: str
    keys: frozenset[Key]

    def mask(self, columns: Columns) -> Mask:
        return columns[self.name].one_of(self.keys)


@dataclass(frozen=True, slots=True)
class EachOf(Condition):
    name: str
    keys: frozenset[Key]

    def mask(self, columns: Columns) -> Mask:
        return columns[self.name].each_of(self.keys)


@dataclass(frozen=True, slots=True)
class Compare(Condition):
    name: str
    operator: str
    bound: Key

    def mask(self, columns: Columns) -> Mask:
        return columns[self.name].compare(self.operator, self.bound)


@dataclass(frozen=True, slots=True)
class Present(Condition):
    name: str

    def mask(self, columns: Columns) -> Mask:
        return columns[self.name].present()


@dataclass(frozen=True, slots=True)
class Not(Condition):
    part: Condition

    def mask(self, columns: Columns) -> Mask:
        found = self.part.mask(columns)
        return np.logical_not(found, out=found)


@dataclass(frozen=True, slots=True)
class All(Condition):
    parts: frozenset[Condition]

    def mask(self, columns: Columns) -> Mask:
        found = None
        for part in self.parts:
            mask = part.mask(columns)
            found = mask if found is None else np.logical_and(found, mask, out=found)
        return np.ones(len(columns), bool) if found is None else found


@dataclass(frozen=True, slots=True)
class Any(Condition):
    parts: frozenset[Condition]

    def mask(self, columns: Columns) -> Mask:
        found = np.zeros(len(columns), bool)
        for part in self.parts:
            found |= part.mask(columns)
        return found


def both(*conditions: Condition) -> Condition:
    """All of them: flattened, and just the one where there is one."""
    parts = frozenset(
        part
        for condition in conditions
        for part in (condition.parts if isinstance(condition, All) else (condition,))
    )
    return next(iter(parts)) if len(parts) == 1 else All(parts)


def bind(wanted: Filter, columns: Columns, field: str) -> Condition:
    """The condition of a filter that stands at `field` of a request.

    Raises `InvalidInput`, with the path below `field`, for an attribute that is not there and for
    a value or a test that its type does not allow. A filter that nothing satisfies is in order.
    """
    parts = [
        _bind_test(name, test, columns, f"{field}.{name}") for name, test in wanted.tests.items()
    ]
    parts += [bind(part, columns, f"{field}.and.{place}") for place, part in enumerate(wanted.and_)]
    alternatives = wanted.alternatives()
    if alternatives is not None:
        bound = [
            bind(part, columns, f"{field}.or.{place}") for place, part in enumerate(alternatives)
        ]
        parts.append(bound[0] if len(bound) == 1 else Any(frozenset(bound)))
    if wanted.not_ is not None:
        parts.append(Not(bind(wanted.not_, columns, f"{field}.not")))
    return both(*parts)


def _bind_test(name: str, test: Test, columns: Columns, field: str) -> Condition:
    try:
        column = columns[name]
    except KeyError:
        some = ", ".join(columns.names[:_LISTED])
        more = ", …" if len(columns.names) > _LISTED else ""
        raise InvalidInput(field, f"no such attribute; there are: {some}{more}") from None
    parts: list[Condition] = []
    for operator, operand in test.given():
        path = f"{field}.{operator}"
        if operator not in column.operators:
            known = ", ".join(column.operators)
            raise InvalidInput(path, f"{name} holds {column.holds}, which know only: {known}")
        match operator:
            case "eq":
                parts.append(OneOf(name, _keys(column, [operand], path, numbered=False)))
            case "in":
                parts.append(OneOf(name, _keys(column, operand, path)))
            case "all":
                keys = _keys(column, operand, path)
                found = len(keys) == len(set(operand))
                parts.append(EachOf(name, keys) if found else Any(frozenset()))
            case "exists":
                parts.append(Present(name) if operand else Not(Present(name)))
            case _:
                parts.append(Compare(name, operator, operand))
    return both(*parts)


def _keys(
    column: Column, values: list[Value], path: str, *, numbered: bool = True
) -> frozenset[Key]:
    """What stands for `values` in the column, those aside that no item has."""
    try:
        return column.keys(values)
    except WrongType as error:
        field = f"{path}.{error.place}" if numbered else path
        message = f"{values[error.place]!r:.40} does not go with {column.holds}"
        raise InvalidInput(field, message) from None
