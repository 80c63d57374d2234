"""One attribute of a catalogue, laid out so that any test of it is one pass over one array.

Texts become numbers once: a row holds the code of its text, and a test looks its own texts up
before it looks at any row.

Every method that returns a mask returns a new (items,) array.
"""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.eligibility.filter import Value

Mask = npt.NDArray[np.bool_]
Key = int | float

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
# Up to so many values one comparison each is faster than looking every row up.
_FEW = 4
_TEXTS, _NUMBERS, _FLAGS = frozenset({str}), frozenset({int, float}), frozenset({bool})


class WrongType(Exception):
    """A value is not of the type of the column; `place` is its number among those asked for."""

    def __init__(self, place: int) -> None:
        self.place = place


class Column(ABC):
    """One attribute of all items.

    holds:     what its values are, in the words of a message
    operators: the tests that make sense here, by their names in JSON
    """

    holds: str
    operators: Collection[str]

    @abstractmethod
    def keys(self, values: Sequence[Value]) -> frozenset[Key]:
        """What stands for `values` in this column, those aside that no item can have.

        Raises `WrongType`.
        """

    @abstractmethod
    def one_of(self, keys: Collection[Key]) -> Mask:
        """Items that have one of these values."""

    @abstractmethod
    def present(self) -> Mask:
        """Items that have a value."""

    def each_of(self, keys: Collection[Key]) -> Mask:
        """Items that have all of these values."""
        raise NotImplementedError

    def compare(self, operator: str, bound: Key) -> Mask:
        """Items whose number is gt, gte, lt or lte `bound`."""
        raise NotImplementedError


class Coded(Column):
    """Texts, or truth values: codes (items,) of distinct values, -1 for none."""

    operators = ("eq", "in", "exists")

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.holds = "true or false" if pa.types.is_boolean(column.type) else "texts"
        self._types = _types(column.type)
        self._code, self._codes = _encode(column)

    def keys(self, values: Sequence[Value]) -> frozenset[Key]:
        return _codes_of(values, self._code, self._types)

    def one_of(self, keys: Collection[Key]) -> Mask:
        return _one_of(self._codes, keys, len(self._code))

    def present(self) -> Mask:
        return self._codes >= 0


