"""Every version of every item of a catalogue that changes, one line each.

A line is written once and never changed. So catalogues of different moments share one ledger: each
knows which lines its rows are, and whoever still reads an older one is not disturbed by the writer
of the next. For one writer and any readers, on any threads.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_store.sid import Codes

T = TypeVar("T")
Lines = npt.NDArray[np.int64]

_CHUNKS = 32
"""Parts of a column at most: looking a value up costs more with each."""


class Ledger:
    """ids, titles, sids: by line; table: all attributes, a row for each line written so far; codes:
    those of the SIDs, likewise, with room behind them."""

    def __init__(
        self,
        table: pa.Table,
        ids: Sequence[str],
        titles: Sequence[str | None],
        sids: Sequence[str],
        codes: Codes,
    ) -> None:
        """Of items that have one version each."""
        self.ids, self.titles, self.sids = list(ids), list(titles), list(sids)
        self.table = table
        self.codes = codes
        self._before = [-1] * len(self.ids)
        self._last = {item_id: line for line, item_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.table)

    @property
    def items(self) -> int:
        """How many ids have a line."""
        return len(self._last)

    def write(self, table: pa.Table, sids: Sequence[str], codes: Codes) -> Lines:
        """Adds a line for each row of `table`, with the columns of the others; their numbers."""
        first = len(self.ids)
        if not len(codes):
            return np.empty(0, np.int64)
        if first + len(codes) > len(self.codes):
            grown = np.empty((2 * (first + len(codes)), codes.shape[1]), self.codes.dtype)
            grown[:first] = self.codes[:first]
            self.codes = grown
        self.codes[first : first + len(codes)] = codes
        ids = [str(item_id) for item_id in table.column("item_id").to_pylist()]
        self.titles += table.column("title").to_pylist()
        self.sids += sids
        self.ids += ids
        joined = pa.concat_tables([self.table, table])
        many = joined.num_columns and joined.column(0).num_chunks > _CHUNKS
        self.table = joined.combine_chunks() if many else joined
        for line, item_id in enumerate(ids, start=first):
            self._before.append(self._last.get(item_id, -1))
            self._last[item_id] = line
        return np.arange(first, first + len(ids))

    def line(self, item_id: str, behind: int) -> int | None:
        """The latest version of an item among the lines before `behind`."""
        line = self._last.get(item_id, -1)
        while line >= behind:
            line = self._before[line]
        return line if line >= 0 else None

    def compacted(self) -> tuple["Ledger", Lines]:
        """A ledger of the last version of each item, and the new number of each line, or -1."""
        kept = np.sort(np.fromiter(self._last.values(), np.int64, len(self._last)))
        number = np.full(len(self), -1, np.int64)
        number[kept] = np.arange(len(kept))
        ids, titles, sids = (
            [column[line] for line in kept.tolist()]
            for column in (self.ids, self.titles, self.sids)
        )
        table = self.table.take(pa.array(kept))
        return Ledger(table, ids, titles, sids, self.codes[kept]), number


class ByRow(Sequence[T]):
    """A column of a ledger as the rows of one catalogue see it."""

    __slots__ = ("_lines", "_values")

    def __init__(self, values: list[T], lines: Lines) -> None:
        self._values = values
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, row: int) -> T: ...
    @overload
    def __getitem__(self, row: slice) -> list[T]: ...
    def __getitem__(self, row: int | slice) -> T | list[T]:
        if isinstance(row, slice):
            return [self._values[line] for line in self._lines[row].tolist()]
        value: T = self._values[self._lines[row]]
        return value

    def __iter__(self) -> Iterator[T]:
        return iter(self[:])


class RowOf(Mapping[str, int]):
    """The rows of one catalogue by item id.

    rows: (lines,) the row of each line that the catalogue knows, or -1
    """

    __slots__ = ("_ledger", "_rows")

    def __init__(self, ledger: Ledger, rows: npt.NDArray[np.int32]) -> None:
        self._ledger = ledger
        self._rows = rows

    def __getitem__(self, item_id: str) -> int:
        line = self._ledger.line(item_id, len(self._rows))
        row = -1 if line is None else int(self._rows[line])
        if row < 0:
            raise KeyError(item_id)
        return row

    def __iter__(self) -> Iterator[str]:
        return (self._ledger.ids[line] for line in np.flatnonzero(self._rows >= 0).tolist())

    def __len__(self) -> int:
        return int((self._rows >= 0).sum())
