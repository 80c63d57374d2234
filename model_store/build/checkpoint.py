"""Where a training stands at the end of an epoch, so that a killed one goes on as if it had not
been: weights, optimiser, every random state, and what was measured so far."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass
class Progress:
    """What a training has behind it. `scores` are (epoch, validation metric)."""

    epochs: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)

    @property
    def best(self) -> float:
        return max((score for _, score in self.scores), default=float("-inf"))

    @property
    def without_gain(self) -> int:
        """Validations since the best one."""
        scores = [score for _, score in self.scores]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
    progress: Progress,
) -> None:
    """Replaces the file at `path` at once. Of the model only what is trained is kept."""
    state = {
        "model": {name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
        "optimizer": optimizer.state_dict(),
        "numpy": dict(rng.bit_generator.state),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "progress": vars(progress),
    }
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
    os.replace(part, path)


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, rng: np.random.Generator
) -> Progress:
    """Puts everything back to where `path` was saved; a fresh start where there is no such file.

    The file is our own, and still read without running what a pickle may contain.
    """
    if not path.exists():
        return Progress()
    state: Mapping[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in state["model"].items():
            parameters[name].copy_(value)
    optimizer.load_state_dict(state["optimizer"])
    rng.bit_generator.state = state["numpy"]
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    return Progress(**state["progress"])
