"""vLLM's engine arguments for this workload, and what a caller may change of them."""

import os
from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from typing import Any, get_args

from model_store.bundle import Bundle
from service.engine.vllm.mask import LEVELS
from service.errors import EngineError

# Before vLLM is imported, which reads some of these at that moment: its core runs in this process,
# the model is a local folder, and a service does not report to anyone that it was started.
for _name, _value in {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(_name, _value)

from vllm.config import KVTransferConfig  # noqa: E402
from vllm.config.lora import MaxLoRARanks  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

__all__ = ["EngineArgs", "current_platform", "engine_args"]

_OURS = {
    "model",
    "tokenizer",
    "skip_tokenizer_init",
    "logits_processors",
    "logprobs_mode",
    "max_logprobs",
    "additional_config",
    "speculative_config",
    "enable_lora",
    "lora_target_modules",
}
"""What the search itself decides: another value would make it wrong, not slower."""

_SPREAD = {
    "data_parallel": "a process searches with one copy of the model; run a service for each copy,"
    " behind a balancer",
    "pipeline_parallel": "a level of a search waits for the one before, so stages would stand idle;"
    " tensor_parallel_size shares out a model too",
}
"""Why options that begin like this cannot be chosen: docs/scaling.md."""

_GIB = 2**30


def engine_args(bundle: Bundle, options: Mapping[str, Any]) -> EngineArgs:
    """The arguments for a bundle: our defaults, changed by `options`.

    Raises `EngineError` for an option that vLLM does not have or the search decides itself.
    """
    known = {field.name for field in fields(EngineArgs)}
    if unknown := sorted(set(options) - known):
        raise EngineError(f"engine 'vllm': vLLM has no engine argument {', '.join(unknown)}")
    if taken := sorted(set(options) & _OURS):
        raise EngineError(f"engine 'vllm': {', '.join(taken)} cannot be chosen")
    for name, (start, reason) in product(sorted(options), _SPREAD.items()):
        if name.startswith(start):
            raise EngineError(f"engine 'vllm': {name}: {reason}")
    chosen = {**_defaults(bundle, options), **options}
    depth, length = bundle.spec.depth, int(chosen["max_model_len"])
    if not depth < length <= bundle.max_length:
        raise EngineError(
            f"engine 'vllm': max_model_len {length} does not fit: a prompt and a SID of {depth}"
            f" tokens need more than {depth}, and the model has {bundle.max_length} positions"
        )
    return EngineArgs(**chosen, **_ours(bundle))


def _defaults(bundle: Bundle, options: Mapping[str, Any]) -> dict[str, Any]:
    """A caller may change these."""
    chosen: dict[str, Any] = {
        "max_model_len": bundle.max_length,
        "enable_prefix_caching": True,
        # Blocks of a prompt are shared whole: the smaller they are, the less of its end is
        # computed again for each beam.
        "block_size": 16,
        "max_num_seqs": 512,
        "max_num_batched_tokens": 8192,
        # A step's requests follow from the answers of the one before: nothing to run ahead of.
        "async_scheduling": False,
        "generation_config": "vllm",
        "disable_log_stats": True,
        "kv_transfer_config": KVTransferConfig(
            kv_connector="PromptTails",
            kv_connector_module_path="service.engine.vllm.tails",
            kv_role="kv_both",
        ),
        "use_tqdm_on_load": False,
    }
    if bundle.adapters:
        count = len(bundle.adapters)
        # Where fewer share a step than there are, the others wait in memory and not on disk.
        kept = max(count, int(options.get("max_loras", count)))
        chosen |= {"max_loras": count, "max_cpu_loras": kept, "max_lora_rank": _rank(bundle)}
    if current_platform.is_cpu():
        chosen |= {
            "dtype": "float32",
            "enforce_eager": True,
            "block_size": 32,  # its attention kernels know multiples of 32 only
            "kv_cache_memory_bytes": _GIB,
        }
    return chosen


def _ours(bundle: Bundle) -> dict[str, Any]:
    return {
        "model": str(bundle.model_path),
        "skip_tokenizer_init": True,
        # The mask's output as it is; other modes ignore it, or normalise over what it leaves.
        "logprobs_mode": "processed_logits",
        "max_logprobs": max(level.size for level in bundle.spec.levels),
        "additional_config": {LEVELS: [ids.tolist() for ids in bundle.level_tokens]},
        "enable_lora": bool(bundle.adapters),
    }


def _rank(bundle: Bundle) -> int:
    """The smallest rank for which vLLM has room and that every adapter fits into."""
    largest = max(adapter.rank for adapter in bundle.adapters.values())
    known: tuple[int, ...] = get_args(MaxLoRARanks)
    fitting = [rank for rank in known if rank >= largest]
    if not fitting:
        raise EngineError(
            f"engine 'vllm': an adapter has rank {largest}, vLLM runs at most {max(known)}"
        )
    return min(fitting)
