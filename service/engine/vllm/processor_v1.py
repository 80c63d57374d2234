"""The mask as vLLM's first model runner wants it: told of every change of the batch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from service.engine.vllm.mask import LEVELS, RowState, SidMask


class SidProcessorV1(LogitsProcessor):  # type: ignore[misc]
    """A row of the batch is a slot, and requests move between slots."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        slots = vllm_config.scheduler_config.max_num_seqs
        self._mask = SidMask(vllm_config.additional_config[LEVELS], slots, device)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        if batch_update.removed:
            self._mask.clear(batch_update.removed)
        if batch_update.added:
            slots, parameters, _, _ = zip(*batch_update.added, strict=True)
            self._mask.write(slots, [RowState.of(p) for p in parameters])
        for one, other, direction in batch_update.moved:
            if direction == MoveDirectionality.SWAP:
                self._mask.swap(one, other)
            else:
                self._mask.move(one, other)

    def apply(self, logits: Tensor) -> Tensor:
        return self._mask.apply(logits, np.arange(logits.shape[0]))
