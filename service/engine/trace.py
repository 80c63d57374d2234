"""What a search did, level by level, for those who want to see it.

A query that wants to know brings a `Trace`, and the engine writes into it. The search itself is
not changed by that: what stood beside the beams is computed a second time, from the numbers that
the search had. It knows codes; no tokens and no items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from model_store.sid import END, Eligibility, Trie

if TYPE_CHECKING:
    from service.engine.base import Query
    from service.engine.beams import Beams

Fate = Literal["kept", "dropped", "ineligible"]


@dataclass(frozen=True, slots=True)
class TracedPrefix:
    """A prefix that a level had to choose from.

    code:           the code added last, or `END`: a SID that was complete goes on as it is
    parent:         the place of the prefix one code shorter among those of the level before; None
                    at the first level
    gain:           the log-probability of the code, given the parent
    score:          the sum of all gains
    eligible_items: items that may be found under it
    """

    code: int
    parent: int | None
    gain: float
    score: float
    fate: Fate
    eligible_items: int


@dataclass(frozen=True, slots=True)
class TracedLevel:
    """One level of a search.

    considered: prefixes that there were under the beams of the level before, eligible or not
    removed:    those of them under which nothing may be found
    prefixes:   what was kept, best first; then the best that were dropped, and those without an
                eligible item that would have been kept if they had one, at most `width` of each
    """

    width: int
    considered: int
    removed: int
    prefixes: tuple[TracedPrefix, ...]


@dataclass(slots=True)
class Trace:
    """What an engine writes down of one search: complete when that has ended, and not before."""

    levels: list[TracedLevel] = field(default_factory=list)


class Tracer:
    """Writes the traces of those of `queries` that want one. Making one empties them: a search that
    failed may have been begun already."""

    def __init__(self, queries: "Sequence[Query]") -> None:
        self._traced = [(i, q, q.trace) for i, q in enumerate(queries) if q.trace is not None]
        for _, _, trace in self._traced:
            trace.levels.clear()

    def record(self, trie: Trie, depth: int, beams: "Beams", logp: Tensor, row: Tensor) -> None:
        """One level: `beams` are those behind it, the others as `advance` got them."""
        for number, query, trace in self._traced:
            candidates = _candidates(trie, depth, beams, logp, row, number, query.eligible)
            trace.levels.append(candidates.level(query.beam_width))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What one query could choose from at one level, in code order, on the host: each (n,).

    parent: the rank of each one's parent in the beam; -1 at the first level
    kept:   whether the search has kept it
    """

    code: Tensor
    parent: Tensor
    gain: Tensor
    score: Tensor
    eligible: Tensor
    kept: Tensor

    def level(self, width: int) -> TracedLevel:
        best = self.score.argsort(descending=True, stable=True)
        kept, barred = self.kept[best], self.eligible[best] == 0
        fates: list[tuple[Fate, Tensor]] = [
            ("kept", best[kept]),
            ("dropped", best[~kept & ~barred][:width]),
            ("ineligible", best[:width][barred[:width]]),
        ]
        prefixes = (one for fate, places in fates for one in self._prefixes(fate, places))
        return TracedLevel(width, len(best), int(barred.sum()), tuple(prefixes))

    def _prefixes(self, fate: Fate, places: Tensor) -> Iterator[TracedPrefix]:
        columns = (self.code, self.parent, self.gain, self.score, self.eligible)
        for code, parent, gain, score, items in zip(
            *(column[places].tolist() for column in columns), strict=True
        ):
            yield TracedPrefix(code, None if parent < 0 else parent, gain, score, fate, items)


def _candidates(
    trie: Trie,
    depth: int,
    beams: "Beams",
    logp: Tensor,
    row: Tensor,
    number: int,
    eligible: Eligibility | None,
) -> _Candidates:
    """What query `number` of a batch could choose from, and what it has chosen in `beams`."""
    before = beams.above
    assert before is not None
    mine = (before.query == number).nonzero().flatten()
    below = trie.children(depth, before.node[mine])
    at = mine[below.parent]
    gain = logp[row[at], below.code.clamp(min=0)].masked_fill(below.code == END, 0.0)
    # As the search adds them up, and as an explanation takes them apart.
    score = gain + before.score[at]
    gain = score.double() - before.score[at].double()
    first, behind = (rows.cpu() for rows in trie.rows(depth + 1, below.node))
    items = behind - first if eligible is None else eligible.count(first, behind)
    kept = torch.isin(below.node, beams.node[beams.query == number])
    if depth == 0:
        parent = torch.full_like(below.parent, -1)
    else:
        best = before.score[mine].argsort(descending=True, stable=True)
        parent = torch.empty_like(best).scatter_(0, best, torch.arange(len(best)).to(best))
        parent = parent[below.parent]
    columns = (below.code, parent, gain, score, items, kept)
    return _Candidates(*(column.cpu() for column in columns))
