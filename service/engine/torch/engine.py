"""Beam-native search: one prefill per query, then one small step per level of the SID."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model_store.bundle import Bundle
from model_store.sid import EligibilityBatch
from service.engine.base import Beam, Query
from service.engine.batching import BatchingEngine
from service.engine.beams import Beams, advance, answers
from service.engine.torch.config import ModelConfig
from service.engine.torch.model import Cache, Model
from service.engine.torch.weights import load_weights
from service.errors import EngineError


class TorchEngine(BatchingEngine):
    """The engine for a Llama-family model in plain torch, on a CPU (fp32) or a GPU (bf16).

    device:       "cpu", "cuda", "cuda:1" …; by default a GPU where there is one
    dtype:        "float32" or "bfloat16"; by default what suits the device
    batch_tokens: prompt tokens that one batch may hold

    It runs no LoRA adapters: merged at load they would cost one full copy of the weights per
    scene, and queries of different scenes would no longer share a batch.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int = 4096,
    ) -> None:
        _refuse_adapters(bundle)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = getattr(torch, dtype or ("float32" if place.type == "cpu" else "bfloat16"))
        config = ModelConfig.load(bundle.model_path)
        self._model = Model(config, load_weights(bundle.model_path, config, place, kind))
        self._level_tokens = [
            torch.from_numpy(ids).clamp(min=0).to(place) for ids in bundle.level_tokens
        ]
        self.trie = bundle.trie.to(place)
        self.max_prompt_tokens = bundle.max_prompt_tokens
        super().__init__(batch_tokens=batch_tokens)

    @torch.inference_mode()
    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        device = self._model.device
        widths = torch.tensor([query.beam_width for query in queries], device=device)
        eligible = EligibilityBatch([q.eligible for q in queries], self.trie.n_items).to(device)
        widest = max(query.beam_width for query in queries)
        room = sum(min(widest, self.trie.n_nodes(depth)) for depth in range(1, self.trie.depth))
        cache, hidden = self._model.prefill([q.prompt_token_ids for q in queries], room)
        beams = Beams.start(len(queries), device)
        row = torch.arange(len(queries), device=device)[:, None]
        # (Q, W, tokens): where in the cache the tokens of each beam stand.
        ancestors = torch.empty(len(queries), 1, 0, dtype=torch.long, device=device)
        for depth in range(self.trie.depth):
            if depth > 0:
                hidden, row, ancestors = self._step(depth, beams, cache, ancestors)
            logp = self._model.logprobs(hidden, self._level_tokens[depth])
            beams = advance(self.trie, depth, beams, logp, row, widths, eligible)
            if beams.node.shape[1] == 0:  # nothing is eligible, for any of the queries
                return [[] for _ in queries]
            ancestors = _follow(ancestors, beams.parent)
        return answers(self.trie, beams)

    def _step(
        self, depth: int, beams: Beams, cache: Cache, ancestors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the tokens chosen last through the model, for the beams that can still grow.

        Returns hidden states (rows, hidden), the row of each beam (Q, W), and the ancestors with
        the new tokens.
        """
        queries = beams.node.shape[0]
        grows = beams.alive & ~self.trie.only_ends(depth, beams.node)
        run = max(1, int(grows.sum(1).max()))
        # The beams to run come first in `order`; `slot` is each beam's place there.
        order = grows.int().argsort(dim=1, descending=True, stable=True)
        slot = order.argsort(dim=1).clamp(max=run - 1)
        chosen = order[:, :run]
        tokens = self._level_tokens[depth - 1][beams.code.gather(1, chosen).clamp(min=0)]
        first = cache.used
        hidden = self._model.decode(cache, tokens, depth - 1, _follow(ancestors, chosen))
        row = slot + torch.arange(queries, device=slot.device)[:, None] * run
        return hidden.flatten(0, 1), row, torch.cat([ancestors, (slot + first)[:, :, None]], 2)


def _follow(ancestors: Tensor, places: Tensor) -> Tensor:
    """Rows `places` (Q, V) of `ancestors` (Q, W, n): (Q, V, n)."""
    return ancestors.gather(1, places[:, :, None].expand(-1, -1, ancestors.shape[2]))


def _refuse_adapters(bundle: Bundle) -> None:
    if bundle.adapters:
        raise EngineError(
            "engine 'torch': the bundle has LoRA adapters for the scenes"
            f" {', '.join(bundle.adapters)}, and this engine runs none; serve it with"
            " --engine vllm, or merge each adapter into the model and publish a bundle per scene"
        )
