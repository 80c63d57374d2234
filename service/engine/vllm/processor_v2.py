"""The mask as vLLM's second model runner wants it: slots stay, and rows of a step point at them."""

from typing import Any

from torch import Tensor
from vllm.v1.worker.gpu.sample.logits_processor import (
    LogitsContext,
    LogitsProcessor,
    LogitsProcRequestState,
)

from service.engine.vllm.mask import LEVELS, RowState, SidMask


class SidProcessorV2(LogitsProcessor):  # type: ignore[misc]
    """Requests that enter a batch are written together, once a step."""

    def __init__(self, vllm_config: Any, req_states: LogitsProcRequestState) -> None:
        levels = vllm_config.additional_config[LEVELS]
        self._mask = SidMask(levels, req_states.max_num_reqs, req_states.device)
        self._entered: dict[int, RowState | None] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        self._entered[req_idx] = state = RowState.of(sampling_params)
        return state is not None

    def apply_staged_writes(self) -> None:
        if self._entered:
            self._mask.write(list(self._entered), list(self._entered.values()))
            self._entered.clear()

    def apply(self, logits: Tensor, ctx: LogitsContext) -> Tensor:
        slots = ctx.idx_mapping_np
        if len(slots) != logits.shape[0]:  # several rows a request: only the device knows whose
            slots = ctx.expanded_idx_mapping.cpu().numpy()
        return self._mask.apply(logits, slots)