class Numbers(Column):
    """Numbers; a missing one fails every test."""

    holds = "numbers"
    operators = ("eq", "in", *_COMPARE, "exists")

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._integers = pa.types.is_integer(column.type)
        if not self._integers:
            column = pc.cast(column, pa.float64())
        values = pc.fill_null(column, 0 if self._integers else math.nan)
        self._values = np.asarray(values.to_numpy())
        has = np.asarray(column.is_valid().to_numpy())
        self._has = has if self._integers else ~np.isnan(self._values)
        self._complete = bool(self._has.all())

    def keys(self, values: Sequence[Value]) -> frozenset[Key]:
        _check(values, _NUMBERS)
        if not self._integers:
            return frozenset(map(float, values))
        return frozenset(int(number) for number in values if number == int(number))

    def one_of(self, keys: Collection[Key]) -> Mask:
        if len(keys) <= _FEW:
            return self._known(_any_of(self._values, keys))
        distinct, codes = self._encoded
        wanted = np.array(sorted(keys))
        places = np.searchsorted(distinct, wanted).clip(max=len(distinct) - 1)
        table = np.zeros(len(distinct), bool)
        table[places[distinct[places] == wanted]] = True
        return self._known(table.take(codes))

    @cached_property
    def _encoded(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The distinct numbers, ascending, and the place of each row's."""
        distinct, codes = np.unique(self._values, return_inverse=True)
        return distinct, codes.astype(np.min_scalar_type(len(distinct)))

    def present(self) -> Mask:
        return self._has.copy()

    def compare(self, operator: str, bound: Key) -> Mask:
        if self._integers:
            # Above 2.5 means above 2, at least 2.5 means at least 3: no row becomes a float.
            bound = math.floor(bound) if operator in ("gt", "lte") else math.ceil(bound)
        return self._known(_COMPARE[operator](self._values, bound))

    def _known(self, found: Mask) -> Mask:
        return found if self._complete else np.logical_and(found, self._has, out=found)


class Several(Column):
    """Any number of texts or numbers an item: the rows of each distinct value, side by side."""

    holds = "several values"
    operators = ("eq", "in", "all", "exists")

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._n_items = len(column)
        self._types = _types(column.type.value_type)
        self._code, codes = _encode(pc.list_flatten(column))
        rows = np.concatenate([np.empty(0, np.int32), *_parents(column)])
        has = codes >= 0
        codes, rows = codes[has], rows[has]
        self._rows = rows[np.argsort(codes, kind="stable")]
        self._behind = np.cumsum(np.bincount(codes, minlength=len(self._code))).tolist()

    def keys(self, values: Sequence[Value]) -> frozenset[Key]:
        return _codes_of(values, self._code, self._types)

    def one_of(self, keys: Collection[Key]) -> Mask:
        found = np.zeros(self._n_items, bool)
        for key in keys:
            found[self._rows_of(int(key))] = True
        return found

    def each_of(self, keys: Collection[Key]) -> Mask:
        found = np.ones(self._n_items, bool)
        for key in keys:
            found &= self.one_of([key])
        return found

    def present(self) -> Mask:
        found = np.zeros(self._n_items, bool)
        found[self._rows] = True
        return found

    def _rows_of(self, code: int) -> npt.NDArray[np.int32]:
        first = self._behind[code - 1] if code else 0
        return self._rows[first : self._behind[code]]


class Ids(Column):
    """The items' own ids."""

    holds = "texts"
    operators = ("eq", "in")

    def __init__(self, row_of: Mapping[str, int], n_items: int) -> None:
        self._row_of = row_of
        self._n_items = n_items

    def keys(self, values: Sequence[Value]) -> frozenset[Key]:
        return _codes_of(values, self._row_of, _TEXTS)

    def one_of(self, keys: Collection[Key]) -> Mask:
        found = np.zeros(self._n_items, bool)
        found[np.fromiter(keys, np.int64, len(keys))] = True
        return found

    def present(self) -> Mask:
        return np.ones(self._n_items, bool)


def is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_))


def _types(type_: pa.DataType) -> frozenset[type]:
    """Of values that can be compared with those of an Arrow type."""
    if pa.types.is_boolean(type_):
        return _FLAGS
    return _TEXTS if is_text(type_) else _NUMBERS


def _check(values: Sequence[Value], types: frozenset[type]) -> None:
    if not types.issuperset(map(type, values)):
        raise WrongType(next(i for i, value in enumerate(values) if type(value) not in types))


def _codes_of(
    values: Sequence[Value], code: Mapping[Any, int], types: frozenset[type]
) -> frozenset[Key]:
    _check(values, types)
    keys = set(map(code.get, values))
    keys.discard(None)
    return cast(frozenset[Key], frozenset(keys))


def _encode(column: pa.ChunkedArray) -> tuple[dict[Value, int], npt.NDArray[Any]]:
    """The number of each distinct value, and of each row's, -1 where there is none."""
    encoded = pc.dictionary_encode(column).unify_dictionaries()
    values = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    parts = [chunk.indices.fill_null(-1).to_numpy() for chunk in encoded.chunks]
    # Half the bytes are half the time of a pass.
    small = np.min_scalar_type(-len(values) - 1)
    codes = np.concatenate([np.empty(0, small), *parts]).astype(small)
    return {value: code for code, value in enumerate(values)}, codes


def _parents(column: pa.ChunkedArray) -> Iterator[npt.NDArray[np.int32]]:
    """The row of each value in each chunk of lists."""
    first = 0
    for chunk in column.chunks:
        yield (pc.list_parent_indices(chunk).to_numpy() + first).astype(np.int32)
        first += len(chunk)


def _any_of(values: npt.NDArray[Any], keys: Collection[Key]) -> Mask:
    found = np.zeros(len(values), bool)
    for key in keys:
        found |= values == key
    return found


def _one_of(codes: npt.NDArray[Any], keys: Collection[Key], n_values: int) -> Mask:
    if len(keys) <= _FEW:
        return _any_of(codes, keys)
    table = np.zeros(n_values + 1, bool)  # the last place is that of -1
    table[np.fromiter(keys, np.int64, len(keys))] = True
    return table.take(codes)
