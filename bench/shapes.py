"""The models that are measured: the shipped demo, and random weights in the shape of a real one.

Random weights take as long as trained ones. They are made once, as a bundle like any other, and
kept in the user's cache folder.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from model_store.build.tokenizer import save_tokenizer, train_tokenizer
from model_store.bundle import Bundle
from model_store.prompt import PromptTemplate
from model_store.sid import infer_spec
from model_store.store import Store, create_bundle
from service.prompt import PromptBuilder
from service.settings import Settings

SHAPES = ("demo", "0.5b")

_ITEMS = 20_000
_CODES = (256, 256, 256, 256)
_VOCABULARY = 151_936
_POSITIONS = 4096
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": _POSITIONS,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "use_sliding_window": False,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "dtype": "bfloat16",
}
"""Qwen2.5-0.5B."""


def load(shape: str, bundle: Path | None = None) -> Bundle:
    """The bundle of a shape of `SHAPES`, or the one in a folder, which wins.

    Raises `BundleError` for a folder that holds none.
    """
    if bundle is not None:
        return Bundle.load(bundle)
    if shape == "demo":
        return Bundle.load(Settings.model_fields["bundle"].default)
    store = Store(_cache() / "bundles")
    name = "qwen2.5-0.5b-random"
    versions = store.versions(name)
    if versions:
        return Bundle.load(store.path(name, versions[-1]))
    Console().print(f"making random weights in {store.root}, 1 GB, kept for next time …")
    return make_random(store, name, QWEN, _VOCABULARY, _ITEMS, _CODES)


def make_random(
    store: Store,
    name: str,
    config: dict[str, Any],
    vocabulary: int,
    items: int,
    codes: tuple[int, ...],
) -> Bundle:
    """Publishes a bundle of random weights and items.

    `config` is that of a Qwen2 model but for its `vocab_size`, which becomes `vocabulary` ids and
    one for each code.
    """
    rng = np.random.default_rng(20)
    drawn = np.stack([rng.integers(size, size=items) for size in codes], axis=1)
    sids = ["".join(f"<{chr(97 + i)}_{code}>" for i, code in enumerate(row)) for row in drawn]
    tokens = [f"<{chr(97 + i)}_{code}>" for i, size in enumerate(codes) for code in range(size)]
    spec = infer_spec(sids, tokens)
    tokenizer = train_tokenizer([], spec, 300)
    config = config | {"vocab_size": vocabulary + sum(codes)}
    with tempfile.TemporaryDirectory() as folder:
        model, listed = Path(folder) / "model", Path(folder) / "items.jsonl"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(config))
        save_tokenizer(tokenizer, model, config["max_position_embeddings"])
        save_file(_weights(config), model / "model.safetensors", {"format": "pt"})
        lines = (json.dumps({"item_id": f"i{n}", "sid": sid}) for n, sid in enumerate(sids))
        listed.write_text("\n".join(lines) + "\n")
        prompt = PromptTemplate(text="{history}")
        return Bundle.load(
            create_bundle(store, name=name, model=model, items=listed, prompt=prompt)
        )


def popular(bundle: Bundle) -> list[str]:
    """The ids of all items, the most popular first."""
    ids = bundle.catalogue.item_ids
    return [ids[row] for row in bundle.catalogue.popular().tolist()]


def prompts(
    bundle: Bundle, tokens: int, count: int, seed: int = 20, *, before_last: bool = False
) -> list[list[int]]:
    """Prompts over random histories, as long as they can be without passing `tokens` tokens; or
    the same prompts as they were before the last item was clicked."""
    builder, rng = PromptBuilder(bundle), np.random.default_rng(seed)
    found = []
    for _ in range(count):
        rows = [int(row) for row in rng.integers(len(bundle.catalogue), size=tokens)]
        fits, over = 0, tokens
        while over - fits > 1:
            middle = (fits + over) // 2
            if len(builder.build(rows[:middle])[0]) <= tokens:
                fits = middle
            else:
                over = middle
        found.append(builder.build(rows[: max(1, fits - before_last)])[0])
    return found


def _weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """Normal numbers in bf16, which fp32 holds exactly, so that every engine loads the same."""
    generator = torch.Generator().manual_seed(20)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]

    def normal(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) * 0.02).bfloat16()

    tensors = {"model.embed_tokens.weight": normal(config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        for name, width in (("q", hidden), ("k", kv), ("v", kv)):
            tensors[f"{at}.self_attn.{name}_proj.weight"] = normal(width, hidden)
            tensors[f"{at}.self_attn.{name}_proj.bias"] = normal(width)
        tensors[f"{at}.self_attn.o_proj.weight"] = normal(hidden, hidden)
        tensors[f"{at}.mlp.gate_proj.weight"] = normal(inner, hidden)
        tensors[f"{at}.mlp.up_proj.weight"] = normal(inner, hidden)
        tensors[f"{at}.mlp.down_proj.weight"] = normal(hidden, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{name}.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    return tensors | {"model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16)}


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sidrec"
