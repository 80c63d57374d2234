"""A prompt's last, partly filled block of keys and values, copied to each prefix that needs it.

vLLM's prefix cache shares whole blocks. The rest of a prompt, up to a block less one token, would
be computed again for every beam at every level: for twenty beams that is often more work than the
beams are. A KV connector is vLLM's way to bring keys and values from elsewhere; this one brings
them from a block beside.

The request that computes a prompt is *kept*: its blocks stay after it has finished, until the
query ends. A request that begins with that prompt starts with a copy of the last block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    SupportsHMA,
)
from vllm.v1.request import RequestStatus

PROMPT = "sidrec_prompt"
"""The key, in a request's extra arguments, of the request that computes its prompt: itself or an
earlier one."""


@dataclass
class Copies(KVConnectorMetadata):  # type: ignore[misc]
    """What workers do in a step: copy block `source[i]` to `target[i]`, all at once, before the
    model runs; and confirm that the blocks of `released` requests are needed no more."""

    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    released: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A prompt of `tokens`, in `blocks` blocks of which `last` is the last and may be partial."""

    tokens: int
    blocks: int
    last: int


class PromptTails(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """One instance beside the scheduler, which plans, and one in each worker, which copies."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        groups = kv_cache_config.kv_cache_groups
        # Models that keep keys and values of several kinds compute their tails as vLLM does.
        self._block = groups[0].kv_cache_spec.block_size if len(groups) == 1 else None
        self._blocks = kv_cache_config.num_blocks
        # Room for one request of any length must be left, or nothing would go on; and vLLM keeps
        # one block for itself.
        longest = -(-vllm_config.model_config.max_model_len // (self._block or 1))
        self._may_keep = self._blocks - 1 - longest
        self._kept: dict[str, _Kept] = {}
        self._plan = Copies()
        self._caches: list[Tensor] = []

    # Beside the scheduler.

    def release(self, name: str) -> None:
        """The query of a prompt has ended."""
        if self._kept.pop(name, None) is not None:
            self._plan.released.add(name)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        prompt = self._kept.get(_prompt(request))
        if prompt is None or self._block is None:
            return 0, False
        tail = prompt.tokens - num_computed_tokens
        fits = 0 < tail < self._block and num_computed_tokens % self._block == 0
        return (tail if fits else 0), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if num_external_tokens:
            prompt = self._kept[_prompt(request)]
            self._plan.source.append(prompt.last)
            self._plan.target.append(blocks.get_block_ids()[0][prompt.blocks - 1])

    def build_connector_meta(self, scheduler_output: Any) -> Copies:
        plan, self._plan = self._plan, Copies()
        return plan

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Keeps the blocks of a prompt, unless kept ones would leave too few for the rest."""
        tokens, held = request.num_prompt_tokens, sum(kept.blocks for kept in self._kept.values())
        keep = (
            _prompt(request) == request.request_id
            and request.status != RequestStatus.FINISHED_ABORTED
            and self._block is not None
            and tokens % self._block > 0
            and held + len(block_ids[0]) <= self._may_keep
        )
        if keep:
            blocks = -(-tokens // self._block)
            self._kept[request.request_id] = _Kept(tokens, blocks, block_ids[0][blocks - 1])
        return keep, None

    # In a worker.

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        # Layers may share a tensor; keys and values may come before the blocks or behind them.
        distinct = {cache.data_ptr(): cache for cache in kv_caches.values()}
        self._caches = [
            cache if cache.shape[0] == self._blocks else cache.transpose(0, 1)
            for cache in distinct.values()
        ]

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        plan = self._get_connector_metadata()
        if not plan.source:
            return
        device = self._caches[0].device
        source, target = (torch.tensor(ids, device=device) for ids in (plan.source, plan.target))
        for cache in self._caches:
            # Read before anything is written: a target may be a source that was released.
            cache[target] = cache[source]

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        return self._get_connector_metadata().released, None

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Copies are complete when the model starts."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Tensor, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Nothing leaves the cache."""

    def wait_for_save(self) -> None:
        """Nothing leaves the cache."""


def _prompt(request: Any) -> str:
    extra: Mapping[str, Any] = request.sampling_params.extra_args or {}
    return str(extra.get(PROMPT, ""))
