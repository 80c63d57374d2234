"""The training loop: AdamW over fresh examples each epoch, a checkpoint after each, and the best
epoch by validation where one is asked for.

It saves in the Hugging Face layout (`config.json`, `model.safetensors`, tokenizer), so that what is
trained here and what is fine-tuned elsewhere reach a bundle by the same way.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from rich import progress as bars
from torch import Tensor, nn

from model_store.build.checkpoint import Progress, load_checkpoint, save_checkpoint
from model_store.build.dataset import Example, batches
from model_store.build.model import Trainee
from model_store.build.section import Section

STATE = "state"
CHECKPOINT = "checkpoint.pt"

Examples = Callable[[np.random.Generator], Sequence[Example]]
"""Draws the examples of one epoch."""

Validate = Callable[[Path], float]
"""The score, higher is better, of the model saved in a folder."""


class Mix(Section):
    """Examples of the title tasks for each next-item example; 0 leaves a task out."""

    sid_to_title: float = Field(default=0.0, ge=0)
    title_to_sid: float = Field(default=0.0, ge=0)
    fragments: float = Field(
        default=0.0, ge=0, le=1, description="share of title → SID that shows part of a title only"
    )


class Schedule(Section):
    """How long and how fast to train: AdamW, linear warm-up, then cosine decay to a tenth."""

    epochs: int = 10
    batch_tokens: int = 8192
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.03
    dropout: float = 0.0
    max_history: int = 40
    last_share: float = 0.5
    cold_share: float = Field(
        default=0.0, ge=0, le=1, description="examples without a history, for the first item"
    )
    blind_share: float = Field(
        default=0.0, ge=0, le=1, description="examples without a profile, and without a scene"
    )
    history_labels: bool = Field(
        default=True, description="learn the SIDs inside a history too, not the response alone"
    )
    mix: Mix = Mix()
    validate_every: int = Field(default=0, ge=0, description="epochs between validations; 0: none")
    validate_cases: int = Field(default=500, ge=1, description="drawn once, the same each time")
    patience: int = Field(default=3, ge=1, description="validations without a gain before the end")
    seed: int = 20

    def rate(self, done: float) -> float:
        """Share of the learning rate when `done` (0..1) of the training has passed."""
        if done < self.warmup:
            return done / self.warmup
        decay = (done - self.warmup) / (1 - self.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * decay))


def train(
    make: Callable[[], Trainee],
    examples: Examples,
    schedule: Schedule,
    folder: Path,
    validate: Validate | None = None,
) -> Progress:
    """Trains what `make` makes and saves it into `folder/model`.

    After each epoch the state goes into `folder/state`, which the caller removes once it has noted
    what came out; called again with the same arguments, an
    interrupted training goes on there, and on one thread of a CPU ends in the same weights as one
    that was not. With `validate` the epoch that scores best is kept, and `schedule.patience`
    validations without a gain end the training.
    """
    torch.manual_seed(schedule.seed)
    rng = np.random.default_rng(schedule.seed)
    trainee = make()
    model = trainee.model.to("cuda" if torch.cuda.is_available() else "cpu")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        _decay_groups(trained, schedule.weight_decay), lr=schedule.learning_rate, betas=(0.9, 0.98)
    )
    state = folder / STATE
    state.mkdir(parents=True, exist_ok=True)
    progress = load_checkpoint(state / CHECKPOINT, model, optimizer, rng)
    with _bar() as shown:
        task = shown.add_task("training", total=schedule.epochs, loss=math.nan)
        while progress.epochs < schedule.epochs:
            if validate and progress.without_gain >= schedule.patience:
                break
            todo = list(batches(examples(rng), rng, tokens=schedule.batch_tokens))
            model.train()
            total, labels_seen = 0.0, 0
            for b, (ids, labels) in enumerate(todo):
                done = (progress.epochs + b / len(todo)) / schedule.epochs
                for group in optimizer.param_groups:
                    group["lr"] = schedule.learning_rate * schedule.rate(done)
                loss, count = _loss(model, ids, labels, schedule.dropout)
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                total, labels_seen = total + loss.item() * count, labels_seen + count
                at = progress.epochs + (b + 1) / len(todo)
                shown.update(task, completed=at, loss=total / labels_seen)
            progress.epochs += 1
            progress.losses.append(total / labels_seen)
            if validate and progress.epochs % schedule.validate_every == 0:
                _validate(trainee, validate, progress, state)
            save_checkpoint(state / CHECKPOINT, model, optimizer, rng, progress)
    shutil.rmtree(folder / "model", ignore_errors=True)
    if (state / "best").is_dir():
        shutil.copytree(state / "best", folder / "model")
    else:
        trainee.save(folder / "model")
    return progress


def _validate(trainee: Trainee, validate: Validate, progress: Progress, state: Path) -> None:
    """Scores the model as it is, and keeps it where it is the best so far."""
    trial, best = state / "trial", state / "best"
    shutil.rmtree(trial, ignore_errors=True)
    trainee.save(trial)
    score = validate(trial)
    if score > progress.best:
        shutil.rmtree(best, ignore_errors=True)
        trial.rename(best)
    progress.scores.append((progress.epochs, score))


def _loss(model: Any, ids: np.ndarray, labels: np.ndarray, dropout: float) -> tuple[Tensor, int]:
    """Mean cross entropy over the labelled positions, and their number.

    The head runs on those positions only: most of a prompt has no label. On a GPU the products are
    bf16, the weights and what is summed up fp32.
    """
    device = next(model.parameters()).device
    tokens, targets = torch.from_numpy(ids).to(device), torch.from_numpy(labels)[:, 1:].to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        embedded = nn.functional.dropout(model.get_input_embeddings()(tokens), dropout)
        hidden = model.model(inputs_embeds=embedded).last_hidden_state[:, :-1]
        learnt = targets >= 0
        chosen = nn.functional.dropout(hidden[learnt], dropout)
        logits = model.lm_head(chosen)
    return nn.functional.cross_entropy(logits.float(), targets[learnt]), int(learnt.sum())


def _decay_groups(trained: Sequence[nn.Parameter], decay: float) -> list[dict[str, object]]:
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def _bar() -> bars.Progress:
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("epochs, loss {task.fields[loss]:.3f}"),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
