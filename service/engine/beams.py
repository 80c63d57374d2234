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
    live = beams.alive.flatten().nonzero().flatten()
    below = trie.children(depth, beams.node.flatten()[live])
    source = live[below.parent]
    gain = logp[row.flatten()[source], below.code.clamp(min=0)]
    if trie.has_end[depth]:
        gain = torch.where(below.code == END, 0.0, gain)
    score = beams.score.flatten()[source] + gain
    query = source // width
    if not eligible.unrestricted:
        may = eligible.count(query, *trie.rows(depth + 1, below.node)) > 0
        score, source, query = score[may], source[may], query[may]
        node, code = below.node[may], below.code[may]
    else:
        node, code = below.node, below.code
    return _best(score, query, source % width, node, code, queries, widths)


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


def _best(
    score: Tensor,
    query: Tensor,
    parent: Tensor,
    node: Tensor,
    code: Tensor,
    queries: int,
    widths: Tensor,
) -> Beams:
    """The best candidates of each query, in code order.

    Candidates stand query by query in code order. Score and place become one integer, so that a
    plain top-k breaks ties by code order and is the same on every device.
    """
    device = score.device
    count = torch.bincount(query, minlength=queries)
    begin = count.cumsum(0) - count
    place = torch.arange(score.shape[0], device=device) - begin[query]
    most = int(count.max())
    keys = torch.full((queries, most), _NONE, device=device)
    keys[query, place] = _sortable(score) << 32 | (_POSITION - place)
    kept, at = keys.topk(min(int(widths.max()), most), dim=1)
    rank = torch.arange(kept.shape[1], device=device)
    dead = (kept == _NONE) | (rank >= widths[:, None])
    # Dead places go last; the others back into code order.
    at = torch.where(dead, most, at).sort(dim=1).values
    dead = at == most
    chosen = (begin[:, None] + at).masked_fill(dead, 0)
    return Beams(
        node=node[chosen].masked_fill(dead, 0),
        score=score[chosen].masked_fill(dead, -torch.inf),
        parent=parent[chosen].masked_fill(dead, 0),
        code=code[chosen].masked_fill(dead, END),
    )


def _sortable(score: Tensor) -> Tensor:
    """Integers in the order of the floats: (n,) float32 to int64 of 32 bits."""
    bits = score.view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFF_FFFF)).long()
