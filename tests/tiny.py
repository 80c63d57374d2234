"""Small real bundles for tests: random weights, real tokenizer, real files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from model_store.blend import Blend, BlendSpec
from model_store.build.tokenizer import save_tokenizer, train_tokenizer
from model_store.bundle import Bundle
from model_store.neighbours import Counting, Neighbours
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


def write_adapters(folder: Path, model: Path, ranks: Mapping[str, int]) -> Path:
    """A random LoRA adapter of each scene's rank, as PEFT saves it."""
    from peft import LoraConfig, get_peft_model  # takes seconds, and few tests need it

    for seed, (scene, rank) in enumerate(ranks.items(), start=1):
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        get_peft_model(base, config).save_pretrained(folder / scene)
    return folder


def random_blend(n_items: int, *, weight: float = 0.5, seed: int = 0) -> Blend:
    """Neighbours counted over random histories of the first two thirds of the items: the others
    have none."""
    rng = np.random.default_rng(seed)
    histories = [rng.integers(2 * n_items // 3, size=6).tolist() for _ in range(n_items)]
    table = Neighbours.count(histories, n_items, Counting(backward=0.5, by_distance=True))
    return Blend(BlendSpec(weight=weight), table.strongest(20))


def make_bundle(
    folder: Path,
    items: Sequence[Item],
    *,
    architecture: str = "qwen2",
    prompt: PromptTemplate = TEMPLATE,
    name: str = "tiny",
    hidden_size: int = 48,
    adapters: Mapping[str, int] | None = None,
    blend: Blend | None = None,
) -> Bundle:
    """Model, items and bundle below `folder`. vLLM's CPU build wants `hidden_size` 128 or more.

    `adapters` are scenes and the rank of a random adapter for each; `blend` speaks of `items`.
    """
    spec = infer_spec([item["sid"] for item in items])
    model = write_model(folder / f"model-{name}", spec, architecture, hidden_size)
    file = write_items(items, folder / f"items-{name}.jsonl")
    packed = write_adapters(folder / f"adapters-{name}", model, adapters) if adapters else None
    store = Store(folder / "store")
    path = create_bundle(
        store,
        name=name,
        model=model,
        items=file,
        prompt=prompt,
        adapters=packed,
        blend=blend,
    )
    return Bundle.load(path)
