"""One level of constrained beam search, for a batch of queries at once.

Shared by every engine: an engine brings log-probabilities, this module decides which prefixes
live. The search is the one of Hugging Face's `generate(num_beams=B, prefix_allowed_tokens_fn=…,
length_penalty=0)`: scores are masked after the softmax and never renormalised. A SID that is
complete carries on through `END` at no cost, so it competes with those that still grow.

Everything stays on the device of the trie.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.sid import END, EligibilityBatch, Trie
from service.engine.base import Beam

_NONE = torch.iinfo(torch.int64).min
_POSITION = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Beams:
    """Prefixes that live after some levels: Q queries, up to W each.

    node:   (Q, W) trie nodes, ascending in each row; 0 in a dead place
    score:  (Q, W) float32; -inf in a dead place
    parent: (Q, W) the place of the prefix one level up
    code:   (Q, W) the code added last; `END` in a dead place
    """

    node: Tensor
    score: Tensor
    parent: Tensor
    code: Tensor

    @classmethod
    def start(cls, queries: int, device: torch.device) -> "Beams":
        """Every query at the root, W = 1."""
        zeros = torch.zeros(queries, 1, dtype=torch.long, device=device)
        return cls(zeros, zeros.float(), zeros, zeros)

    @property
    def alive(self) -> Tensor:
        return self.score > -torch.inf


def advance(
    trie: Trie,
    depth: int,
    beams: Beams,
    logp: Tensor,
    row: Tensor,
    widths: Tensor,
    eligible: EligibilityBatch,
) -> Beams:
    """The best `widths` (Q,) continuations of each query's beams, one level deeper.

    logp: (rows, codes) log-probabilities of this level's codes
    row:  (Q, W) the row of `logp` of each beam; any for a beam whose only child is `END`
    """
    queries, width = beams.node.shape
    below = trie.children(depth, beams.node.flatten(), beams.alive.flatten())
    if trie.has_end[depth]:
        gain = logp[row.flatten()[below.parent], below.code.clamp(min=0)]
        gain = torch.where(below.code == END, 0.0, gain)
    else:
        gain = logp[row.flatten()[below.parent], below.code]
    score = beams.score.flatten()[below.parent] + gain
    query = below.parent // width
    may = None
    if not eligible.unrestricted:
        may = eligible.count(query, *trie.rows(depth + 1, below.node)) > 0
    begin, most = _runs(query, queries)
    at, dead = _best(score, query, begin, most, widths, may)
    chosen = (begin[:, None] + at).masked_fill(dead, 0)
    return Beams(
        node=below.node[chosen].masked_fill(dead, 0),
        score=score[chosen].masked_fill(dead, -torch.inf),
        parent=(below.parent[chosen] % width).masked_fill(dead, 0),
        code=below.code[chosen].masked_fill(dead, END),
    )


def answers(trie: Trie, beams: Beams) -> list[list[Beam]]:
    """The finished searches as the contract has them: per query best first, ties by code."""
    score, order = beams.score.sort(dim=1, descending=True, stable=True)
    first, behind = trie.rows(trie.depth, beams.node.gather(1, order))
    codes = trie.codes[first.long()]
    columns = (score.tolist(), first.tolist(), behind.tolist(), codes.tolist())
    return [
        [
            Beam(tuple(code for code in sid if code != END), value, range(lo, hi))
            for value, lo, hi, sid in zip(*query, strict=True)
            if value > -torch.inf
        ]
        for query in zip(*columns, strict=True)
    ]


def _runs(query: Tensor, queries: int) -> tuple[Tensor, int]:
    """Where each query's candidates begin, (Q,), and the most that one has."""
    if queries == 1:
        return query.new_zeros(1), query.shape[0]
    count = torch.bincount(query, minlength=queries)
    return count.cumsum(0) - count, int(count.max())


def _best(
    score: Tensor, query: Tensor, begin: Tensor, most: int, widths: Tensor, may: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Places of the best candidates within each query's run, in code order; and which are dead.

    Candidates stand query by query in code order; `may` (n,) says which are eligible. Score and
    place become one integer, so that a plain top-k breaks ties by code order and is the same on
    every device.
    """
    queries = begin.shape[0]
    place = torch.arange(score.shape[0], device=score.device)
    if queries > 1:
        place = place - begin[query]
    key = _sortable(score) << 32 | (_POSITION - place)
    if may is not None:
        key = key.masked_fill(~may, _NONE)
    if queries > 1:
        keys = torch.full((queries, most), _NONE, device=score.device)
        keys[query, place] = key
    else:
        keys = key[None]
    kept, at = keys.topk(min(int(widths.max()), most), dim=1)
    dead = (kept == _NONE) | (torch.arange(kept.shape[1], device=at.device) >= widths[:, None])
    # Dead places go last, the others back into code order.
    at = torch.where(dead, most, at).sort(dim=1).values
    return at, at == most


def _sortable(score: Tensor) -> Tensor:
    """Integers in the order of the floats: (n,) float32 to int64 of 32 bits."""
    bits = score.view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFF_FFFF)).long()
