"""The prefix trie of a catalogue's SIDs, as flat arrays.

Items are sorted by their codes, so every node of the trie is a contiguous range of items, and the
children of a node are a contiguous range of nodes one level deeper (compressed sparse rows). Codes
stay local to their codebook: no table is as large as a vocabulary. A SID shorter than the deepest
one continues with the code `END`, so that every item has a path of exactly `depth` codes and the
levels need no special case; following `END` costs no probability.

Work per call is proportional to the children that come back, never to the number of items. The
flattened layout follows the idea of STATIC (Su et al., 2026); the item ranges are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.errors import SidError
from model_store.sid.spec import END, Codes


def sort_order(codes: Codes) -> npt.NDArray[np.int64]:
    """The order in which items stand in a trie: by codes, `END` first; equal SIDs keep theirs."""
    key = _keys(codes)
    if key is None:
        return np.lexsort(codes.T[::-1]).astype(np.int64)
    return np.argsort(key, kind="stable")


@dataclass(frozen=True, slots=True)
class Children:
    """Children of a list of nodes, in the order of the list, then by code.

    `parent` (m,) is the position in the list, `node` (m,) the node one level deeper, `code` (m,)
    the code on the way to it or `END`.
    """

    parent: Tensor
    node: Tensor
    code: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Trie:
    """Nodes at depth 0 (the root) to `depth` (the leaves), numbered by code order in each depth.

    codes:       (items, depth) the sorted code matrix, `END` behind a shorter SID
    code:        for depth d ≥ 1 at index d-1: (nodes,) the code on the way to the node
    first_row:   per depth: (nodes + 1,) the items under node i are rows first[i] to first[i+1]-1
    first_child: per depth but the last: (nodes + 1,) likewise its children, one level deeper
    has_end:     per level: whether any code there is `END`
    growing_before: per level with an `END`: (nodes + 1,) how many nodes before node i grow, that
                 is have a child other than `END`; None for a level where all of them do
    """

    codes: Tensor
    code: tuple[Tensor, ...]
    first_row: tuple[Tensor, ...]
    first_child: tuple[Tensor, ...]
    has_end: tuple[bool, ...]
    growing_before: tuple[Tensor | None, ...]

    @classmethod
    def build(cls, codes: Codes, *, trusted: bool = False) -> "Trie":
        """Builds the trie of items in SID order, `codes` (items, depth) sorted by `sort_order`.

        Raises `SidError` when there are no items, when they are not sorted, or when a code
        follows an `END`; `trusted` codes are those of which the caller knows better.
        """
        if not trusted:
            _check(codes)
        items, depth = codes.shape
        matrix = torch.from_numpy(np.ascontiguousarray(codes, _code_type(codes)))
        starts = [torch.tensor([0, items], dtype=torch.int32)]
        code, first_child = [], []
        opens = torch.zeros(items, dtype=torch.bool)
        opens[0] = True
        for d in range(depth):
            opens[1:] |= matrix[1:, d] != matrix[:-1, d]
            first = opens.nonzero().flatten()
            code.append(matrix[:, d].index_select(0, first))
            starts.append(torch.cat([first, first.new_tensor([items])]).to(torch.int32))
            # A node's first child is the one that its first row opens.
            opened = opens.cumsum(0, dtype=torch.int32).index_select(0, starts[-2][:-1])
            first_child.append(torch.cat([opened - 1, opened.new_tensor([len(first)])]))
        has_end = tuple(bool((level == END).any()) for level in code)
        growing = tuple(
            _growing(level, first) if ends else None
            for level, first, ends in zip(code, first_child, has_end, strict=True)
        )
        return cls(matrix, tuple(code), tuple(starts), tuple(first_child), has_end, growing)

    @property
    def depth(self) -> int:
        return len(self.code)

    @property
    def n_items(self) -> int:
        return self.codes.shape[0]

    def n_nodes(self, depth: int) -> int:
        return self.first_row[depth].shape[0] - 1

    @property
    def nbytes(self) -> int:
        """Bytes held, code matrix included."""
        held = (self.codes, *self.code, *self.first_row, *self.first_child, *self.growing_before)
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    def to(self, device: torch.device | str) -> "Trie":
        """The same trie with its arrays on another device."""
        return replace(
            self,
            codes=self.codes.to(device),
            code=tuple(t.to(device) for t in self.code),
            first_row=tuple(t.to(device) for t in self.first_row),
            first_child=tuple(t.to(device) for t in self.first_child),
            growing_before=tuple(None if t is None else t.to(device) for t in self.growing_before),
        )

    def children(self, depth: int, nodes: Tensor) -> Children:
        """Children of `nodes` (n,) at `depth`, which lie at depth + 1."""
        first, behind = self.first_child[depth][torch.stack([nodes, nodes + 1])].long()
        count = behind - first
        parent = torch.repeat_interleave(count)
        # A child's number is its place in the whole list, moved by what its parent's run needs.
        shift = behind - count.cumsum(0)
        node = torch.arange(parent.shape[0], device=nodes.device) + shift.index_select(0, parent)
        # On a CPU `index_select` takes half the time of an index in brackets.
        return Children(parent, node, self.code[depth].index_select(0, node).long())

    def rows(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The items under `nodes` (n,) at `depth`: first row and the row behind the last."""
        starts = self.first_row[depth]
        return starts.index_select(0, nodes), starts.index_select(0, nodes + 1)

    def only_ends(self, depth: int, nodes: Tensor) -> Tensor:
        """Whether all that follows `nodes` (any shape) at `depth` is `END`: a complete SID."""
        if not self.has_end[depth]:
            return torch.zeros_like(nodes, dtype=torch.bool)
        starts = self.first_child[depth]
        first = starts[nodes]
        return (starts[nodes + 1] - first == 1) & (self.code[depth][first] == END)

    def growing(self, depth: int, nodes: Tensor) -> list[Tensor]:
        """How many nodes grow, at `depth` and each depth below, at or under `nodes` (n,): each
        (n,). Costs nothing per node counted."""
        counts, first, behind = [], nodes, nodes + 1
        for d in range(depth, self.depth):
            before = self.growing_before[d]
            counts.append(behind - first if before is None else before[behind] - before[first])
            first, behind = self.first_child[d][first].long(), self.first_child[d][behind].long()
        return counts

    def codes_behind(self, prefix: Sequence[int]) -> list[int]:
        """The codes, `END` among them, that follow `prefix` in some SID, ascending; nothing where
        no SID begins with it. For single prefixes, on the host."""
        node = 0
        for d, code in enumerate(prefix):
            first, behind = self.first_child[d][node : node + 2].tolist()
            node = first + int(torch.searchsorted(self.code[d][first:behind], code))
            if node == behind or self.code[d][node] != code:
                return []
        if len(prefix) == self.depth:
            return [END]
        first, behind = self.first_child[len(prefix)][node : node + 2].tolist()
        codes: list[int] = self.code[len(prefix)][first:behind].tolist()
        return codes

    def find(self, codes: Codes) -> npt.NDArray[np.int64]:
        """The leaf of each SID (n, depth), or -1 where no item has it."""
        wanted = torch.from_numpy(np.asarray(codes, np.int64))
        alive = torch.arange(len(wanted))
        node = torch.zeros(len(wanted), dtype=torch.long)
        for d in range(self.depth):
            below = self.children(d, node)
            hit = below.code == wanted[alive[below.parent], d]
            alive, node = alive[below.parent[hit]], below.node[hit]
        leaf = np.full(len(wanted), -1, np.int64)
        leaf[alive.numpy()] = node.numpy()
        return leaf


