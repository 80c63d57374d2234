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


@dataclass(frozen=True, slots=True)
class Linear:
    """weight (out, in), bias (out,) or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. `qkv` and `gate_up` are fused; the norms of Qwen3 may be absent."""

    input_norm: Tensor
    qkv: Linear
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """embedding and head (vocab, hidden), the same tensor when they are tied; norm (hidden,)."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Tensor


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

    def layer(i: int) -> Layer:
        at = f"model.layers.{i}"
        return Layer(
            input_norm=take(f"{at}.input_layernorm.weight"),
            qkv=fused(f"{at}.self_attn", "q_proj", "k_proj", "v_proj"),
            q_norm=tensors.pop(f"{at}.self_attn.q_norm.weight", None),
            k_norm=tensors.pop(f"{at}.self_attn.k_norm.weight", None),
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
        head=embedding if config.tie_word_embeddings else take("lm_head.weight"),
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [folder / name for name in sorted(names)]
    return [folder / "model.safetensors"]
