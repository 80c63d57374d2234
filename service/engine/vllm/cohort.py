"""Queries that started together, and so stand at the same level until they end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.sid import END, EligibilityBatch, Trie
from service.engine.base import Beam
from service.engine.beams import Beams, advance, answers
from service.engine.vllm.levels import LevelCodes
from service.engine.vllm.mask import RowState, pack
from service.engine.vllm.task import Task


@dataclass(frozen=True, slots=True)
class Row:
    """A prefix for which the model must say what follows.

    query:      which of the cohort's
    tokens:     prompt and prefix
    candidates: how many of the best codes are wanted
    """

    query: int
    tokens: list[int]
    state: RowState
    candidates: int


class Cohort:
    """Asks with `rows`, is told with `take`, and goes a level deeper with `advance`.

    It knows nothing of vLLM: rows are numbered in the order in which it asked for them.
    """

    def __init__(self, tasks: Sequence[Task], trie: Trie, codes: LevelCodes) -> None:
        self.tasks = tasks
        self.depth = 0
        self._trie = trie
        self._codes = codes
        self._prompts = [list(task.query.prompt_token_ids) for task in tasks]
        self._widths = torch.tensor([task.query.beam_width for task in tasks])
        self._eligible = EligibilityBatch([task.query.eligible for task in tasks], trie.n_items)
        self._beams = Beams.start(len(tasks), torch.device("cpu"))
        # (Q, W, tokens): the vocabulary ids of each prefix.
        self._paths = torch.empty(len(tasks), 1, 0, dtype=torch.long)
        self._row = torch.zeros(len(tasks), 1, dtype=torch.long)
        self._logp = torch.empty(1, 0)

    @property
    def done(self) -> bool:
        return self.depth == self._trie.depth or self._beams.node.shape[1] == 0

    def rows(self) -> list[Row]:
        """What this level needs of the model; nothing where every prefix is a complete SID."""
        beams, size = self._beams, self._codes.size(self.depth)
        grows = beams.alive & ~self._trie.only_ends(self.depth, beams.node)
        query, place = grows.nonzero(as_tuple=True)
        allowed = self._allowed(query, beams.node[query, place])
        some = torch.from_numpy(allowed.any(axis=1))
        query, place, allowed = query[some], place[some], allowed[some.numpy()]
        self._row = torch.zeros_like(beams.node)
        self._row[query, place] = torch.arange(len(query))
        self._logp = torch.full((max(1, len(query)), size), -torch.inf)
        paths = self._paths[query, place].tolist()
        wanted = self._widths[query].clamp(max=size).tolist()
        return [
            Row(q, self._prompts[q] + path, RowState(self.depth, bits), candidates)
            for q, path, bits, candidates in zip(
                query.tolist(), paths, pack(allowed), wanted, strict=True
            )
        ]

    def take(
        self, rows: Sequence[int], ids: npt.NDArray[np.int32], logp: npt.NDArray[np.float32]
    ) -> None:
        """The best tokens of some rows: vocabulary `ids` and `logp` (rows, candidates or more)."""
        row, column = np.nonzero(np.isfinite(logp))  # the rest only fills up the table
        codes = self._codes.codes(self.depth, ids[row, column])
        found = torch.from_numpy(logp[row, column])
        self._logp[np.asarray(rows)[row], codes] = found

    def advance(self) -> None:
        self._beams = beams = advance(
            self._trie,
            self.depth,
            self._beams,
            self._logp,
            self._row,
            self._widths,
            self._eligible,
        )
        parent = beams.parent[:, :, None].expand(-1, -1, self.depth)
        token = torch.from_numpy(self._codes.tokens[self.depth])[beams.code.clamp(min=0)]
        self._paths = torch.cat([self._paths.gather(1, parent), token[:, :, None]], dim=2)
        self.depth += 1

    def drop(self, query: int) -> None:
        """From now on this query has no prefixes, and costs nothing."""
        self._beams.score[query] = -torch.inf

    def answers(self) -> list[list[Beam]]:
        if self._beams.node.shape[1] == 0:
            return [[] for _ in self.tasks]
        return answers(self._trie, self._beams)

    def _allowed(self, query: Tensor, nodes: Tensor) -> npt.NDArray[np.bool_]:
        """(n, codes): which codes lead from `nodes` (n,) to what `query` (n,) may find."""
        below = self._trie.children(self.depth, nodes)
        may = below.code != END
        if not self._eligible.unrestricted:
            rows = self._trie.rows(self.depth + 1, below.node)
            may &= self._eligible.count(query[below.parent], *rows) > 0
        allowed = np.zeros((len(nodes), self._codes.size(self.depth)), np.bool_)
        allowed[below.parent[may].numpy(), below.code[may].numpy()] = True
        return allowed
