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
from service.engine.frontier import Level, frontier
from service.engine.trace import Tracer
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
    """Asks with `rows`, is told with `take`, and goes on with `advance`.

    It knows nothing of vLLM: rows are numbered in the order in which it asked for them.
    """

    def __init__(self, tasks: Sequence[Task], trie: Trie, codes: LevelCodes, spare: int) -> None:
        self.tasks = tasks
        self.depth = 0
        self._trie = trie
        self._codes = codes
        self._spare = spare
        self._prompts = [list(task.query.prompt_token_ids) for task in tasks]
        self._widths = [task.query.beam_width for task in tasks]
        self._traced = torch.tensor([task.query.trace is not None for task in tasks])
        self._eligible = EligibilityBatch([task.query.eligible for task in tasks], trie.n_items)
        self._tracer = Tracer([task.query for task in tasks])
        self._beams = Beams.start(len(tasks), torch.device("cpu"))
        # (beams, tokens): the vocabulary ids of each prefix.
        self._paths = torch.empty(len(tasks), 0, dtype=torch.long)
        self._levels: list[Level] = []
        # Per level (rows, codes): what has been told of it.
        self._logp: list[Tensor] = []

    @property
    def done(self) -> bool:
        return self.depth == self._trie.depth or len(self._beams) == 0

    def rows(self) -> list[Row]:
        """What the next step must tell; nothing where every prefix is a complete SID."""
        levels = frontier(self._trie, self.depth, self._beams, self._eligible, self._spare)
        # The prompt comes alone: all others begin with what is computed for it.
        self._levels = levels if self.depth > 0 else levels[:1]
        paths = self._paths
        rows: list[Row] = []
        self._logp = []
        for level in self._levels:
            paths = paths[level.parent]
            if level is not self._levels[0]:
                paths = torch.cat([paths, self._tokens(level.depth - 1, level.code)], dim=1)
            size = self._codes.size(level.depth)
            self._logp.append(torch.full((max(1, len(level)), size), -torch.inf))
            states = pack(self._allowed(level))
            rows += [
                Row(
                    q,
                    self._prompts[q] + path,
                    RowState(level.depth, bits),
                    size if self._traced[q] else min(self._widths[q], size),
                )
                for q, path, bits in zip(level.query.tolist(), paths.tolist(), states, strict=True)
            ]
        return rows

    def take(
        self, rows: Sequence[int], ids: npt.NDArray[np.int32], logp: npt.NDArray[np.float32]
    ) -> None:
        """The best tokens of some rows: vocabulary `ids` and `logp` (rows, candidates or more)."""
        row, column = np.nonzero(np.isfinite(logp))  # the rest only fills up the table
        number, ids, logp = np.asarray(rows)[row], ids[row, column], logp[row, column]
        begin = 0
        for level, table in zip(self._levels, self._logp, strict=True):
            behind = begin + len(level)
            of_level = (begin <= number) & (number < behind)
            codes = self._codes.codes(level.depth, ids[of_level])
            table[number[of_level] - begin, codes] = torch.from_numpy(logp[of_level])
            begin = behind

    def advance(self) -> None:
        for level, logp in zip(self._levels, self._logp, strict=True):
            row = level.row(self._beams)
            self._beams = beams = advance(
                self._trie, self.depth, self._beams, logp, row, self._widths, self._eligible
            )
            self._tracer.record(self._trie, self.depth, beams, logp, row)
            token = self._tokens(self.depth, beams.code)
            self._paths = torch.cat([self._paths[beams.parent], token], dim=1)
            self.depth += 1

    def drop(self, query: int) -> None:
        """From now on this query has no prefixes, and costs nothing."""
        self._widths[query] = 0

    def answers(self) -> list[list[Beam]]:
        if not len(self._beams):
            return [[] for _ in self.tasks]
        explain = any(task.query.explain for task in self.tasks)
        return answers(self._trie, self._beams, explain=explain)

    def _tokens(self, depth: int, code: Tensor) -> Tensor:
        """(n, 1) the tokens of codes; any for `END`."""
        return torch.from_numpy(self._codes.tokens[depth])[code.clamp(min=0)][:, None]

    def _allowed(self, level: Level) -> npt.NDArray[np.bool_]:
        """(n, codes): which codes lead from a level's prefixes to what their queries may find."""
        below = self._trie.children(level.depth, level.node)
        may = below.code != END
        if not self._eligible.unrestricted:
            rows = self._trie.rows(level.depth + 1, below.node)
            query = level.query[below.parent]
            # A trace also shows what would have been found if it might be.
            may &= (self._eligible.count(query, *rows) > 0) | self._traced[query]
        allowed = np.zeros((len(level), self._codes.size(level.depth)), np.bool_)
        allowed[below.parent[may].numpy(), below.code[may].numpy()] = True
        return allowed
