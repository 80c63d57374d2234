"""Which tokens a row of logits may choose, and the score of each of them.

A row of a step is one prefix of some query. Its state is the level of the SID that comes next and
a bitmap over that level's codebook, so a state is as small as a codebook and needs neither the
trie nor the vocabulary: it can travel to another process with the request. This module knows no
vLLM; `processor_v1` and `processor_v2` hold its two interfaces against it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

STATE = "sidrec"
"""The key of a `RowState` in a request's extra arguments."""

LEVELS = "sidrec_levels"
"""The key of the vocabulary ids of each level's codes, in vLLM's additional configuration."""

_NONE = -1


class RowState(NamedTuple):
    """level: which codebook comes next; allowed: its codes as bits, the lowest code first."""

    level: int
    allowed: bytes

    @classmethod
    def of(cls, parameters: Any) -> "RowState | None":
        """What the `SamplingParams` of a request carry; None for a request that is not ours."""
        state = (parameters.extra_args or {}).get(STATE)
        return None if state is None else cls(*state)


def pack(allowed: npt.NDArray[np.bool_]) -> list[bytes]:
    """The bitmap of each row of `allowed` (rows, codes)."""
    packed = np.packbits(allowed, axis=1, bitorder="little")
    size, data = packed.shape[1], packed.tobytes()
    return [data[i : i + size] for i in range(0, len(data), size)]


class SidMask:
    """States of the requests in a batch by slot, and what they make of a step's logits.

    levels: per level the vocabulary id of each code, -1 where there is none
    """

    def __init__(self, levels: Sequence[Sequence[int]], slots: int, device: torch.device) -> None:
        self._device = device
        # A code without a token is one that no item has: it is simply left out.
        known = [np.array(ids, np.int64) for ids in levels]
        codes = [np.flatnonzero(ids >= 0) for ids in known]
        self._codes = [torch.from_numpy(code).to(device) for code in codes]
        self._tokens = [
            torch.from_numpy(ids[code]).to(device) for ids, code in zip(known, codes, strict=True)
        ]
        self._bytes = max(-(-len(ids) // 8) for ids in known)
        # The host decides which levels a step has, so that the device is never waited for.
        self._level = np.full(slots, _NONE, np.int64)
        self._allowed = torch.zeros(slots, self._bytes, dtype=torch.uint8, device=device)
        self._bits = torch.arange(8, dtype=torch.uint8, device=device)

    def write(self, slots: Sequence[int], states: Sequence[RowState | None]) -> None:
        """New occupants of `slots`; None is a request that is not ours and keeps its logits."""
        at = np.array(slots, np.int64)
        self._level[at] = [_NONE if state is None else state.level for state in states]
        data = b"".join(
            (b"" if state is None else state.allowed).ljust(self._bytes, b"\0") for state in states
        )
        rows = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(len(slots), self._bytes)
        self._allowed[torch.from_numpy(at).to(self._device)] = rows.to(self._device)

    def clear(self, slots: Sequence[int]) -> None:
        self._level[list(slots)] = _NONE

    def move(self, source: int, target: int) -> None:
        """The occupant of `source` goes to `target`, and `source` is empty."""
        self._level[target], self._level[source] = self._level[source], _NONE
        self._allowed[target] = self._allowed[source]

    def swap(self, one: int, other: int) -> None:
        pair, crossed = [one, other], [other, one]
        self._level[pair] = self._level[crossed]
        self._allowed[pair] = self._allowed[crossed]

    def apply(self, logits: Tensor, slots: npt.NDArray[np.integer]) -> Tensor:
        """Log-probabilities under the softmax over the whole row, -inf where not allowed.

        logits (rows, vocabulary) fp32 are changed in place; `slots` (rows,) says whose they are.
        """
        level = self._level[slots]
        total = logits.logsumexp(dim=1, keepdim=True)
        found = []
        for present in np.unique(level[level != _NONE]):
            of_level = np.flatnonzero(level == present)
            rows = torch.from_numpy(of_level).to(self._device)
            allowed = self._unpacked(slots[of_level], int(present))
            tokens = self._tokens[present]
            scores = logits[rows[:, None], tokens] - total[rows]  # (rows, codes)
            found.append((rows, tokens, scores.masked_fill_(~allowed, -torch.inf)))
        for rows, tokens, scores in found:
            logits.index_fill_(0, rows, -torch.inf)
            logits[rows[:, None], tokens] = scores
        return logits

    def _unpacked(self, slots: npt.NDArray[np.integer], level: int) -> Tensor:
        """The bits of `slots` (rows,) for the codes of a level that have a token, as booleans."""
        packed = self._allowed[torch.from_numpy(slots.astype(np.int64)).to(self._device)]
        bits = (packed[:, :, None] >> self._bits) & 1
        return bits.flatten(1)[:, self._codes[level]].bool()
