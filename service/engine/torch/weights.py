"""Weights of a Llama-family model from safetensors, with projections that read the same input
fused into one matrix."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from service.engine.torch.config import ModelConfig
from service.errors import EngineError


@dataclass(frozen=True, slots=True)
class Affine:
    """A matrix (out, in) and perhaps a bias (out,), in fp32."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. What a product can absorb is part of it: projections of the same input
    are one matrix, and the weights of the norms and the scale of attention are in the columns and
    rows that they multiply. In `qkv` the halves of each query and key head are interleaved, so
    that the pairs which rotary embedding turns are neighbours.

    qk_norm: (query heads + KV heads, head size) fp32, what Qwen3 scales each head by; else None
    """

    qkv: Affine
    qk_norm: Tensor | None
    out: Affine
    gate_up: Affine
    down: Affine


class Weights:
    """The tensors of a model folder, read from every safetensors shard, each taken once.

    Raises `EngineError` for a missing tensor.
    """

    def __init__(self, folder: Path, config: ModelConfig, device: torch.device) -> None:
        self._config = config
        self._source = _Source(folder, device)
        # (vocab, hidden). A copy, because what was read of a file is the file itself: one that is
        # cut off later, while this model answers, would end the process.
        self.embedding = self._source.take("model.embed_tokens.weight").clone()

    def layers(self) -> Iterator[Layer]:
        for i in range(self._config.num_hidden_layers):
            yield _layer(self._source, self._config, i)

    def head(self) -> Tensor:
        """(vocab, hidden), from normalised hidden states to logits."""
        tied = self._config.tie_word_embeddings
        head = self.embedding if tied else self._source.take("lm_head.weight")
        return head * self._source.take("model.norm.weight")


class _Source:
    """The tensors of a model folder by name, in fp32."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._tensors: dict[str, Tensor] = {}
        for shard in _shards(folder):
            self._tensors.update(load_file(shard, device=str(device)))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise EngineError(f"the weights lack {name}")
        return self._tensors.pop(name).float()

    def projections(self, prefix: str, *names: str) -> Affine:
        """Weights and biases of several projections as one; 0 for a bias that one lacks."""
        weights = [self.take(f"{prefix}.{name}.weight") for name in names]
        biases = [self._tensors.pop(f"{prefix}.{name}.bias", None) for name in names]
        if all(bias is None for bias in biases):
            return Affine(torch.cat(weights), None)
        present = [
            weight.new_zeros(len(weight)) if bias is None else bias.float()
            for weight, bias in zip(weights, biases, strict=True)
        ]
        return Affine(torch.cat(weights), torch.cat(present))


def _layer(source: _Source, config: ModelConfig, i: int) -> Layer:
    at, attention, mlp = (f"model.layers.{i}{part}" for part in ("", ".self_attn", ".mlp"))
    turn = _Turn(config)
    qk_norm = None
    if f"{attention}.q_norm.weight" in source:
        q_norm, k_norm = (source.take(f"{attention}.{name}_norm.weight") for name in "qk")
        qk_norm = turn.norm(q_norm, k_norm)
    qkv = turn.affine(
        source.projections(attention, "q_proj", "k_proj", "v_proj"), scaled=qk_norm is None
    )
    up = source.projections(mlp, "gate_proj", "up_proj")
    return Layer(
        qkv=Affine(qkv.weight * source.take(f"{at}.input_layernorm.weight"), qkv.bias),
        qk_norm=qk_norm,
        out=source.projections(attention, "o_proj"),
        gate_up=Affine(up.weight * source.take(f"{at}.post_attention_layernorm.weight"), up.bias),
        down=source.projections(mlp, "down_proj"),
    )


class _Turn:
    """Rows of the query and key heads as rotary embedding wants them (see `Layer`)."""

    def __init__(self, config: ModelConfig) -> None:
        self._heads, self._kv = config.num_attention_heads, config.num_key_value_heads
        self._size = config.head_dim
        self._order = torch.arange(self._size).view(2, -1).T.flatten()

    def affine(self, qkv: Affine, *, scaled: bool) -> Affine:
        bias = qkv.bias
        if bias is not None:
            bias = self._rows(bias[:, None], scaled=scaled).flatten()
        return Affine(self._rows(qkv.weight, scaled=scaled), bias)

    def _rows(self, x: Tensor, *, scaled: bool) -> Tensor:
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
