"""Weights of a Llama-family model from safetensors, with projections that read the same input
fused into one matrix."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from service.engine.torch.config import ModelConfig
from service.errors import EngineError


class Linear:
    """A matrix (out, in) with a bias (out,) or None, applied to rows (n, in).

    On a CPU in fp32 the matrix is packed once into oneDNN's layout, the operator that torch's
    own compiler emits for it: the same products, without arranging the matrix at every call.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._bias = bias
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.float32
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self._packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        if not self._packed:
            return torch.nn.functional.linear(x, self._weight, self._bias)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, "none", [], ""
        )
        return result


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. `qkv` and `gate_up` are fused.

    qk_norm: (query heads + KV heads, head size), what Qwen3 scales each head by; else None
    """

    input_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """embedding (vocab, hidden), norm (hidden,), and the head from hidden to vocab."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear


def load_weights(
    folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Reads every safetensors shard of `folder`. Raises `EngineError` for a missing tensor."""
    tensors: dict[str, Tensor] = {}
    for shard in _shards(folder):
        loaded = load_file(shard, device=str(device))
        tensors.update({name: tensor.to(dtype) for name, tensor in loaded.items()})

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise EngineError(f"the weights lack {name}")
        return tensors.pop(name)

    def fused(prefix: str, *names: str) -> Linear:
        weight = torch.cat([take(f"{prefix}.{name}.weight") for name in names])
        biases = [tensors.pop(f"{prefix}.{name}.bias", None) for name in names]
        present = [bias for bias in biases if bias is not None]
        return Linear(weight, torch.cat(present) if present else None)

    def qk_norm(at: str) -> Tensor | None:
        if f"{at}.self_attn.q_norm.weight" not in tensors:
            return None
        q, k = (take(f"{at}.self_attn.{name}_norm.weight") for name in "qk")
        heads = config.num_attention_heads, config.num_key_value_heads
        return torch.cat([q.expand(heads[0], -1), k.expand(heads[1], -1)])

    def layer(i: int) -> Layer:
        at = f"model.layers.{i}"
        return Layer(
            input_norm=take(f"{at}.input_layernorm.weight"),
            qkv=fused(f"{at}.self_attn", "q_proj", "k_proj", "v_proj"),
            qk_norm=qk_norm(at),
            out=fused(f"{at}.self_attn", "o_proj"),
            mlp_norm=take(f"{at}.post_attention_layernorm.weight"),
            gate_up=fused(f"{at}.mlp", "gate_proj", "up_proj"),
            down=fused(f"{at}.mlp", "down_proj"),
        )

    embedding = take("model.embed_tokens.weight")
    return Weights(
        embedding=embedding,
        layers=tuple(layer(i) for i in range(config.num_hidden_layers)),
        norm=take("model.norm.weight"),
        head=Linear(embedding if config.tie_word_embeddings else take("lm_head.weight")),
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [folder / name for name in sorted(names)]
    return [folder / "model.safetensors"]
