"""A byte-level BPE tokenizer for a model trained from scratch, with one token per SID code.

A model that was pre-trained keeps its own tokenizer; this one is for the small models that start
from nothing, whose vocabulary should hold little beside the catalogue's titles and SIDs.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from model_store.prompt import PromptTemplate
from model_store.sid.spec import SidSpec

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts: Iterable[str], spec: SidSpec, vocab_size: int) -> Tokenizer:
    """Learns `vocab_size` byte-pair tokens from `texts`, then adds the SID tokens behind them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=False) for token in sid_tokens(spec)]
    )
    return tokenizer


def words_of(prompt: PromptTemplate, items: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a tokenizer learns its words from: titles, and the prompts as often as they occur."""
    titles = [str(item["title"]) for item in items if item.get("title")]
    fields = [
        field.text.replace("{}", value)
        for field in prompt.profile
        for value in [*(field.values or ()), field.unknown]
    ]
    tasks = prompt.tasks
    frame = prompt.text.replace("{profile}", "").split("{history}")
    if tasks:
        frame += [*tasks.sid_to_title.split("{sid}"), *tasks.title_to_sid.split("{title}")]
    return titles + (fields + frame + [prompt.separator]) * 50


def sid_tokens(spec: SidSpec) -> list[str]:
    """Every token of a spec: the constants around the codes, then the codes level by level."""
    constants = [text for text in (spec.opening, spec.closing) if text]
    return constants + [level.token(code) for level in spec.levels for code in range(level.size)]


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Writes the two files by which Hugging Face loads a tokenizer."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
