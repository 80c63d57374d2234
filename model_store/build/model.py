"""The model that is trained: a small Qwen2 from scratch, or any causal LM that exists already.

An existing model keeps its tokenizer and its weights, and gets one token per SID code. Their
embeddings, and their rows of the head where that is not tied, start at the mean of the rows there
are, plus noise of a tenth of the rows' standard deviation in each dimension: close to where the
model expects a token to be, and not all the same.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from tokenizers import AddedToken, Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from model_store.build.section import Section
from model_store.build.tokenizer import END_OF_TEXT, save_tokenizer, sid_tokens
from model_store.errors import BuildError
from model_store.sid import SidSpec

NEW_TOKEN_NOISE = 0.1


class ModelShape(Section):
    """The size of a Qwen2 model that starts from random weights."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 768
    max_length: int = 1024


class Lora(Section):
    """Low-rank adapters on every linear layer (Hu et al., 2021), merged before publishing. Beside
    them only the embeddings and the head's rows of the new tokens are trained."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05


class Pretrained(Section):
    """A model that exists already: a local folder, or a name on the Hugging Face hub."""

    base: str
    lora: Lora | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="of the weights in the bundle; training keeps fp32 weights"
    )


@dataclass(frozen=True)
class Trainee:
    """What the training loop trains, and how it is saved: `save` leaves it as it is."""

    model: Any
    """A Hugging Face causal LM with `model`, the decoder, and `lm_head`."""
    save: Callable[[Path], None]


def from_scratch(shape: ModelShape, tokenizer: Tokenizer) -> Trainee:
    """A model with random weights whose vocabulary is exactly the tokenizer's."""
    model = new_model(shape, tokenizer)

    def save(out: Path) -> None:
        model.save_pretrained(out)
        save_tokenizer(tokenizer, out, shape.max_length)

    return Trainee(model, save)


def new_model(shape: ModelShape, tokenizer: Tokenizer) -> Qwen2ForCausalLM:
    end = tokenizer.token_to_id(END_OF_TEXT)
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
        initializer_range=0.02,
    )
    return Qwen2ForCausalLM(config)


def extended_tokenizer(base: str, spec: SidSpec) -> Any:
    """The tokenizer of an existing model with one token per code. Raises `BuildError`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise BuildError(f"{base}: {_first_line(error)}") from error
    if tokenizer.eos_token is None:
        raise BuildError(f"{base}: its tokenizer has no end-of-sequence token")
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False, special=False) for token in sid_tokens(spec)]
    )
    return tokenizer


def fine_tuned(config: Pretrained, extended: Path, spec: SidSpec) -> Trainee:
    """An existing model made ready for SIDs. `extended` holds the tokenizer that
    `extended_tokenizer` made. Raises `BuildError` where the model cannot be loaded."""
    tokenizer = AutoTokenizer.from_pretrained(extended)
    try:
        model = AutoModelForCausalLM.from_pretrained(config.base, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise BuildError(f"{config.base}: {_first_line(error)}") from error
    new = [tokenizer.convert_tokens_to_ids(token) for token in sid_tokens(spec)]
    # Some models have more rows than tokens; there the new ones take rows that nobody used.
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    _start_new_rows(model.get_input_embeddings(), new)
    if not model.config.tie_word_embeddings:
        _start_new_rows(model.get_output_embeddings(), new)
    wrapped = _with_lora(model, config.lora, new) if config.lora else None

    def save(out: Path) -> None:
        # Merging changes the weights in place, so it is a copy that is merged.
        merged = copy.deepcopy(wrapped).merge_and_unload() if wrapped else copy.deepcopy(model)
        merged.to(dtype=getattr(torch, config.dtype)).save_pretrained(out)
        tokenizer.save_pretrained(out)

    return Trainee(model, save)


def _start_new_rows(layer: nn.Module, new: list[int]) -> None:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        old = torch.ones(len(weight), dtype=torch.bool)
        old[new] = False
        mean, spread = weight[old].mean(0), weight[old].std(0)
        noise = torch.randn(len(new), weight.shape[1]) * spread * NEW_TOKEN_NOISE
        weight[new] = mean + noise


def _with_lora(model: Any, lora: Lora, new: list[int]) -> Any:
    """Puts adapters into the model's layers, in place, and returns what can merge them."""
    from peft import LoraConfig, get_peft_model

    rows = {"embed_tokens": new}
    if not model.config.tie_word_embeddings:
        rows["lm_head"] = new
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        trainable_token_indices=rows,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
