"""The forward pass of a Llama-family model, shaped for beam search over one long prompt.

The keys and values of a prompt are computed once and shared by all beams of its query. A beam's
own few tokens stand behind the prompt in the same buffer, beside those of the other beams; which
of them a beam sees is said by the attention mask. Reordering beams therefore moves no keys and no
values, and one pass can carry prefixes of several lengths.

Letters in shapes: N packed prompt tokens, Q queries, W prefixes a query, H heads, G = KV heads,
R = H/G query heads on a KV head, D = head size, T longest prompt, S places for beam tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from service.engine.torch.config import ModelConfig
from service.engine.torch.prefixes import Prefix
from service.engine.torch.weights import Layer, Weights


@dataclass(slots=True)
class Cache:
    """Keys and values of a batch of queries: per layer (Q, 2·G, T + S, D), the keys first.

    lengths: (Q,) tokens of each prompt; places length..T-1 are padding
    prompt:  T
    used:    places filled so far, T plus the beam tokens computed
    """

    layers: list[Tensor]
    lengths: Tensor
    prompt: int
    used: int


class Model:
    """Prefill and decode on the device and in the type of the weights."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.config = config
        self._weights = weights
        cos, sin = config.rope_tables()
        # (positions, 1, D/2) complex: one factor turns each pair of every head.
        self._turn = torch.complex(cos, sin)[:, None].to(self.device)
        self._eps = torch.full((1, 1), config.rms_norm_eps, device=self.device)
        self._heads = config.num_attention_heads
        self._kv = config.num_key_value_heads
        self._group = self._heads // self._kv

    @property
    def device(self) -> torch.device:
        return self._weights.embedding.device

    def prefill(
        self, prompts: Sequence[Sequence[int]], known: Sequence[Prefix], room: int
    ) -> tuple[Cache, Tensor]:
        """Runs what is not `known` of prompts of different lengths, packed behind each other,
        without padding work.

        Returns the cache, with `room` places for beam tokens, and the hidden state behind each
        prompt's last token (Q, hidden).
        """
        lengths, starts = [len(prompt) for prompt in prompts], [prefix.tokens for prefix in known]
        run = [n - start for n, start in zip(lengths, starts, strict=True)]
        device = self.device
        ids = [t for prompt, at in zip(prompts, starts, strict=True) for t in prompt[at:]]
        position = torch.cat(
            [torch.arange(at, n, device=device) for at, n in zip(starts, lengths, strict=True)]
        )
        last = torch.tensor(run, device=device).cumsum(0) - 1
        cache = self._new_cache(lengths, room)
        turn = self._turn.index_select(0, position)
        x = self._weights.embedding.index_select(0, torch.tensor(ids, device=device))  # (N, hidden)
        masks = [self._later(n, at) for n, at in zip(run, starts, strict=True)]
        for i, (layer, kept) in enumerate(zip(self._weights.layers, cache.layers, strict=True)):
            q, kv = self._project(layer, x, turn)
            at_end = i + 1 == len(cache.layers)
            mixed = []
            for j, (qj, kvj) in enumerate(zip(q.split(run), kv.split(run), strict=True)):
                if (before := known[j].kept) is not None:
                    kept[j, :, : starts[j]] = before[i, :, : starts[j]]
                kept[j, :, starts[j] : lengths[j]] = kvj.transpose(0, 1)
                # Of the last layer only the last position goes on: its keys are all that is
                # needed of the others.
                rows, mask = (qj[-1:], None) if at_end else (qj, masks[j])
                mixed.append(self._causal(rows, kept[j, :, : lengths[j]], mask))
            if at_end:
                x = x[last]
            x = self._rest(layer, x, mixed[0] if len(mixed) == 1 else torch.cat(mixed))
        return cache, x

    def decode(self, cache: Cache, tokens: Tensor, behind: Tensor, sees: Tensor) -> Tensor:
        """Runs prefixes that are one token longer than what the cache has of them.

        tokens: (Q, W) the last token of each prefix; they take the places from `cache.used` on
        behind: (Q, W) the tokens that stand between it and the prompt
        sees:   (Q, W, places behind the prompt, these included) which of them it attends to
        Returns hidden states (Q·W, hidden).
        """
        queries, width = tokens.shape
        first, used = cache.used, cache.used + width
        cache.used = used
        mask = self._mask(cache, sees)
        turn = self._turn.index_select(0, (cache.lengths[:, None] + behind).flatten())
        x = self._weights.embedding.index_select(0, tokens.flatten())  # (Q·W, hidden)
        for layer, kept in zip(self._weights.layers, cache.layers, strict=True):
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
        return x

    def logprobs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities over the vocabulary after hidden states (rows, hidden), in fp32."""
        logits: Tensor = self._weights.head(self._norm(hidden))
        return logits.log_softmax(dim=1, dtype=torch.float32)

    def _new_cache(self, lengths: list[int], room: int) -> Cache:
        longest, like = max(lengths), self._weights.embedding
        shape = (len(lengths), 2 * self._kv, longest + room, self.config.head_dim)
        # Zeros, because a masked place still enters a product, and 0 · NaN is NaN.
        layers = [like.new_zeros(shape) for _ in self._weights.layers]
        return Cache(layers, torch.tensor(lengths, device=like.device), longest, longest)

    def _project(self, layer: Layer, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
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

    def _later(self, rows: int, start: int) -> Tensor | None:
        """Which tokens of a prompt its last `rows`, from `start` on, may see: (rows, n); None
        where the order of the places says it."""
        if start == 0 or rows == 1:
            return None
        seen = torch.ones(rows, start + rows, dtype=torch.bool, device=self.device)
        return seen.tril_(start)

    def _causal(self, q: Tensor, kv: Tensor, mask: Tensor | None) -> Tensor:
        """Attention within one prompt: its last rows q (m, H, D), kv (2·G, n, D)."""
        k, v = kv.repeat_interleave(self._group, 0)[None].chunk(2, dim=1)
        causal = mask is None and q.shape[0] > 1
        mixed = scaled_dot_product_attention(
            q.transpose(0, 1)[None], k, v, attn_mask=mask, is_causal=causal, scale=1.0
        )
        return mixed[0].transpose(0, 1).flatten(1)

    def _mask(self, cache: Cache, sees: Tensor) -> Tensor:
        """What each prefix attends to, its whole prompt included: (Q, 1, W·R, places), additive."""
        queries, width, places = sees.shape
        mask = sees.new_full(
            (queries, width, cache.prompt + places), -torch.inf, dtype=self._weights.embedding.dtype
        )
        if queries == 1:
            mask[:, :, : cache.prompt] = 0
        else:
            inside = torch.arange(cache.prompt, device=self.device) < cache.lengths[:, None]
            mask[:, :, : cache.prompt].masked_fill_(inside[:, None], 0)
        mask[:, :, cache.prompt :].masked_fill_(sees, 0)
        return mask.repeat_interleave(self._group, 1)[:, None]

    def _rest(self, layer: Layer, x: Tensor, mixed: Tensor) -> Tensor:
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
