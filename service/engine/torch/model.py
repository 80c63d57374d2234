"""The forward pass in plain torch: see `forward` for what it is about.

Letters in shapes: N packed prompt tokens, Q queries, W prefixes a query, H heads, G = KV heads,
R = H/G query heads on a KV head, D = head size, T longest prompt, S places for beam tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from service.engine.torch.attention import attention
from service.engine.torch.config import ModelConfig
from service.engine.torch.forward import Cache, Step
from service.engine.torch.linear import Linear, linear_of
from service.engine.torch.prefixes import Prefix
from service.engine.torch.weights import Affine, Weights


@dataclass(frozen=True, slots=True)
class _Layer:
    """As `weights.Layer`, ready to multiply."""

    qkv: Linear
    qk_norm: Tensor | None
    out: Linear
    gate_up: Linear
    down: Linear


class Model:
    """`Forward` in plain torch, on the device of the weights, in fp32, bf16 or (CPU) int8.

    level_tokens: per level the token ids of its codes (codes,)
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        level_tokens: Sequence[Tensor],
        dtype: torch.dtype,
    ) -> None:
        if weights.embedding.device.type == "cuda":
            # cuDNN plans anew for each shape, for some 50 ms, and prompts have all shapes.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.config = config
        kind = torch.float32 if dtype == torch.int8 else dtype
        self._embedding = weights.embedding.to(kind)
        self._layers = [
            _Layer(
                linear_of(layer.qkv, dtype),
                layer.qk_norm,
                *(linear_of(affine, dtype) for affine in (layer.out, layer.gate_up, layer.down)),
            )
            for layer in weights.layers()
        ]
        self._head = linear_of(Affine(weights.head(), None), dtype)
        self._columns = [_columns(tokens) for tokens in level_tokens]
        cos, sin = config.rope_tables()
        # (positions, 1, D/2) complex: one factor turns each pair of every head.
        self._turn = torch.complex(cos, sin)[:, None].to(self.device)
        self._eps = torch.full((1, 1), config.rms_norm_eps, device=self.device)
        self._heads = config.num_attention_heads
        self._kv = config.num_key_value_heads
        self._group = self._heads // self._kv

    @property
    def device(self) -> torch.device:
        return self._embedding.device

    def prefill(
        self, prompts: Sequence[Sequence[int]], known: Sequence[Prefix], room: int
    ) -> tuple[Cache, Tensor]:
        lengths, starts = [len(prompt) for prompt in prompts], [prefix.tokens for prefix in known]
        run = [n - start for n, start in zip(lengths, starts, strict=True)]
        device = self.device
        ids = [t for prompt, at in zip(prompts, starts, strict=True) for t in prompt[at:]]
        position = torch.cat(
            [torch.arange(at, n, device=device) for at, n in zip(starts, lengths, strict=True)]
        )
        last = torch.tensor(run, device=device).cumsum(0) - 1
        cache = Cache.empty(
            len(self._layers), self._kv, self.config.head_dim, lengths, room, self._embedding
        )
        turn = self._turn.index_select(0, position)
        x = self._embedding.index_select(0, torch.tensor(ids, device=device))  # (N, hidden)
        cache.put(known)
        attend = attention(cache, starts, run, position, self._group)
        for layer, kept in zip(self._layers[:-1], cache.layers[:-1], strict=True):
            x = self._rest(layer, x, attend(kept, *self._project(layer, x, turn)))
        # Of the last layer only the last position goes on: its keys are all that is needed of the
        # others.
        layer, kept = self._layers[-1], cache.layers[-1]
        q, kv = self._project(layer, x, turn)
        return cache, self._rest(layer, x[last], attend.of_last(kept, q[last], kv))

    def decode(self, cache: Cache, step: Step) -> Tensor:
        queries, width = len(cache.lengths), step.width
        first, used = cache.used, cache.used + width
        cache.used = used
        grid = None if queries == 1 else step.query * width + step.slot
        tokens, behind = (_scattered(x, grid, queries * width) for x in (step.token, step.behind))
        sees = _scattered(step.sees, grid, queries * width).view(queries, width, -1)
        mask = self._mask(cache, sees)
        position = (cache.lengths[:, None] + behind.view(queries, width)).flatten()
        turn = self._turn.index_select(0, position)
        x = self._embedding.index_select(0, tokens)  # (Q·W, hidden)
        for layer, kept in zip(self._layers, cache.layers, strict=True):
            q, kv = self._project(layer, x, turn)
            kept[:, :, first:used] = kv.view(queries, width, 2 * self._kv, -1).transpose(1, 2)
            # Query heads that share a KV head become rows: (Q, G, W·R, D).
            rows = q.view(queries, width, self._kv, self._group, -1).transpose(1, 2)
            keys, values = kept[:, :, :used].chunk(2, dim=1)
            mixed = scaled_dot_product_attention(
                rows.flatten(2, 3), keys, values, attn_mask=mask, scale=1.0
            )
            mixed = mixed.view(queries, self._kv, width, self._group, -1).transpose(1, 2)
            x = self._rest(layer, x, mixed.reshape(queries * width, -1))
        return x if grid is None else x.index_select(0, grid)

    def logprobs(self, hidden: Tensor, parts: Sequence[tuple[int, int]]) -> list[Tensor]:
        logp = self._logits(hidden).log_softmax(dim=1, dtype=torch.float32)
        rows = logp.split([rows for rows, _ in parts])
        return [
            of_part[:, self._columns[level]]
            for of_part, (_, level) in zip(rows, parts, strict=True)
        ]

    def likeliest(self, hidden: Tensor) -> Tensor:
        return self._logits(hidden).argmax(dim=1)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._head(self._norm(hidden))

    def _project(self, layer: _Layer, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (n, H, D), and keys and values (n, 2·G, D), of inputs (n, hidden)."""
        heads = layer.qkv(self._norm(x)).view(len(x), -1, self.config.head_dim)
        both = heads[:, : self._heads + self._kv]
        if layer.qk_norm is not None:
            normal = rms_norm(both.float(), both.shape[-1:], eps=self.config.rms_norm_eps)
            both.copy_(normal * layer.qk_norm)
        pairs = both.unflatten(2, (-1, 2))
        if pairs.dtype == torch.float32:
            torch.view_as_complex(pairs).mul_(turn)
        else:  # complex numbers have no small types
            pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * turn))
        return heads[:, : self._heads], heads[:, self._heads :]

    def _mask(self, cache: Cache, sees: Tensor) -> Tensor:
        """What each prefix attends to, its whole prompt included: (Q, 1, W·R, places), additive."""
        queries, width, places = sees.shape
        mask = sees.new_full(
            (queries, width, cache.prompt + places), -torch.inf, dtype=self._embedding.dtype
        )
        if queries == 1:
            mask[:, :, : cache.prompt] = 0
        else:
            inside = torch.arange(cache.prompt, device=self.device) < cache.lengths[:, None]
            mask[:, :, : cache.prompt].masked_fill_(inside[:, None], 0)
        mask[:, :, cache.prompt :].masked_fill_(sees, 0)
        return mask.repeat_interleave(self._group, 1)[:, None]

    def _rest(self, layer: _Layer, x: Tensor, mixed: Tensor) -> Tensor:
        """What follows attention: its projection and the MLP, each added to what came in."""
        x = layer.out.added_to(x, mixed)
        gate, up = layer.gate_up(self._norm(x)).chunk(2, dim=1)
        return layer.down.added_to(x, silu(gate).mul_(up))

    def _norm(self, x: Tensor) -> Tensor:
        """Rows of x (n, hidden) over their root mean square; its weights are in the products."""
        if x.dtype != torch.float32:
            return rms_norm(x, x.shape[-1:], eps=self.config.rms_norm_eps)
        size = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return x * torch.addcmul(self._eps, size, size, value=1 / x.shape[1]).rsqrt_()


def _columns(tokens: Tensor) -> Tensor | slice:
    """What picks `tokens` out of a row over the vocabulary, without a copy where they adjoin."""
    first = int(tokens[0])
    adjoin = torch.equal(tokens, torch.arange(first, first + len(tokens), device=tokens.device))
    return slice(first, first + len(tokens)) if adjoin else tokens


def _scattered(values: Tensor, grid: Tensor | None, places: int) -> Tensor:
    """Values (n, …) at their places `grid` of (places, …), zero elsewhere; None leaves them."""
    if grid is None:
        return values
    return values.new_zeros(places, *values.shape[1:]).index_copy_(0, grid, values)
