"""The forward pass of a Llama-family model as beam search wants it: the contract.

The keys and values of a prompt are computed once and shared by all beams of its query. A beam's
own few tokens stand behind the prompt in the same buffer, beside those of the other beams; which
of them a beam sees is said with each pass. Reordering beams therefore moves no keys and no values,
and one pass can carry prefixes of several lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from service.engine.torch.prefixes import Prefix


@dataclass(slots=True)
class Cache:
    """Keys and values of a batch of Q queries: per layer (Q, 2·KV heads, T + room, head size), the
    keys first.

    lengths: (Q,) tokens of each prompt; places length..T-1 are padding
    prompt:  T, the tokens of the longest
    used:    places filled so far, T plus the beam tokens computed
    """

    layers: list[Tensor]
    lengths: Tensor
    prompt: int
    used: int

    @classmethod
    def empty(
        cls, layers: int, heads: int, size: int, lengths: Sequence[int], room: int, like: Tensor
    ) -> "Cache":
        """With `room` places for the beam tokens of each query, on the device of `like`."""
        longest = max(lengths)
        shape = (len(lengths), 2 * heads, longest + room, size)
        # Zeros, because a masked place still enters a product, and 0 · NaN is NaN.
        kept = [_zeros(shape, like) for _ in range(layers)]
        return cls(kept, torch.tensor(lengths, device=like.device), longest, longest)

    def put(self, known: Sequence[Prefix]) -> None:
        """Copies what is known of each prompt."""
        for j, prefix in enumerate(known):
            if prefix.kept is not None:
                for layer, kept in zip(self.layers, prefix.kept, strict=True):
                    layer[j, :, : prefix.tokens] = kept[:, : prefix.tokens]


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """On a CPU by numpy, which asks the system for zeros; torch writes them, where nobody may
    look."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    *outer, size = shape
    return torch.from_numpy(np.zeros((*outer, size * like.itemsize), np.uint8)).view(like.dtype)


@dataclass(frozen=True, slots=True)
class Step:
    """Prefixes, n of them, each one token longer than what the cache has of it. Those of a lone
    query stand in the order of their slots.

    token:  (n,) its last token
    query:  (n,) whose it is
    slot:   (n,) its place among those of its query in this step
    width:  slots that each query gets, the most that one needs
    behind: (n,) tokens that stand between its last one and the prompt
    sees:   (n, places) which beam tokens it attends to, of those there are; those of this step
            have the last `width` places
    """

    token: Tensor
    query: Tensor
    slot: Tensor
    width: int
    behind: Tensor
    sees: Tensor


class Forward(Protocol):
    """Passes over prompts and prefixes. For one thread at a time."""

    @property
    def device(self) -> torch.device: ...

    def prefill(
        self, prompts: Sequence[Sequence[int]], known: Sequence[Prefix], room: int
    ) -> tuple[Cache, Tensor]:
        """Runs what is not `known` of prompts of different lengths, packed behind each other,
        without padding work.

        Returns the cache, with `room` places for beam tokens, and the hidden state behind each
        prompt's last token (Q, hidden).
        """
        ...

    def decode(self, cache: Cache, step: Step) -> Tensor:
        """Hidden states (n, hidden) behind the prefixes, whose tokens enter the cache."""
        ...

    def logprobs(self, hidden: Tensor, parts: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Log-probabilities under the softmax over the whole vocabulary, in fp32.

        `hidden` (rows, hidden) is asked in parts: the next so many rows about the codes of such a
        level. Returns per part (rows, codes).
        """
        ...

    def likeliest(self, hidden: Tensor) -> Tensor:
        """The token (1,) that most likely stands behind a hidden state (1, hidden)."""
        ...
