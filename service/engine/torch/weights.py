"""Weights of a Llama-family model from safetensors, with projections that read the same input
fused into one matrix."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from service.engine.torch.config import ModelConfig
from service.engine.torch.linear import Int8, Linear, Packed, Plain
from service.errors import EngineError


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. What a product can absorb is part of it: projections of the same input
    are one matrix, and the weights of the norms and the scale of attention are in the columns and
    rows that they multiply. In `qkv` the halves of each query and key head are interleaved, so
    that the pairs which rotary embedding turns are neighbours.

    qk_norm: (query heads + KV heads, head size) fp32, what Qwen3 scales each head by; else None
    """

    qkv: Linear
    qk_norm: Tensor | None
    out: Linear
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """embedding (vocab, hidden), and the head from normalised hidden states to vocab."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    head: Linear


def load_weights(
    folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Reads every safetensors shard of `folder`; `dtype` int8 is for matrices, all else stays in
    fp32. Raises `EngineError` for a missing tensor."""
    source = _Source(folder, device, dtype)
    kind = torch.float32 if dtype == torch.int8 else dtype
    embedding = source.take("model.embed_tokens.weight")
    layers = tuple(_layer(source, config, i) for i in range(config.num_hidden_layers))
    head = embedding if config.tie_word_embeddings else source.take("lm_head.weight")
    head = head * source.take("model.norm.weight")
    # A copy, because what was read of a file is the file itself: one that is cut off later, while
    # this model answers, would end the process.
    return Weights(embedding.to(kind, copy=True), layers, source.linear(head, None))


class _Source:
    """The tensors of a model folder, in fp32 until they are a `linear`."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._tensors: dict[str, Tensor] = {}
        for shard in _shards(folder):
            self._tensors.update(load_file(shard, device=str(device)))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise EngineError(f"the weights lack {name}")
        return self._tensors.pop(name).float()

    def projections(self, prefix: str, *names: str) -> tuple[Tensor, Tensor | None]:
        """Weights and biases of several projections as one; 0 for a bias that one lacks."""
        weights = [self.take(f"{prefix}.{name}.weight") for name in names]
        biases = [self._tensors.pop(f"{prefix}.{name}.bias", None) for name in names]
        if all(bias is None for bias in biases):
            return torch.cat(weights), None
        present = [
            weight.new_zeros(len(weight)) if bias is None else bias.float()
            for weight, bias in zip(weights, biases, strict=True)
        ]
        return torch.cat(weights), torch.cat(present)

    def linear(self, weight: Tensor, bias: Tensor | None) -> Linear:
        if self._dtype == torch.int8:
            return Int8(weight, bias)
        weight = weight.to(self._dtype)
        bias = None if bias is None else bias.to(self._dtype)
        packs = weight.device.type == "cpu" and weight.dtype == torch.float32
        return Packed(weight, bias) if packs else Plain(weight, bias)


def _layer(source: _Source, config: ModelConfig, i: int) -> Layer:
    at, attention, mlp = (f"model.layers.{i}{part}" for part in ("", ".self_attn", ".mlp"))
    turn = _Turn(config)
    qk_norm = None
    if f"{attention}.q_norm.weight" in source:
        q_norm, k_norm = (source.take(f"{attention}.{name}_norm.weight") for name in "qk")
        qk_norm = turn.norm(q_norm, k_norm)
    qkv, qkv_bias = source.projections(attention, "q_proj", "k_proj", "v_proj")
    qkv = turn.rows(qkv, scaled=qk_norm is None)
    if qkv_bias is not None:
        qkv_bias = turn.rows(qkv_bias[:, None], scaled=qk_norm is None).flatten()
    up, up_bias = source.projections(mlp, "gate_proj", "up_proj")
    return Layer(
        qkv=source.linear(qkv * source.take(f"{at}.input_layernorm.weight"), qkv_bias),
        qk_norm=qk_norm,
        out=source.linear(*source.projections(attention, "o_proj")),
        gate_up=source.linear(up * source.take(f"{at}.post_attention_layernorm.weight"), up_bias),
        down=source.linear(*source.projections(mlp, "down_proj")),
    )


class _Turn:
    """Rows of the query and key heads as rotary embedding wants them (see `Layer`)."""

    def __init__(self, config: ModelConfig) -> None:
        self._heads, self._kv = config.num_attention_heads, config.num_key_value_heads
        self._size = config.head_dim
        self._order = torch.arange(self._size).view(2, -1).T.flatten()

    def rows(self, x: Tensor, *, scaled: bool) -> Tensor:
        """x (query, key and value rows, …) with the halves of query and key heads interleaved."""
        behind = (self._heads + self._kv) * self._size
        heads = x[:behind].view(self._heads + self._kv, self._size, -1)[:, self._order]
        if scaled:
            heads = heads * self._scale(x)[:, :, None]
        return torch.cat([heads.flatten(0, 1), x[behind:]])

    def norm(self, q_norm: Tensor, k_norm: Tensor) -> Tensor:
        both = torch.cat([q_norm.expand(self._heads, -1), k_norm.expand(self._kv, -1)])
        return both[:, self._order] * self._scale(both)

    def _scale(self, like: Tensor) -> Tensor:
        """The scale of attention for each query head, 1 for each key head."""
        scale = like.new_ones(self._heads + self._kv, 1)
        scale[: self._heads] = self._size**-0.5
        return scale


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [folder / name for name in sorted(names)]
    return [folder / "model.safetensors"]
