"""Which items an answer may contain, counted under any node of the trie.

A node is a range of catalogue rows, so the eligible items under it are a difference of two prefix
sums; a short list of excluded rows is counted by binary search instead and never touches the
whole catalogue. A search walks only nodes with a count above zero: it cannot run dry.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.sid.trie import Trie

_MANY = 1 << 17
"""Nodes of a depth that are looked at once and for all. Deeper down a search sees few of more."""


@dataclass(slots=True, eq=False)
class _Kept:
    """What searches under one mask share, so that each but the first has little to do.

    moved: the mask's counts on devices other than theirs
    nodes: by depth, a trie's rows there and which of its nodes have an allowed item
    """

    moved: dict[torch.device, Tensor] = field(default_factory=dict)
    nodes: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def on(self, allowed: Tensor, device: torch.device) -> Tensor:
        if allowed.device == device:
            return allowed
        if device not in self.moved:
            self.moved[device] = allowed.to(device)
        return self.moved[device]

    def open(self, allowed: Tensor, trie: Trie, depth: int) -> Tensor:
        """Which nodes of `depth` have an allowed item, (nodes,) bool."""
        rows = trie.first_row[depth]
        if depth not in self.nodes or self.nodes[depth][0] is not rows:
            before = allowed.index_select(0, rows)
            self.nodes[depth] = rows, before[1:] != before[:-1]
        return self.nodes[depth][1]


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Items allowed by a mask, less single excluded ones.

    allowed:  (items + 1,) int32, allowed items before each row; None allows all
    excluded: (m,) int64, rows taken out, sorted, distinct, and themselves allowed
    """

    allowed: Tensor | None
    excluded: Tensor
    _kept: _Kept = field(default_factory=_Kept, repr=False, compare=False)

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

    def without(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> "Eligibility":
        """The same less more rows; what the mask was counted into is shared, not copied."""
        more = torch.from_numpy(np.unique(np.asarray(rows, np.int64)))
        if self.allowed is not None:
            more = more[self.allowed[more + 1] > self.allowed[more]]
        if len(self.excluded):
            more = torch.cat([self.excluded, more]).unique()
        return Eligibility(self.allowed, more, self._kept)

    def total(self, n_items: int) -> int:
        """Eligible items in the whole catalogue."""
        allowed = n_items if self.allowed is None else int(self.allowed[-1])
        return allowed - len(self.excluded)

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
        return self.among(np.arange(first, behind), behind - first)

    def among(self, rows: npt.NDArray[np.int64], most: int) -> list[int]:
        """The first `most` eligible ones of `rows`, in their order."""
        found: list[int] = []
        start, size = 0, 4 * most
        # Usually enough stand at the front; where they do not, all are looked at in few steps.
        while start < len(rows) and len(found) < most:
            part = torch.from_numpy(rows[start : start + size])
            found += part[self.count(part, part + 1) > 0].tolist()
            start, size = start + size, 4 * size
        return found[:most]


class EligibilityBatch:
    """The eligibilities of several queries, counted in one pass over all of their nodes.

    Queries under the same rules share one mask, which is looked up once for all of them. Raises
    ValueError for a mask over another number of items.
    """

    def __init__(self, queries: Sequence[Eligibility | None], n_items: int) -> None:
        self._n_items, self._queries = n_items, len(queries)
        masks = [None if q is None else q.allowed for q in queries]
        if any(mask is not None and len(mask) != n_items + 1 for mask in masks):
            raise ValueError(f"an eligibility that is not over {n_items} items")
        shared = {id(q.allowed): q for q in queries if q is not None and q.allowed is not None}
        self._masks = [q.allowed for q in shared.values() if q.allowed is not None]
        self._kept = [q._kept for q in shared.values()]
        slots = {id(mask): slot for slot, mask in enumerate(self._masks)}
        # Slot -1: everything is allowed.
        self._slot = torch.tensor([slots.get(id(mask), -1) for mask in masks])
        # Query q's excluded rows live at q·(items + 1) + row: one sorted list serves all queries.
        keys = [
            q.excluded + i * (n_items + 1)
            for i, q in enumerate(queries)
            if q is not None and len(q.excluded)
        ]
        self._excluded = torch.cat(keys) if keys else None
        self._one_mask = len(self._masks) == 1 and all(mask is not None for mask in masks)

    @property
    def unrestricted(self) -> bool:
        return not self._masks and self._excluded is None

    def to(self, device: torch.device | str) -> "EligibilityBatch":
        """Moves the tables to `device` and returns self."""
        self._slot = self._slot.to(device)
        place = self._slot.device
        self._masks = [
            kept.on(mask, place) for mask, kept in zip(self._masks, self._kept, strict=True)
        ]
        self._excluded = None if self._excluded is None else self._excluded.to(device)
        return self

    def count(self, query: Tensor, first: Tensor, behind: Tensor) -> Tensor:
        """Eligible items of query number `query` (n,) in its range first..behind-1, shape (n,)."""
        count = self._allowed(query, first, behind)
        if self._excluded is not None:
            base = query * (self._n_items + 1)
            out = torch.searchsorted(self._excluded, base + behind)
            count = count - (out - torch.searchsorted(self._excluded, base + first))
        return count

    def open(self, trie: Trie, depth: int, query: Tensor, node: Tensor) -> Tensor:
        """Whether there is an eligible item under each of `node` (n,) at `depth`, for query number
        `query` (n,). Nodes ascend, query by query, as those of a search do."""
        if self._excluded is None and self._one_mask and trie.n_nodes(depth) <= _MANY:
            return self._kept[0].open(self._masks[0], trie, depth).index_select(0, node)
        first, behind = trie.rows(depth, node)
        count = self._allowed(query, first, behind)
        if self._excluded is None or len(count) == 0:
            return count > 0
        if self._queries > 1:
            base = query * (self._n_items + 1)
            first, behind = base + first, base + behind
        # Excluded rows are fewer than nodes: each looks for its node, not each node for its rows.
        place = torch.searchsorted(behind, self._excluded, right=True).clamp_(max=len(count) - 1)
        inside = first.index_select(0, place) <= self._excluded
        inside &= behind.index_select(0, place) > self._excluded
        return count.index_add_(0, place, inside.to(count.dtype), alpha=-1) > 0

    def _allowed(self, query: Tensor, first: Tensor, behind: Tensor) -> Tensor:
        if self._one_mask:
            return _between(self._masks[0], first, behind)
        count = (behind - first).int()
        if self._masks:
            slot = self._slot[query]
            for number, mask in enumerate(self._masks):
                own = (slot == number).nonzero().flatten()
                count[own] = _between(mask, first[own], behind[own])
        return count


def _between(allowed: Tensor, first: Tensor, behind: Tensor) -> Tensor:
    """Allowed items in first..behind-1, all of shape (n,)."""
    # On a CPU `index_select` takes a third of the time of an index in brackets.
    return allowed.index_select(0, behind) - allowed.index_select(0, first)
