"""The prefixes that one pass of the model is asked about.

A pass over a few prefixes costs hardly more than a pass over one: weights are read and kernels
are launched for it all the same. Near its leaves a trie is mostly chains, so the prefixes of all
levels that are left are often few more than those of the next. Then one pass is asked about all
of them, also about those that the search turns out not to need. The search itself still goes level
by level: same beams, same scores.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.sid import EligibilityBatch, Trie
from service.engine.beams import Beams


@dataclass(frozen=True, slots=True)
class Level:
    """Prefixes of `depth` codes, n of them, query by query and in code order.

    query:  (n,) whose they are
    node:   (n,) their trie nodes
    code:   (n,) the code added last
    parent: (n,) the prefix one code shorter, in the level before; in a frontier's first level the
            place of the prefix itself among the beams
    """

    depth: int
    query: Tensor
    node: Tensor
    code: Tensor
    parent: Tensor

    def __len__(self) -> int:
        return self.node.shape[0]

    def row(self, beams: Beams) -> Tensor:
        """(beams,) the place in this level of each beam; any for one that is not in it."""
        if self.node is beams.node:
            return self.parent
        # Nodes ascend within a query, so query and node together ascend throughout.
        key = self.query << 32 | self.node
        found = torch.searchsorted(key, beams.query << 32 | beams.node)
        return found.clamp_(max=max(0, len(self) - 1))


def frontier(
    trie: Trie, depth: int, beams: Beams, eligible: EligibilityBatch, spare: int
) -> list[Level]:
    """What to ask next: the beams that grow, and where it pays all below them.

    `spare` is how many rows more cost a pass as much as another pass. The first level is empty
    where every beam is a complete SID.
    """
    place = torch.arange(len(beams), device=beams.node.device)
    first = Level(depth, beams.query, beams.node, beams.code, place)
    if trie.has_end[depth]:
        first = _only(first, ~trie.only_ends(depth, beams.node))
    levels = [first]
    if _all_in_one(trie, first, spare):
        for _ in range(depth + 1, trie.depth):
            levels.append(_below(trie, levels[-1], eligible))
    return levels


def _all_in_one(trie: Trie, level: Level, spare: int) -> bool:
    """Whether asking about all levels now costs less than asking again, exclusions aside."""
    if level.depth + 1 == trie.depth or len(level) == 0:
        return False
    rows = [int(count.sum()) for count in trie.growing(level.depth, level.node)][1:]
    return sum(max(0, count - len(level)) for count in rows) <= spare


def _below(trie: Trie, above: Level, eligible: EligibilityBatch) -> Level:
    """The prefixes one code longer that may be found and may grow."""
    depth = above.depth + 1
    below = trie.children(above.depth, above.node)
    query = above.query.index_select(0, below.parent)
    level = Level(depth, query, below.node, below.code, below.parent)
    if trie.has_end[depth]:  # as it is behind a level with an end
        level = _only(level, ~trie.only_ends(depth, level.node))
    if not eligible.unrestricted:
        level = _only(level, eligible.open(trie, depth, level.query, level.node))
    return level


def _only(level: Level, which: Tensor) -> Level:
    chosen = which.nonzero().flatten()
    columns = (level.query, level.node, level.code, level.parent)
    return Level(level.depth, *(column.index_select(0, chosen) for column in columns))
