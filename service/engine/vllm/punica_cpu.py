"""vLLM's LoRA arithmetic on a CPU, made right for batches that mix adapters and none.

Rows without an adapter have the index -1. vLLM's GPU kernels skip them; its CPU operators
(`vllm.lora.ops.torch_ops`, seen in 0.32.0) index with it, so such a row gets the adapter of the
last slot as soon as any row beside it has one (pull requests 48421 and 49656 of vLLM, both open).
"""

from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class MixedPunicaCPU(PunicaWrapperCPU):  # type: ignore[misc]
    """What A makes of a row without adapter is nothing, and B makes nothing of that."""

    def _shrink_prefill(self, y: Tensor, x: Tensor, w_t_all: Tensor, scale: float) -> None:
        super()._shrink_prefill(y, x, w_t_all, scale)
        if not self.no_lora:
            y[self.token_lora_indices < 0] = 0