def _growing(code: Tensor, first_child: Tensor) -> Tensor:
    """`growing_before` of the nodes whose children have `code` and begin at `first_child`."""
    first = first_child[:-1]
    grows = (first_child[1:] - first > 1) | (code[first.long()] != END)
    before = torch.zeros(len(first_child), dtype=torch.int32)
    before[1:] = grows.cumsum(0)
    return before


def _code_type(codes: Codes) -> type[np.int16] | type[np.int32]:
    return np.int16 if codes.max() <= np.iinfo(np.int16).max else np.int32


def _keys(codes: Codes) -> npt.NDArray[np.int64] | None:
    """One sortable integer per SID, or None where the codebooks need more than 63 bits."""
    if len(codes) == 0:
        return np.empty(0, np.int64)
    sizes = [int(largest) + 2 for largest in codes.max(axis=0)]
    if np.prod(np.array(sizes, dtype=object)) >= 2**63:
        return None
    key = np.zeros(len(codes), np.int64)
    for level, size in enumerate(sizes):
        key *= size
        key += codes[:, level]
        key += 1
    return key


def _check(codes: Codes) -> None:
    if codes.ndim != 2 or 0 in codes.shape:
        raise SidError("a trie needs at least one item and one level")
    if codes.min() < END:
        raise SidError(f"codes below {END}")
    if ((codes[:, :-1] == END) & (codes[:, 1:] != END)).any():
        raise SidError("a code follows the end of a SID")
    key = _keys(codes)
    in_order = (
        (np.diff(key) >= 0).all()
        if key is not None
        else (sort_order(codes) == np.arange(len(codes))).all()
    )
    if not in_order:
        raise SidError("items are not in the order of their SIDs")
