"""Which items stand beside which in histories: the counts behind item-to-item recommendations.

    neighbours.parquet   one row an item: `rows`, its neighbours, and `weights`, how strongly it
                         votes for each, the strongest first

It knows rows and counts; no ids, no users, no model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from model_store.errors import BundleError

NEIGHBOURS = "neighbours.parquet"

_TIE = 1e-4
"""The most popular item's part of a count, so that equal counts go by popularity."""

Rows = npt.NDArray[np.int64]


class Counting(BaseModel):
    """What makes two items neighbours. Where order says much, as it does in what people buy one
    after the other, count backward pairs less; where it does not, as in a shop that people walk
    through, count them alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reach: int = Field(default=2, ge=1, description="steps that they stand apart at most")
    backward: float = Field(
        default=1.0, ge=0, le=1, description="votes of an item for one before it; for one behind: 1"
    )
    by_distance: bool = Field(default=False, description="k steps apart count 1/k, not 1")


class Voting(BaseModel):
    """Which items of a history vote, and how strongly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    last: int = Field(default=10, ge=1, description="items of a history that vote, the newest")
    decay: float = Field(default=0.8, gt=0, le=1, description="of a vote with each item behind it")


@dataclass(frozen=True)
class Neighbours:
    """n items. Row i votes for `rows[first[i]:first[i + 1]]`, the strongest vote first.

    first: (n + 1,) int64; rows: (m,) int32; weights: (m,) float32, above 0
    """

    first: Rows
    rows: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    @classmethod
    def count(
        cls, histories: Iterable[Sequence[int]], n_items: int, counting: Counting
    ) -> "Neighbours":
        """From rows in the order of time, one sequence a user."""
        flat, user = _flat(histories)
        pairs = [np.empty((3, 0))]
        for step in range(1, counting.reach + 1):
            inside = user[step:] == user[: len(user) - step]
            one, other = flat[:-step][inside], flat[step:][inside]
            weight = np.full(len(one), 1 / step if counting.by_distance else 1.0)
            pairs += [
                np.stack([one, other, weight]),
                np.stack([other, one, weight * counting.backward]),
            ]
        votes, row, weights = np.concatenate(pairs, axis=1)
        popularity = np.bincount(flat, minlength=n_items)
        entry = (votes * n_items + row).astype(np.int64)  # floats are exact up to 2**53
        keys, place = np.unique(entry, return_inverse=True)
        total = np.bincount(place, weights, minlength=len(keys)).astype(np.float64)
        keys, total = keys[total > 0], total[total > 0]
        total += popularity[keys % n_items] / (popularity.max(initial=0) + 1) * _TIE
        return cls._of(keys // n_items, keys % n_items, total, n_items)

    @classmethod
    def _of(
        cls, votes: Rows, rows: Rows, weights: npt.NDArray[np.floating], n_items: int
    ) -> "Neighbours":
        order = np.lexsort((rows, -weights, votes))
        first = np.zeros(n_items + 1, np.int64)
        np.cumsum(np.bincount(votes, minlength=n_items), out=first[1:])
        return cls(first, rows[order].astype(np.int32), weights[order].astype(np.float32))

    @classmethod
    def read(cls, path: Path) -> "Neighbours":
        """Reads a file that `write` made. Raises `BundleError` for anything else."""
        try:
            table = pq.read_table(path, columns=["rows", "weights"])
            rows, weights = (table.column(name).combine_chunks() for name in ("rows", "weights"))
            kinds = rows.values.type, weights.values.type
            if kinds != (pa.int32(), pa.float32()) or rows.null_count or weights.null_count:
                raise ValueError(f"lists of {kinds[0]} and {kinds[1]}, or no lists at all")
            if not rows.offsets.equals(weights.offsets):
                raise ValueError("an item has another number of neighbours than of weights")
            first = rows.offsets.to_numpy().astype(np.int64)
            return cls(first, rows.values.to_numpy(), weights.values.to_numpy())
        except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
            raise BundleError([f"{path.name}: no table of neighbours: {error}"]) from error

    def write(self, path: Path) -> None:
        first = pa.array(self.first.astype(np.int32))
        columns = {
            "rows": pa.ListArray.from_arrays(first, pa.array(self.rows)),
            "weights": pa.ListArray.from_arrays(first, pa.array(self.weights)),
        }
        pq.write_table(pa.table(columns), path, compression="zstd")

    def __len__(self) -> int:
        return len(self.first) - 1

    def problems(self, n_items: int) -> list[str]:
        """What keeps it from being the table of a catalogue, one line each."""
        if len(self) != n_items:
            return [f"{NEIGHBOURS}: {len(self)} items, the catalogue has {n_items}"]
        if len(self.rows) and not (self.rows.min() >= 0 and self.rows.max() < n_items):
            return [f"{NEIGHBOURS}: a neighbour is not one of the {n_items} items"]
        if not (np.isfinite(self.weights) & (self.weights > 0)).all():
            return [f"{NEIGHBOURS}: a weight is not a number above 0"]
        return []

    def strongest(self, most: int) -> "Neighbours":
        """At most `most` neighbours of each item."""
        votes = self._votes()
        kept = np.arange(len(votes)) - self.first[votes] < most
        rows = self.rows[kept].astype(np.int64)
        return self._of(votes[kept], rows, self.weights[kept], len(self))

    def moved(self, to: Sequence[int]) -> "Neighbours":
        """The same for a catalogue in another order: row i becomes `to[i]`."""
        place = np.asarray(to, np.int64)
        return self._of(place[self._votes()], place[self.rows], self.weights, len(self))

    def votes(self, history: Sequence[int], voting: Voting) -> tuple[Rows, npt.NDArray[np.float64]]:
        """What the newest items of a history (rows, oldest first) vote for: rows (n,), the most
        wanted first, and their votes (n,)."""
        newest = history[-voting.last :][::-1]
        parts = [slice(self.first[row], self.first[row + 1]) for row in newest]
        rows = np.concatenate([np.empty(0, np.int32), *(self.rows[part] for part in parts)])
        weights = [self.weights[part] * voting.decay**age for age, part in enumerate(parts)]
        rows, place = np.unique(rows, return_inverse=True)
        votes = np.bincount(place, np.concatenate([np.empty(0), *weights]), minlength=len(rows))
        order = np.argsort(-votes, kind="stable")
        return rows[order].astype(np.int64), votes[order].astype(np.float64)

    def _votes(self) -> Rows:
        """Whose vote each entry is (m,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))


def _flat(histories: Iterable[Sequence[int]]) -> tuple[Rows, Rows]:
    """The rows of all histories one behind the other, and whose each is."""
    listed = [np.asarray(history, np.int64) for history in histories]
    user = np.repeat(np.arange(len(listed)), [len(history) for history in listed])
    return np.concatenate([np.empty(0, np.int64), *listed]), user
