"""Attention of prompts' tokens within their own prompt, whose keys and values enter the cache.

Letters as in `model`; M is the most tokens that a prompt runs.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from service.engine.torch.forward import Cache
from service.engine.torch.prefixes import Prefix

_MOST = 1 << 26
"""Elements of a mask: 128 MB in bf16, and some 10 ms of products that are padding."""


class Attention(Protocol):
    """Of one batch of prompts, of which a part is known: the rest are packed behind each other."""

    def __call__(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of queries q (N, H, D) to keys and values kv (N, 2·G, D), which go to `kept`, one layer
        of the cache: (N, H·D)."""
        ...

    def of_last(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """The same of the last token of each prompt alone: (Q, H·D)."""
        ...


def attention(cache: Cache, known: Sequence[Prefix], run: Sequence[int], group: int) -> Attention:
    """What suits the device. `run` (Q,) are tokens behind the known ones; `group` is R."""
    for j, prefix in enumerate(known):
        if prefix.kept is not None:
            for layer, before in zip(cache.layers, prefix.kept, strict=True):
                layer[j, :, : prefix.tokens] = before[:, : prefix.tokens]
    starts = [prefix.tokens for prefix in known]
    if cache.lengths.device.type == "cpu" or not fits(run, cache.prompt):
        return OneByOne(starts, run, group)
    return Together(cache, starts, run, group)


def fits(run: Sequence[int], longest: int) -> bool:
    """Whether there are several prompts, and a mask for all of them is of a sensible size: one of
    thousands of tokens among many short ones would take gigabytes."""
    return len(run) > 1 and len(run) * max(run) * longest <= _MOST


class OneByOne:
    """A prompt after the other, without padding: on a CPU that would be work."""

    def __init__(self, starts: Sequence[int], run: Sequence[int], group: int) -> None:
        self._starts, self._run, self._group = starts, list(run), group
        self._masks: list[Tensor | None] = [None] * len(self._run)

    def __call__(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return self._each(kept, q, kv, last=False)

    def of_last(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return self._each(kept, q, kv, last=True)

    def _each(self, kept: Tensor, q: Tensor, kv: Tensor, *, last: bool) -> Tensor:
        mixed = []
        for j, (qj, kvj) in enumerate(zip(q.split(self._run), kv.split(self._run), strict=True)):
            start, length = self._starts[j], self._starts[j] + len(kvj)
            kept[j, :, start:length] = kvj.transpose(0, 1)
            rows, mask = (qj[-1:], None) if last else (qj, self._later(j, kept.device))
            mixed.append(self._causal(rows, kept[j, :, :length], mask))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _later(self, j: int, device: torch.device) -> Tensor | None:
        """Which tokens of prompt j the ones that run may see: (run, n); None where the order of the
        places says it."""
        rows, start = self._run[j], self._starts[j]
        if start == 0 or rows == 1:
            return None
        mask = self._masks[j]
        if mask is None:
            seen = torch.ones(rows, start + rows, dtype=torch.bool, device=device)
            mask = self._masks[j] = seen.tril_(start)
        return mask

    def _causal(self, q: Tensor, kv: Tensor, mask: Tensor | None) -> Tensor:
        """Attention within one prompt: its last rows q (m, H, D), kv (2·G, n, D)."""
        k, v = kv.repeat_interleave(self._group, 0)[None].chunk(2, dim=1)
        causal = mask is None and q.shape[0] > 1
        mixed = scaled_dot_product_attention(
            q.transpose(0, 1)[None], k, v, attn_mask=mask, is_causal=causal, scale=1.0
        )
        return mixed[0].transpose(0, 1).flatten(1)


class Together:
    """All prompts at once, each padded to the longest: on a GPU a launch costs more than that."""

    def __init__(self, cache: Cache, starts: Sequence[int], run: Sequence[int], group: int) -> None:
        device, queries, most = cache.lengths.device, len(run), max(run)
        counts = torch.tensor(run, device=device)
        start = torch.tensor(starts, device=device)
        self._group, self._prompt, self._shape = group, cache.prompt, (queries, most)
        # (N,) of the packed tokens: whose each is, and its place in the prompt and in the grid.
        self._query = torch.repeat_interleave(torch.arange(queries, device=device), counts)
        first = (counts.cumsum(0) - counts)[self._query]
        slot = torch.arange(len(self._query), device=device) - first
        self._place = start[self._query] + slot
        self._grid = self._query * most + slot
        self._last = counts.cumsum(0) - 1
        places = torch.arange(cache.prompt, device=device)
        like = cache.layers[0]
        seen = places <= (start[:, None] + torch.arange(most, device=device))[..., None]
        self._mask = _additive(seen, like)[:, None]  # (Q, 1, M, T)
        inside = _additive(places < cache.lengths[:, None], like)
        self._inside = inside[:, None, None]  # (Q, 1, 1, T)

    def __call__(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        kept[self._query, :, self._place] = kv
        queries, most = self._shape
        rows = q.new_zeros(queries * most, *q.shape[1:])
        rows.index_copy_(0, self._grid, q)
        rows = rows.view(queries, most, *q.shape[1:]).transpose(1, 2)  # (Q, H, M, D)
        k, v = kept[:, :, : self._prompt].repeat_interleave(self._group, 1).chunk(2, dim=1)
        mixed = scaled_dot_product_attention(rows, k, v, attn_mask=self._mask, scale=1.0)
        return mixed.transpose(1, 2).reshape(queries * most, -1).index_select(0, self._grid)

    def of_last(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        kept[self._query, :, self._place] = kv
        k, v = kept[:, :, : self._prompt].chunk(2, dim=1)
        # Query heads that share a KV head become rows: (Q, G, R, D).
        rows = q[self._last].unflatten(1, (k.shape[1], self._group))
        mixed = scaled_dot_product_attention(rows, k, v, attn_mask=self._inside, scale=1.0)
        return mixed.flatten(1)


def _additive(seen: Tensor, like: Tensor) -> Tensor:
    """A mask to add: 0 where something is seen, else minus infinity."""
    return like.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
