"""Trains a small Qwen2 model from scratch on next-item prompts.

Saves in the Hugging Face layout (`config.json`, `model.safetensors`, tokenizer), so that what is
trained here and what is fine-tuned elsewhere reach a bundle by the same way.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from model_store.build.dataset import NextItemEncoder, UserSequence, batches, epoch
from model_store.build.tokenizer import END_OF_TEXT, save_tokenizer


class ModelShape(BaseModel):
    """The size of a Qwen2 model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 768
    max_length: int = 1024


class Schedule(BaseModel):
    """How long and how fast to train: AdamW, linear warm-up, then cosine decay to a tenth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = 10
    batch_tokens: int = 8192
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    dropout: float = 0.0
    max_history: int = 40
    last_share: float = 0.5
    seed: int = 20

    def rate(self, done: float) -> float:
        """Share of the learning rate when `done` (0..1) of the training has passed."""
        if done < self.warmup:
            return done / self.warmup
        decay = (done - self.warmup) / (1 - self.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * decay))


def new_model(shape: ModelShape, tokenizer: Tokenizer) -> Qwen2ForCausalLM:
    """A model with random weights whose vocabulary is exactly the tokenizer's."""
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


def train(
    users: Sequence[UserSequence],
    encoder: NextItemEncoder,
    tokenizer: Tokenizer,
    shape: ModelShape,
    schedule: Schedule,
    out: Path,
) -> list[float]:
    """Trains on `users` and saves the model into the folder `out`; returns the loss per epoch."""
    torch.manual_seed(schedule.seed)
    rng = np.random.default_rng(schedule.seed)
    model = new_model(shape, tokenizer)
    model.train()
    optimizer = torch.optim.AdamW(
        _decay_groups(model, schedule.weight_decay), lr=schedule.learning_rate, betas=(0.9, 0.98)
    )
    losses = []
    with _progress() as progress:
        bar = progress.add_task("training", total=schedule.epochs, loss=math.nan)
        for e in range(schedule.epochs):
            examples = epoch(
                users,
                encoder,
                rng,
                max_history=schedule.max_history,
                last_share=schedule.last_share,
            )
            total, labels_seen = 0.0, 0
            todo = list(batches(examples, rng, tokens=schedule.batch_tokens))
            for b, (ids, labels) in enumerate(todo):
                rate = schedule.learning_rate * schedule.rate((e + b / len(todo)) / schedule.epochs)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss, count = _loss(model, ids, labels, schedule.dropout)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                total, labels_seen = total + loss.item() * count, labels_seen + count
                progress.update(bar, completed=e + (b + 1) / len(todo), loss=total / labels_seen)
            losses.append(total / labels_seen)
    save(model, tokenizer, out)
    return losses


def save(model: Qwen2ForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Writes the model and its tokenizer in the Hugging Face layout."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    save_tokenizer(tokenizer, out, model.config.max_position_embeddings)


def _loss(
    model: Qwen2ForCausalLM, ids: np.ndarray, labels: np.ndarray, dropout: float
) -> tuple[Tensor, int]:
    """Mean cross entropy over the labelled positions, and their number.

    The head runs on those positions only: most of a prompt has no label.
    """
    tokens = torch.from_numpy(ids)
    embedded = nn.functional.dropout(model.model.embed_tokens(tokens), dropout)
    hidden = model.model(inputs_embeds=embedded).last_hidden_state[:, :-1]
    targets = torch.from_numpy(labels)[:, 1:]
    learnt = targets >= 0
    chosen = nn.functional.dropout(hidden[learnt], dropout)
    loss = nn.functional.cross_entropy(model.lm_head(chosen), targets[learnt])
    return loss, int(learnt.sum())


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
