"""Beam-native search: one pass over the prompts, then few small ones over the prefixes."""

from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch import Tensor

from model_store.bundle import Bundle
from model_store.sid import EligibilityBatch, Trie
from service.engine.base import Beam, Query
from service.engine.batching import BatchingEngine
from service.engine.beams import Beams, advance, answers
from service.engine.frontier import Level, frontier
from service.engine.torch.config import ModelConfig
from service.engine.torch.forward import Cache, Forward, Step
from service.engine.torch.model import Model
from service.engine.torch.native import kernels
from service.engine.torch.native.model import NativeModel
from service.engine.torch.prefixes import NOTHING, PrefixCache
from service.engine.torch.weights import Weights
from service.engine.trace import Tracer
from service.errors import EngineError

PREFIX_BYTES = 256 << 20


class TorchEngine(BatchingEngine):
    """The engine for a Llama-family model on torch, on a CPU (fp32) or a GPU (bf16).

    device:       "cpu", "cuda", "cuda:1" …; by default a GPU where there is one
    dtype:        "float32" or "bfloat16", by default what suits the device; or "int8" on a CPU:
                  two to four times as many products a second, beams that differ a little
    batch_tokens: tokens of prompts and beams that one batch may hold
    prefix_bytes: memory for keys and values of prompts seen lately; 0 computes every prompt anew
    native:       our own kernels (CPU, fp32); by default where they were built, else torch's

    It runs no LoRA adapters: merged at load they would cost one full copy of the weights per
    scene, and queries of different scenes would no longer share a batch. Raises `EngineError` for
    a model, device or type that it cannot run.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int = 8192,
        prefix_bytes: int = PREFIX_BYTES,
        native: bool | None = None,
    ) -> None:
        _refuse_adapters(bundle)
        place = _device(device)
        kind = _dtype(dtype, place)
        config = ModelConfig.load(bundle.model_path)
        self._level_tokens = [
            torch.from_numpy(ids).clamp(min=0).to(place) for ids in bundle.level_tokens
        ]
        weights = Weights(bundle.model_path, config, place)
        self._model = _model(config, weights, self._level_tokens, kind, native)
        self._spare = _spare_rows(config, place)
        self._prefixes = PrefixCache(prefix_bytes)
        self.trie = bundle.trie.to(place)
        self.max_prompt_tokens = bundle.max_prompt_tokens
        self.max_length = bundle.max_length
        self._ends = bundle.end_tokens
        super().__init__(batch_tokens=batch_tokens)

    def place(self, trie: Trie) -> Trie:
        return trie.to(self._model.device)

    @torch.inference_mode()
    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        device, trie = self._model.device, self.trie_of(queries[0])
        widths = [query.beam_width for query in queries]
        eligible = EligibilityBatch([q.eligible for q in queries], trie.n_items).to(device)
        prompts = [query.prompt_token_ids for query in queries]
        cache, hidden = self._prefill(prompts, self._room(queries, trie))
        [logp] = self._model.logprobs(hidden, [(len(queries), 0)])
        tracer = Tracer(queries)
        start = Beams.start(len(queries), device)
        beams = advance(trie, 0, start, logp, start.query, widths, eligible)
        tracer.record(trie, 0, beams, logp, start.query)
        # (beams, tokens): where behind the prompt the tokens of each beam stand.
        paths = torch.empty(len(beams), 0, dtype=torch.long, device=device)
        depth = 1
        while depth < trie.depth:
            levels = frontier(trie, depth, beams, eligible, self._spare)
            asked, paths = self._ask(levels, len(queries), cache, paths)
            for level, logp in zip(levels, asked, strict=True):
                row = level.row(beams)
                beams = advance(trie, depth, beams, logp, row, widths, eligible)
                tracer.record(trie, depth, beams, logp, row)
                depth += 1
            if depth < trie.depth:
                paths = paths[beams.parent]
        return answers(trie, beams, explain=any(query.explain for query in queries))

    @torch.inference_mode()
    def _write(self, prompt: Sequence[int], max_tokens: int) -> Iterator[int]:
        # As `decode` has it: one query with one prefix, which sees all of itself.
        cache, hidden = self._model.prefill([prompt], [NOTHING], max_tokens)
        for written in count():
            token = self._model.likeliest(hidden)
            if (chosen := int(token)) in self._ends:
                return
            yield chosen
            one, sees = torch.zeros_like(token), torch.ones_like(token, dtype=torch.bool)
            step = Step(token, one, one, 1, one + written, sees.expand(1, written + 1))
            hidden = self._model.decode(cache, step)

    def _prefill(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Cache, Tensor]:
        known = [self._prefixes.find(prompt) for prompt in prompts]
        cache, hidden = self._model.prefill(prompts, known, room)
        for j, (prompt, prefix) in enumerate(zip(prompts, known, strict=True)):
            self._count_prompt(len(prompt), prefix.tokens)
            if prefix.tokens < len(prompt) - 1:
                kept = [layer[j, :, : len(prompt)] for layer in cache.layers]
                self._prefixes.keep(prompt, kept)
        return cache, hidden

    def _room(self, queries: Sequence[Query], trie: Trie) -> int:
        """Places for beam tokens that a query may need: each pass may be wider by the spare."""
        widest = max(query.beam_width for query in queries)
        levels = range(1, trie.depth)
        return sum(min(widest, trie.n_nodes(depth)) + self._spare for depth in levels)

    def _ask(
        self, levels: Sequence[Level], queries: int, cache: Cache, paths: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """One pass over the prefixes of `levels`.

        Returns log-probabilities of the codes behind them, per level (n, codes), and the paths
        of the beams with the tokens of this pass; any for a beam that was not asked about.
        """
        # Where every beam is a complete SID no row is right, but one must be there.
        nothing = paths.new_zeros(1, 1, dtype=torch.float32)
        if len(levels[0]) == 0:
            return [nothing for _ in levels], paths
        query = torch.cat([level.query for level in levels])
        slot, run = _slots(query, queries)
        tokens = [self._level_tokens[level.depth - 1][level.code] for level in levels]
        behind = [torch.full_like(level.code, level.depth - 1) for level in levels]
        first = cache.used - cache.prompt
        sees = torch.zeros(len(query), first + run, dtype=torch.bool, device=query.device)
        sizes = [len(level) for level in levels]
        path, extended = paths, paths
        for level, slots, seen in zip(levels, slot.split(sizes), sees.split(sizes), strict=True):
            path = torch.cat([path[level.parent], first + slots[:, None]], dim=1)
            seen.scatter_(1, path, True)
            if level is levels[0]:
                extended = path.new_zeros(len(paths), path.shape[1])
                extended[level.parent] = path
        step = Step(torch.cat(tokens), query, slot, run, torch.cat(behind), sees)
        hidden = self._model.decode(cache, step)
        parts = [(len(level), level.depth) for level in levels]
        logp = self._model.logprobs(hidden, parts)
        found = [part if len(part) else nothing for part in logp]
        return found, extended


def _model(
    config: ModelConfig,
    weights: Weights,
    level_tokens: Sequence[Tensor],
    dtype: torch.dtype,
    native: bool | None,
) -> Forward:
    """The pass in our own kernels where they run and are not declined, else in torch's."""
    if native is False:
        return Model(config, weights, level_tokens, dtype)
    if weights.embedding.device.type != "cpu" or dtype != torch.float32:
        problem = "native kernels are for a CPU in float32"
    elif kernels() is None:
        problem = "the native kernels were not built for this machine: install with a C++ compiler"
    else:
        return NativeModel(config, weights, level_tokens)
    if native:
        raise EngineError(problem)
    return Model(config, weights, level_tokens, dtype)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"device {name!r}: {str(error).splitlines()[0]}") from error
    return device


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    known = {kind: getattr(torch, kind) for kind in ("float32", "bfloat16", "int8")}
    chosen = name or ("float32" if device.type == "cpu" else "bfloat16")
    if chosen not in known:
        raise EngineError(f"dtype {chosen!r} is none of {', '.join(known)}")
    if chosen == "int8" and device.type != "cpu":
        raise EngineError("dtype 'int8' runs on a CPU only")
    dtype: torch.dtype = known[chosen]
    return dtype


