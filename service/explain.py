"""Why a SID was found: what each of its codes added to the score, and among how many items."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model_store.sid import Eligibility, SidSpec, Trie
from service.engine import Beam


@dataclass(frozen=True, slots=True)
class LevelGain:
    """One code of a SID, given those before it.

    log_probability: of its token; those of all levels sum up to the score
    eligible_items:  items that might have been shown under the prefix that ends with it
    """

    token: str
    log_probability: float
    eligible_items: int


def explain(
    beams: Sequence[Beam], trie: Trie, eligible: Eligibility | None, spec: SidSpec
) -> list[tuple[LevelGain, ...]]:
    """The levels of each beam, which must have its `gains`. `trie` is the one that was searched,
    on the CPU."""
    if not beams:
        return []
    rows = torch.tensor([beam.rows.start for beam in beams])
    counts = []
    for depth in range(1, trie.depth + 1):
        # Nodes are ranges of rows in order: a row's node is the last that begins before it.
        node = torch.searchsorted(trie.first_row[depth], rows, right=True) - 1
        first, behind = trie.rows(depth, node)
        count = behind - first if eligible is None else eligible.count(first, behind)
        counts.append(count.tolist())
    return [
        tuple(
            LevelGain(level.token(code), gain, below)
            for level, code, gain, below in zip(
                spec.levels, beam.codes, beam.gains or (), of_beam, strict=False
            )
        )
        for beam, of_beam in zip(beams, zip(*counts, strict=True), strict=True)
    ]
