"""Codes and vocabulary ids of each level, both ways, without a table as large as a vocabulary."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class LevelCodes:
    """tokens: per level the vocabulary id of each code, -1 where there is none."""

    def __init__(self, tokens: Sequence[Ids]) -> None:
        self.tokens = tokens
        self._order = [np.argsort(ids, kind="stable") for ids in tokens]
        self._sorted = [ids[order] for ids, order in zip(tokens, self._order, strict=True)]

    def size(self, level: int) -> int:
        return len(self.tokens[level])

    def codes(self, level: int, ids: npt.NDArray[np.integer]) -> Ids:
        """The codes of vocabulary ids, all of which must be tokens of that level."""
        return self._order[level][np.searchsorted(self._sorted[level], ids)]
