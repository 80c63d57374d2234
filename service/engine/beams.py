"""One level of constrained beam search, for a batch of queries at once.

Shared by every engine: an engine brings log-probabilities, this module decides which prefixes
live. The search is the one of Hugging Face's `generate(num_beams=B, prefix_allowed_tokens_fn=…,
length_penalty=0)`: scores are masked after the softmax and never renormalised. A SID that is
complete carries on through `END` at no cost, so it competes with those that still grow.

Everything stays on the device of the trie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.sid import END, EligibilityBatch, Trie
from model_store.sid.trie import Children
from service.engine.base import Beam


@dataclass(frozen=True, slots=True)
class Beams:
    """Prefixes that live after some levels, n of them: query by query, in code order.

    query:  (n,) whose they are, of `queries`
    node:   (n,) their trie nodes, ascending within a query
    score:  (n,) float32
    parent: (n,) the place, among the beams one level up, of the prefix one code shorter
    code:   (n,) the code added last, or `END`
    above:  the beams one level up; None at the root
    """

    queries: int
    query: Tensor
    node: Tensor
    score: Tensor
    parent: Tensor
    code: Tensor
    above: "Beams | None" = None

    @classmethod
    def start(cls, queries: int, device: torch.device) -> "Beams":
        """Every query at the root."""
        query = torch.arange(queries, device=device)
        root = torch.zeros_like(query)
        return cls(queries, query, root, root.float(), query, root)

    def __len__(self) -> int:
        return self.node.shape[0]


def advance(
    trie: Trie,
    depth: int,
    beams: Beams,
    logp: Tensor,
    row: Tensor,
    widths: Sequence[int],
    eligible: EligibilityBatch,
) -> Beams:
    """The best `widths[q]` continuations of each query's beams, one level deeper.

    logp: (rows, codes) log-probabilities of this level's codes
    row:  (n,) the row of `logp` of each beam; any for a beam whose only child is `END`
    """
    below = trie.children(depth, beams.node)
    if not eligible.unrestricted:
        query = beams.query.index_select(0, below.parent)
        may = eligible.open(trie, depth + 1, query, below.node)
        if not may.all():
            chosen = may.nonzero().flatten()
            parts = (below.parent, below.node, below.code)
            below = Children(*(part.index_select(0, chosen) for part in parts))
    at = row.index_select(0, below.parent)
    if trie.has_end[depth]:
        gain = logp[at, below.code.clamp(min=0)].masked_fill_(below.code == END, 0.0)
    else:
        gain = logp[at, below.code]
    score = gain.add_(beams.score.index_select(0, below.parent))
    query = beams.query.index_select(0, below.parent)
    columns = [query, below.node, score, below.parent, below.code]
    best = _best(score, query, widths)
    if best is not None:
        columns = [column.index_select(0, best) for column in columns]
    query, node, score, parent, code = columns
    return Beams(beams.queries, query, node, score, parent, code, beams)


def answers(trie: Trie, beams: Beams, *, explain: bool = False) -> list[list[Beam]]:
    """The finished searches as the contract has them: per query best first, ties by code; with
    their `gains` where the answer to any of the queries shall be explained."""
    order = beams.score.argsort(descending=True, stable=True)
    if beams.queries > 1:
        order = order[beams.query[order].argsort(stable=True)]
    first, behind = trie.rows(trie.depth, beams.node[order])
    codes = trie.codes[first.long()].tolist()
    found: list[list[Beam]] = [[] for _ in range(beams.queries)]
    columns = (beams.query[order], beams.score[order], first, behind)
    gains = _gains(beams, order) if explain else [None] * len(codes)
    for query, score, lo, hi, sid, gain in zip(
        *(c.tolist() for c in columns), codes, gains, strict=True
    ):
        codes_of = tuple(code for code in sid if code != END)
        of_codes = None if gain is None else tuple(gain[: len(codes_of)])
        found[query].append(Beam(codes_of, score, range(lo, hi), of_codes))
    return found


def _gains(beams: Beams, at: Tensor) -> list[list[float]]:
    """What each level added to the scores of the beams in the places `at` (n,): (n, levels)."""
    scores, level = [], beams
    while level.above is not None:
        scores.append(level.score[at])
        at, level = level.parent[at], level.above
    # In double precision, so that what is added up again gives the score.
    scores.append(level.score[at])
    gains: list[list[float]] = torch.stack(scores[::-1], dim=1).double().diff(dim=1).tolist()
    return gains


def _best(score: Tensor, query: Tensor, widths: Sequence[int]) -> Tensor | None:
    """Places of each query's best candidates, in the order of the candidates; None for all.

    Candidates stand query by query in code order, and the first of equal ones wins.
    """
    if len(widths) == 1:
        [width] = widths
        if len(score) <= width:
            return None
        least = score.topk(width).values[-1:] if width > 0 else score.new_full((1,), torch.inf)
        enough = score >= least
        chosen = enough.nonzero().flatten()
        if len(chosen) == width:
            return chosen
        return _first_of_equals(score, least, query, torch.tensor([width], device=score.device))
    count = torch.bincount(query, minlength=len(widths))
    limit = torch.tensor(widths, device=score.device)
    if bool((count <= limit).all()):
        return None
    # A row for each query, so that one top-k serves all.
    begin, most = count.cumsum(0) - count, int(count.max())
    place = torch.arange(len(score), device=score.device) - begin[query]
    padded = score.new_full((len(widths), most), -torch.inf)
    padded[query, place] = score
    ranked = padded.topk(min(max(widths), most), dim=1).values
    at = (limit - 1).clamp(0, ranked.shape[1] - 1)
    least = ranked.gather(1, at[:, None])[:, 0].masked_fill(limit == 0, torch.inf)
    chosen = (score >= least[query]).nonzero().flatten()
    if len(chosen) == int(torch.minimum(count, limit).sum()):
        return chosen
    return _first_of_equals(score, least[query], query, limit)


def _first_of_equals(score: Tensor, least: Tensor, query: Tensor, limit: Tensor) -> Tensor:
    """The same where more candidates than may stay reach the score of the last (`least`)."""
    above, equal = score > least, score == least
    left = limit - torch.bincount(query[above], minlength=len(limit))
    count = torch.bincount(query[equal], minlength=len(limit))
    rank = equal.cumsum(0) - (count.cumsum(0) - count)[query]
    return (above | (equal & (rank <= left[query]))).nonzero().flatten()
