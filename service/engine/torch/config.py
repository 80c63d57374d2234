"""The `config.json` of a Llama-family model, reduced to what the forward pass needs."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.errors import EngineError

ARCHITECTURES = ("Qwen2ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM")
"""Qwen1.5, Qwen2 and Qwen2.5; Qwen3; Llama and Yi. Their weights say whether a projection has a
bias and whether queries and keys are normalised, so the forward pass needs no further names."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of the model, as Hugging Face names them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    rope: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "ModelConfig":
        """Reads `folder/config.json`. Raises `EngineError` naming what this engine cannot run."""
        raw = json.loads((folder / "config.json").read_text())
        _refuse_unknown(raw)
        heads = raw["num_attention_heads"]
        rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
        rope.setdefault("rope_theta", raw.get("rope_theta", 10_000.0))
        rope.setdefault("rope_type", rope.get("type", "default"))
        if rope["rope_type"] not in ("default", "linear", "llama3"):
            raise EngineError(f"rope_type {rope['rope_type']!r}: default, linear and llama3 run")
        return cls(
            hidden_size=raw["hidden_size"],
            num_hidden_layers=raw["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
            intermediate_size=raw["intermediate_size"],
            vocab_size=raw["vocab_size"],
            max_position_embeddings=raw["max_position_embeddings"],
            rms_norm_eps=raw["rms_norm_eps"],
            tie_word_embeddings=raw.get("tie_word_embeddings", False),
            rope=rope,
        )

    def rope_tables(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (max_position_embeddings, head_dim / 2), fp32."""
        half = torch.arange(0, self.head_dim, 2, dtype=torch.int64).float() / self.head_dim
        frequency: Tensor = 1.0 / (self.rope["rope_theta"] ** half)
        if self.rope["rope_type"] == "linear":
            frequency = frequency / self.rope["factor"]
        elif self.rope["rope_type"] == "llama3":
            frequency = self._llama3(frequency)
        angle = torch.outer(torch.arange(self.max_position_embeddings).float(), frequency)
        return angle.cos(), angle.sin()

    def _llama3(self, frequency: Tensor) -> Tensor:
        """Llama 3.1's scaling: long waves are stretched, short ones kept, a smooth blend between
        (Grattafiori et al., 2024; parameters as in the model's configuration)."""
        trained: float = self.rope["original_max_position_embeddings"]
        low, high = self.rope["low_freq_factor"], self.rope["high_freq_factor"]
        blend: Tensor = ((trained * frequency / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
        stretched: Tensor = frequency / self.rope["factor"]
        return blend * frequency + (1 - blend) * stretched


def _refuse_unknown(raw: dict[str, Any]) -> None:
    names = raw.get("architectures") or ["(none named)"]
    if names[0] not in ARCHITECTURES:
        raise EngineError(
            f"architecture {names[0]!r} is not one that the torch engine runs: "
            + ", ".join(ARCHITECTURES)
        )
    if raw.get("hidden_act", "silu") != "silu":
        raise EngineError(f"hidden_act {raw['hidden_act']!r}: only silu runs")
    if raw.get("use_sliding_window"):
        raise EngineError("use_sliding_window: only full attention runs")
    if raw.get("quantization_config"):
        raise EngineError("quantization_config: only unquantised weights run")
