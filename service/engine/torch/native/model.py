"""`Forward` in our own kernels, for a CPU in fp32.

A small model is bound by the number of torch's operators and not by their work: some five hundred
a search, each of which also takes Python's lock from the event loop. Here a pass is one call that
holds no lock. What a row of a pass needs is said by a few integers:

    position  its place in the text, for rotary embedding
    place     where its keys and values stand in the cache
    seen      how many of the prompt's places it attends to
    begin     of each query, and behind the last: the first of its rows
"""

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from service.engine.torch.config import ModelConfig
from service.engine.torch.forward import Cache, Step
from service.engine.torch.native import kernels
from service.engine.torch.prefixes import Prefix
from service.engine.torch.weights import Affine, Layer, Weights

_ROWS = 512
"""Rows that a pass has at once: enough for each weight that is read, and the work space, which the
kernels keep, stays that small whatever the batch."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """What a pass is about: rows x (n, hidden), to be changed in place. `sees` (n, places) says
    which beam tokens each attends to; `last` (Q,) which rows go on behind attention in the last
    layer, to end in `out`."""

    cache: Cache
    x: Tensor
    position: Tensor
    place: Tensor
    seen: Tensor
    begin: Tensor
    sees: Tensor | None
    last: Tensor | None
    out: Tensor

    def split(self) -> Iterator["_Rows"]:
        """Some queries after the others: of `_ROWS` rows at most, or one that has more."""
        if len(self.x) <= _ROWS:
            yield self
            return
        starts = self.begin.tolist()
        for first, end in _groups(starts):
            some, rows = slice(first, end), slice(starts[first], starts[end])
            cache = self.cache
            layers = [layer[some] for layer in cache.layers]
            yield _Rows(
                Cache(layers, cache.lengths[some], cache.prompt, cache.used),
                self.x[rows],
                self.position[rows],
                self.place[rows],
                self.seen[rows],
                self.begin[first : end + 1] - rows.start,
                None if self.sees is None else self.sees[rows],
                None if self.last is None else self.last[some] - rows.start,
                self.out[rows if self.last is None else some],
            )


class NativeModel:
    """Prefill and decode; the weights are packed once, in fp32."""

    def __init__(
        self, config: ModelConfig, weights: Weights, level_tokens: Sequence[Tensor]
    ) -> None:
        library = kernels()
        assert library is not None, "the caller has looked"
        self._kernels, self._config = library, config
        lanes: int = library.sidrec_lanes()
        self._panel = 2 * lanes
        self._heads, self._kv = config.num_attention_heads, config.num_key_value_heads
        cos, sin = config.rope_tables()
        self._turn = torch.stack([cos, sin], dim=2).contiguous()
        self._model = library.sidrec_model(
            config.num_hidden_layers,
            *(config.hidden_size, self._heads, self._kv, config.head_dim),
            *(config.intermediate_size, config.rms_norm_eps, self._turn.data_ptr()),
        )
        weakref.finalize(self, library.sidrec_free, self._model)
        self._kept: list[Tensor | None] = []  # what the library points to
        for i, layer in enumerate(weights.layers()):
            parts = _packed_layer(layer, self._heads * config.head_dim, lanes)
            self._kept += parts
            library.sidrec_layer(self._model, i, _addresses(parts))
        head = weights.head()
        self._head = _panels(head, self._panel)
        self._codes = [_panels(head[tokens], self._panel) for tokens in level_tokens]
        self._code_counts = [len(tokens) for tokens in level_tokens]
        fill = -config.hidden_size % self._panel
        self._embedding = pad(weights.embedding, (0, fill)) if fill else weights.embedding

    @property
    def device(self) -> torch.device:
        return self._embedding.device

    def prefill(
        self, prompts: Sequence[Sequence[int]], known: Sequence[Prefix], room: int
    ) -> tuple[Cache, Tensor]:
        lengths = [len(prompt) for prompt in prompts]
        starts = [prefix.tokens for prefix in known]
        layers, size = self._config.num_hidden_layers, self._config.head_dim
        cache = Cache.empty(layers, self._kv, size, lengths, room, self._embedding)
        cache.put(known)
        ids = [t for prompt, at in zip(prompts, starts, strict=True) for t in prompt[at:]]
        position = torch.cat([torch.arange(at, n) for at, n in zip(starts, lengths, strict=True)])
        run = torch.tensor([n - at for n, at in zip(lengths, starts, strict=True)])
        begin = pad(run.cumsum(0), (1, 0))
        last = begin[1:] - 1
        x = self._embedding.index_select(0, torch.tensor(ids))
        hidden = torch.empty(len(prompts), x.shape[1])
        rows = _Rows(cache, x, position, position, position + 1, begin, None, last, hidden)
        self._run(rows)
        return cache, hidden

    def decode(self, cache: Cache, step: Step) -> Tensor:
        first, queries = cache.used, len(cache.lengths)
        cache.used += step.width
        token, query, slot, behind, sees = (
            *(step.token, step.query, step.slot),
            *(step.behind, step.sees),
        )
        order = None
        if queries > 1:  # rows of a query must adjoin
            order = query.argsort(stable=True)
            token, query, slot, behind, sees = (
                part.index_select(0, order) for part in (token, query, slot, behind, sees)
            )
        begin = pad(torch.bincount(query, minlength=queries).cumsum(0), (1, 0))
        length = cache.lengths.index_select(0, query)
        x = self._embedding.index_select(0, token)
        rows = _Rows(
            cache, x, length + behind, first + slot, length, begin, sees.contiguous(), None, x
        )
        self._run(rows)
        return x if order is None else torch.empty_like(x).index_copy_(0, order, x)

    def logprobs(self, hidden: Tensor, parts: Sequence[tuple[int, int]]) -> list[Tensor]:
        counts = [self._code_counts[level] for _, level in parts]
        found = [
            torch.empty(rows, count + -count % self._panel)
            for (rows, _), count in zip(parts, counts, strict=True)
        ]
        self._kernels.sidrec_logprobs(
            *(self._model, self._head.data_ptr(), self._config.vocab_size, len(parts)),
            _numbers([rows for rows, _ in parts]),
            _addresses([self._codes[level] for _, level in parts]),
            _numbers(counts),
            _addresses(found),
            *(hidden.data_ptr(), len(hidden), torch.get_num_threads()),
        )
        return [part[:, :count] for part, count in zip(found, counts, strict=True)]

    def likeliest(self, hidden: Tensor) -> Tensor:
        token: int = self._kernels.sidrec_likeliest(
            self._model, self._head.data_ptr(), self._config.vocab_size, hidden.data_ptr()
        )
        return torch.tensor([token])

    def _run(self, rows: _Rows) -> None:
        """All layers over the rows."""
        for few in rows.split():
            self._run_at_once(few)

    def _run_at_once(self, rows: _Rows) -> None:
        places = rows.cache.layers[0].shape[2]
        extra = 0 if rows.sees is None else rows.sees.shape[1]
        self._kernels.sidrec_run(
            *(self._model, len(rows.x), len(rows.begin) - 1, rows.cache.prompt, places, extra),
            torch.get_num_threads(),
            *(part.data_ptr() for part in (rows.position, rows.place, rows.seen, rows.begin)),
            rows.cache.lengths.data_ptr(),
            None if rows.sees is None else rows.sees.data_ptr(),
            _addresses(rows.cache.layers),
            None if rows.last is None else rows.last.data_ptr(),
            *(rows.x.data_ptr(), rows.out.data_ptr()),
        )


def _groups(starts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first query of each group, and the one behind its last. `starts` has the first row of
    each query, and the end of all."""
    first = 0
    for end in range(1, len(starts)):
        if end + 1 == len(starts) or starts[end + 1] - starts[first] > _ROWS:
            yield first, end
            first = end


