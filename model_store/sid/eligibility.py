"""Which items an answer may contain, counted under any node of the trie.

A node is a range of catalogue rows, so the eligible items under it are a difference of two prefix
sums; a short list of excluded rows is counted by binary search instead and never touches the
whole catalogue. A search walks only nodes with a count above zero: it cannot run dry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Items allowed by a mask, less single excluded ones.

    allowed:  (items + 1,) int32, allowed items before each row; None allows all
    excluded: (m,) int64, rows taken out, sorted, distinct, and themselves allowed
    """

    allowed: Tensor | None
    excluded: Tensor

    @classmethod
    def of(
        cls,
        mask: npt.NDArray[np.bool_] | None = None,
        excluded: Sequence[int] | npt.NDArray[np.int64] = (),
    ) -> "Eligibility":
        """From a mask over catalogue rows (True: may be shown) and rows that may not be."""
        rows = np.unique(np.asarray(excluded, np.int64))
        if mask is None:
            return cls(None, torch.from_numpy(rows))
        allowed = np.zeros(len(mask) + 1, np.int32)
        np.cumsum(mask, out=allowed[1:])
        return cls(torch.from_numpy(allowed), torch.from_numpy(rows[mask[rows]]))

    def count(self, first: Tensor, behind: Tensor) -> Tensor:
        """Eligible items in the row ranges first..behind-1, of any shape."""
        if self.allowed is None:
            count = behind - first
        else:
            count = self.allowed[behind.long()] - self.allowed[first.long()]
        if len(self.excluded):
            out = torch.searchsorted(self.excluded, behind.long())
            count = count - (out - torch.searchsorted(self.excluded, first.long()))
        return count

    def rows(self, first: int, behind: int) -> list[int]:
        """The eligible rows among first..behind-1, ascending."""
        rows = torch.arange(first, behind)
        return [int(row) for row in rows[self.count(rows, rows + 1) > 0]]


class EligibilityBatch:
    """The eligibilities of several queries, counted in one pass over all of their nodes."""

    def __init__(self, queries: Sequence[Eligibility | None], n_items: int) -> None:
        self._n_items = n_items
        masks = [q.allowed for q in queries if q is not None and q.allowed is not None]
        slots = iter(range(1, len(masks) + 1))
        self._slot = torch.tensor(
            [0 if q is None or q.allowed is None else next(slots) for q in queries]
        )
        everything = torch.arange(n_items + 1, dtype=torch.int32) if masks else None
        self._allowed = torch.stack([everything, *masks]) if everything is not None else None
        # Query q's excluded rows live at q·(items + 1) + row: one sorted list serves all queries.
        keys = [
            q.excluded + i * (n_items + 1)
            for i, q in enumerate(queries)
            if q is not None and len(q.excluded)
        ]
        self._excluded = torch.cat(keys) if keys else None

    @property
    def unrestricted(self) -> bool:
        return self._allowed is None and self._excluded is None

    def to(self, device: torch.device | str) -> "EligibilityBatch":
        """Moves the tables to `device` and returns self."""
        self._slot = self._slot.to(device)
        self._allowed = None if self._allowed is None else self._allowed.to(device)
        self._excluded = None if self._excluded is None else self._excluded.to(device)
        return self

    def count(self, query: Tensor, first: Tensor, behind: Tensor) -> Tensor:
        """Eligible items of query number `query` (n,) in its range first..behind-1, shape (n,)."""
        first, behind = first.long(), behind.long()
        if self._allowed is None:
            count = behind - first
        else:
            slot = self._slot[query]
            count = (self._allowed[slot, behind] - self._allowed[slot, first]).long()
        if self._excluded is not None:
            base = query * (self._n_items + 1)
            out = torch.searchsorted(self._excluded, base + behind)
            count = count - (out - torch.searchsorted(self._excluded, base + first))
        return count
