"""Attention of prompts' tokens within their own prompt, whose keys and values enter the cache.

Letters as in `model`; M is the most tokens that a prompt runs.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from service.engine.torch.forward import Cache

_MOST = 1 << 26
"""Elements of a mask: 128 MB in bf16, and some 10 ms of products that are padding."""


class Attention(Protocol):
    """Of one batch of prompts, of which a part is known: the rest are packed behind each other."""

    def __call__(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """Of queries q (N, H, D) to keys and values kv (N, 2·G, D), which go to `kept`, one layer
        of the cache: (N, H·D)."""
        ...

    def of_last(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        """The same of the last token of each prompt alone, q (Q, H, D): (Q, H·D)."""
        ...


def attention(
    cache: Cache, starts: Sequence[int], run: Sequence[int], position: Tensor, group: int
) -> Attention:
    """What suits the device. Of each prompt `starts` (Q,) tokens are in the cache and `run` (Q,)
    follow, which have the places `position` (N,) in it; `group` is R."""
    if cache.lengths.device.type == "cpu" or not fits(run, cache.prompt):
        return OneByOne(cache, starts, run, group)
    return Together(cache, starts, run, position, group)


def fits(run: Sequence[int], longest: int) -> bool:
    """Whether there are several prompts, and a mask for all of them is of a sensible size: one of
    thousands of tokens among many short ones would take gigabytes."""
    return len(run) > 1 and len(run) * max(run) * longest <= _MOST


class OneByOne:
    """A prompt after the other, without padding: on a CPU that would be work."""

    def __init__(self, cache: Cache, starts: Sequence[int], run: Sequence[int], group: int) -> None:
        self._starts, self._run, self._group = starts, list(run), group
        device = cache.lengths.device
        self._masks = [_later(n, start, device) for n, start in zip(run, starts, strict=True)]

    def __call__(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return self._each(kept, q.split(self._run), kv, self._masks)

    def of_last(self, kept: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return self._each(kept, q.split(1), kv, [None] * len(q))

    def _each(
        self, kept: Tensor, rows: Sequence[Tensor], kv: Tensor, masks: Sequence[Tensor | None]
    ) -> Tensor:
        mixed = []
        for j, (qj, kvj) in enumerate(zip(rows, kv.split(self._run), strict=True)):
            start, length = self._starts[j], self._starts[j] + len(kvj)
            kept[j, :, start:length] = kvj.transpose(0, 1)
            mixed.append(self._causal(qj, kept[j, :, :length], masks[j]))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

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

    def __init__(
        self,
        cache: Cache,
        starts: Sequence[int],
        run: Sequence[int],
        position: Tensor,
        group: int,
    ) -> None:
        device, queries, most = cache.lengths.device, len(run), max(run)
        start, counts = torch.tensor(starts, device=device), torch.tensor(run, device=device)
        self._group, self._prompt, self._shape = group, cache.prompt, (queries, most)
        # (N,) of the packed tokens: whose each is, and its place in the prompt and in the grid.
        self._query = torch.repeat_interleave(torch.arange(queries, device=device), counts)
        self._place = position
        self._grid = self._query * most + position - start[self._query]
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
        rows = q.unflatten(1, (k.shape[1], self._group))
        mixed = scaled_dot_product_attention(rows, k, v, attn_mask=self._inside, scale=1.0)
        return mixed.flatten(1)


def _later(rows: int, start: int, device: torch.device) -> Tensor | None:
    """Which tokens of a prompt its last `rows`, from `start` on, may see: (rows, n); None where the
    order of the places says it."""
    if start == 0 or rows == 1:
        return None
    seen = torch.ones(rows, start + rows, dtype=torch.bool, device=device)
    return seen.tril_(start)


def _additive(seen: Tensor, like: Tensor) -> Tensor:
    """A mask to add: 0 where something is seen, else minus infinity."""
    return like.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
