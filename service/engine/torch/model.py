"""The forward pass of a Llama-family model, shaped for beam search over one long prompt.

The keys and values of a prompt are computed once and shared by all beams of its query. A beam's
own few tokens stand behind the prompt in the same buffer, beside those of the other beams; which
of them a beam sees is said by the attention mask. Reordering beams therefore moves no keys and no
values: it only changes rows of a small integer table.

Letters in shapes: N packed prompt tokens, Q queries, W beams a query, H heads, G = KV heads,
R = H/G query heads on a KV head, D = head size, T longest prompt, S places for beam tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from service.engine.torch.config import ModelConfig
from service.engine.torch.weights import Layer, Weights


@dataclass(slots=True)
class Cache:
    """Keys and values of a batch of queries, per layer (Q, G, T + S, D).

    lengths: (Q,) tokens of each prompt; places length..T-1 are padding
    used:    places filled so far, T plus the beam tokens computed
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: Tensor
    prompt: int
    used: int


class Model:
    """Prefill and decode on the device and in the type of the weights."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.config = config
        self._weights = weights
        device, dtype = weights.embedding.device, weights.embedding.dtype
        self._cos, self._sin = (table.to(device, dtype) for table in config.rope_tables())
        self._heads = config.num_attention_heads
        self._kv = config.num_key_value_heads
        self._group = self._heads // self._kv

    @property
    def device(self) -> torch.device:
        return self._weights.embedding.device

    def prefill(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Cache, Tensor]:
        """Runs prompts of different lengths packed behind each other, without padding work.

        Returns the cache, with `room` places for beam tokens, and the hidden state behind each
        prompt's last token (Q, hidden).
        """
        lengths = [len(prompt) for prompt in prompts]
        device = self.device
        ids = torch.tensor([token for prompt in prompts for token in prompt], device=device)
        position = torch.cat([torch.arange(n, device=device) for n in lengths])
        last = torch.tensor(lengths, device=device).cumsum(0) - 1
        cache = self._new_cache(lengths, room)
        cos, sin = self._cos[position][:, None], self._sin[position][:, None]
        x = self._weights.embedding[ids]  # (N, hidden)
        for i, layer in enumerate(self._weights.layers):
            q, k, v = self._project(layer, x, cos, sin)
            at_end = i == len(self._weights.layers) - 1
            mixed = []
            for j, (qj, kj, vj) in enumerate(
                zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True)
            ):
                n = lengths[j]
                cache.keys[i][j, :, :n] = kj.transpose(0, 1)
                cache.values[i][j, :, :n] = vj.transpose(0, 1)
                # Of the last layer only the last position goes on: its keys are all that is
                # needed of the others.
                queries = qj[-1:] if at_end else qj
                mixed.append(
                    self._causal(queries, cache.keys[i][j, :, :n], cache.values[i][j, :, :n])
                )
            if at_end:
                x = x[last]
            x = x + layer.out(torch.cat(mixed))
            x = x + self._mlp(layer, x)
        return cache, self._norm(x, self._weights.norm)

    def decode(self, cache: Cache, tokens: Tensor, step: int, ancestors: Tensor) -> Tensor:
        """Runs one token of each beam: tokens (Q, W) to hidden states (Q, W, hidden).

        `step` counts the tokens before it behind the prompt, and `ancestors` (Q, W, step) are
        their places in the cache. The tokens of this call take the places from `cache.used` on.
        """
        queries, width = tokens.shape
        first, behind = cache.used, cache.used + width
        cache.used = behind
        mask = self._mask(cache, ancestors, first, width)
        position = cache.lengths + step  # (Q,)
        cos = self._cos[position].repeat_interleave(width, 0)[:, None]
        sin = self._sin[position].repeat_interleave(width, 0)[:, None]
        x = self._weights.embedding[tokens.flatten()]  # (Q·W, hidden)
        for i, layer in enumerate(self._weights.layers):
            q, k, v = self._project(layer, x, cos, sin)
            keys, values = cache.keys[i], cache.values[i]
            keys[:, :, first:behind] = k.view(queries, width, self._kv, -1).transpose(1, 2)
            values[:, :, first:behind] = v.view(queries, width, self._kv, -1).transpose(1, 2)
            # Query heads that share a KV head become rows: (Q, G, W·R, D).
            rows = q.view(queries, width, self._kv, self._group, -1).transpose(1, 2)
            mixed = scaled_dot_product_attention(
                rows.flatten(2, 3), keys[:, :, :behind], values[:, :, :behind], attn_mask=mask
            )
            mixed = mixed.view(queries, self._kv, width, self._group, -1).transpose(1, 2)
            x = x + layer.out(mixed.reshape(queries * width, -1))
            x = x + self._mlp(layer, x)
        return self._norm(x, self._weights.norm).view(queries, width, -1)

    def logprobs(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities of `tokens` (codes,) after each hidden state (rows, hidden).

        Normalised over the full vocabulary, in fp32: (rows, codes).
        """
        logits = self._weights.head(hidden).float()
        return logits[:, tokens] - logits.logsumexp(dim=1, keepdim=True)

    def _new_cache(self, lengths: list[int], room: int) -> Cache:
        shape = (len(lengths), self._kv, max(lengths) + room, self.config.head_dim)
        like = self._weights.embedding

        def empty() -> list[Tensor]:
            # Zeros, because a masked place still enters a product, and 0 · NaN is NaN.
            return [like.new_zeros(shape) for _ in self._weights.layers]

        longest = max(lengths)
        return Cache(empty(), empty(), torch.tensor(lengths, device=like.device), longest, longest)

    def _project(
        self, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries (n, H, D), rotated keys and values (n, G, D) of inputs (n, hidden)."""
        heads = layer.qkv(self._norm(x, layer.input_norm)).view(len(x), -1, self.config.head_dim)
        both = heads[:, : self._heads + self._kv]
        if layer.qk_norm is not None:
            both = rms_norm(both, both.shape[-1:], eps=self.config.rms_norm_eps) * layer.qk_norm
        both = _rotate(both, cos, sin)
        return both[:, : self._heads], both[:, self._heads :], heads[:, self._heads + self._kv :]

    def _causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention within one prompt: q (n, H, D) or its last row, k and v (G, n, D)."""
        k = k.repeat_interleave(self._group, 0)[None]
        v = v.repeat_interleave(self._group, 0)[None]
        causal = q.shape[0] == k.shape[2] and q.shape[0] > 1
        mixed = scaled_dot_product_attention(q.transpose(0, 1)[None], k, v, is_causal=causal)
        return mixed[0].transpose(0, 1).flatten(1)

    def _mask(self, cache: Cache, ancestors: Tensor, first: int, width: int) -> Tensor:
        """What each beam sees: its prompt, its ancestors, itself. (Q, 1, W·R, places), additive."""
        queries = len(cache.lengths)
        device = self.device
        places = torch.arange(first + width, device=device)
        sees = (places < cache.lengths[:, None])[:, None].repeat(1, width, 1)
        own = torch.arange(first, first + width, device=device).expand(queries, width)
        sees.scatter_(2, torch.cat([ancestors, own[:, :, None]], dim=2), True)
        mask = torch.zeros(sees.shape, dtype=self._weights.embedding.dtype, device=device)
        mask.masked_fill_(~sees, -torch.inf)
        return mask.repeat_interleave(self._group, 1)[:, None]

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(self._norm(x, layer.mlp_norm)).chunk(2, dim=-1)
        return layer.down(silu(gate) * up)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding in Hugging Face's layout: the halves of a head are the pairs."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