def _slots(query: Tensor, queries: int) -> tuple[Tensor, int]:
    """The place of each row (n,) among those of its query, and the most that a query has."""
    if queries == 1:
        return torch.arange(len(query), device=query.device), len(query)
    order = query.argsort(stable=True)
    count = torch.bincount(query, minlength=queries)
    begin = count.cumsum(0) - count
    slot = torch.empty_like(query)
    slot[order] = torch.arange(len(query), device=query.device) - begin[query[order]]
    return slot, int(count.max())


def _spare_rows(config: ModelConfig, device: torch.device) -> int:
    """How many rows cost a pass as much as another pass.

    On a CPU a pass costs some 60 µs a layer before it has multiplied anything, in which time
    5 million weights are multiplied with a row. A GPU reads the weights for 256 rows as for one.
    """
    if device.type != "cpu":
        return 256
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    weights = config.hidden_size * (heads * config.head_dim + 3 * config.intermediate_size)
    return max(4, 5_000_000 // weights)


def _refuse_adapters(bundle: Bundle) -> None:
    if bundle.adapters:
        raise EngineError(
            "engine 'torch': the bundle has LoRA adapters for the scenes"
            f" {', '.join(bundle.adapters)}, and this engine runs none; serve it with"
            " --engine vllm, or merge each adapter into the model and publish a bundle per scene"
        )
