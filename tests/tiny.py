"""Small real bundles for tests: random weights, real tokenizer, real files."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from model_store.build.tokenizer import save_tokenizer, train_tokenizer
from model_store.bundle import Bundle
from model_store.prompt import PromptTemplate
from model_store.sid import SidSpec, infer_spec
from model_store.store import Store, create_bundle

ARCHITECTURES = ("llama", "qwen2", "qwen3")
TEMPLATE = PromptTemplate(text="A user clicked {history} and will click ")
MAX_LENGTH = 256

Item = dict[str, Any]


def random_items(
    n: int, sizes: Sequence[int], *, seed: int = 0, extra_share: float = 0.0
) -> list[Item]:
    """`n` items with random SIDs. Collisions are kept, but a share of the items gets the extra
    token, numbered within its SID; so some SIDs are prefixes of others."""
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    taken: dict[str, int] = {}
    for i in range(n):
        codes = [int(rng.integers(size)) for size in sizes]
        sid = "".join(f"<{chr(97 + level)}_{code}>" for level, code in enumerate(codes))
        if rng.random() < extra_share:
            number = taken[sid] = taken.get(sid, -1) + 1
            sid += f"<{chr(97 + len(sizes))}_{number}>"
        items.append(
            {
                "item_id": f"item-{i}",
                "sid": sid,
                "title": f"Title {i} 标题",
                "brand": f"brand-{i % 5}",
                "price": round(float(rng.uniform(1, 99)), 2),
                "popularity": int(rng.integers(1000)),
            }
        )
    return items


def write_items(items: Iterable[Item], path: Path) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    return path


def random_model(
    architecture: str, vocab_size: int, *, seed: int = 0, hidden_size: int = 48
) -> PreTrainedModel:
    """A tiny model whose random weights are large enough that its choices differ clearly."""
    torch.manual_seed(seed)
    kind = {
        "llama": (LlamaConfig, LlamaForCausalLM, {}),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": max(16, hidden_size // 4)}),
    }
    config, model, more = kind[architecture]
    return model(
        config(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=MAX_LENGTH,
            initializer_range=0.3,
            tie_word_embeddings=architecture != "llama",
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
            **more,
        )
    ).eval()


def write_model(
    folder: Path, spec: SidSpec, architecture: str = "qwen2", hidden_size: int = 48
) -> Path:
    """A model folder in the Hugging Face layout."""
    tokenizer = train_tokenizer([TEMPLATE.text], spec, 300)
    model = random_model(architecture, tokenizer.get_vocab_size(), hidden_size=hidden_size)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, MAX_LENGTH)
    return folder


def make_bundle(
    folder: Path,
    items: Sequence[Item],
    *,
    architecture: str = "qwen2",
    prompt: PromptTemplate = TEMPLATE,
    name: str = "tiny",
    hidden_size: int = 48,
) -> Bundle:
    """Model, items and bundle below `folder`. vLLM's CPU build wants `hidden_size` 128 or more."""
    spec = infer_spec([item["sid"] for item in items])
    model = write_model(folder / f"model-{name}", spec, architecture, hidden_size)
    file = write_items(items, folder / f"items-{name}.jsonl")
    store = Store(folder / "store")
    return Bundle.load(create_bundle(store, name=name, model=model, items=file, prompt=prompt))