def _packed_layer(layer: Layer, wide: int, lanes: int) -> list[Tensor | None]:
    """What `sidrec_layer` asks for, in its order; `wide` numbers are a position's queries."""
    gate_up = _interleaved(layer.gate_up, lanes)
    parts: list[Tensor | None] = []
    for affine in (*_split(layer.qkv, wide), layer.out, gate_up, layer.down):
        bias = affine.bias
        padded = None if bias is None else pad(bias, (0, -len(bias) % (2 * lanes)))
        parts += [_panels(affine.weight, 2 * lanes), padded]
    norm = layer.qk_norm
    return [*parts, None if norm is None else norm.contiguous()]


def _split(affine: Affine, at: int) -> tuple[Affine, Affine]:
    weight, bias = affine.weight, affine.bias
    if bias is None:
        return Affine(weight[:at], None), Affine(weight[at:], None)
    return Affine(weight[:at], bias[:at]), Affine(weight[at:], bias[at:])


def _interleaved(affine: Affine, lanes: int) -> Affine:
    """Gate and up (2·inner, in) so that a panel has the gate of `lanes` numbers and then their
    up."""

    def mixed(x: Tensor) -> Tensor:
        both = x.unflatten(0, (2, -1))  # (2, inner, …)
        fill = both.new_zeros(2, -both.shape[1] % lanes, *both.shape[2:])
        both = torch.cat([both, fill], dim=1).unflatten(1, (-1, lanes))
        turned: Tensor = both.transpose(0, 1).flatten(0, 2)
        return turned

    return Affine(mixed(affine.weight), None if affine.bias is None else mixed(affine.bias))


def _panels(weight: Tensor, panel: int) -> Tensor:
    """(out, in) as (panels, in, panel): a product reads it from front to back."""
    filled = pad(weight, (0, 0, 0, -len(weight) % panel))
    panels: Tensor = filled.unflatten(0, (-1, panel)).transpose(1, 2).contiguous()
    return panels


def _addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Of tensors that the caller keeps."""
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    return (ctypes.c_void_p * len(pointers))(*pointers)


def _numbers(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)
