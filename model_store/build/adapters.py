"""LoRA adapters over the finished model, one for each scene: `adapters/<scene>/` in PEFT's layout.

The model stays as it is, its embeddings and head too, so that all scenes share its vocabulary; an
adapter has pairs for the decoder's projections and nothing else (see `model_store.adapters`). It
learns the responses that were clicked in its scene, after histories of any scenes.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from transformers import AutoModelForCausalLM

from model_store.adapters import ADAPTER_FILES
from model_store.build.dataset import Encoder, Example, UserSequence, cuts_in
from model_store.build.model import Trainee
from model_store.build.section import Section
from model_store.build.train import Examples, Schedule, train
from model_store.errors import BuildError

Scene = Annotated[str, Field(pattern=r"^[^/.][^/]*$", description="names a folder")]

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Adapters(Section):
    """For which scenes, how large, and how long each is trained; what is not said here is as the
    base model's training has it. Only the vLLM engine serves a bundle with adapters."""

    scenes: tuple[Scene, ...] = Field(min_length=1)
    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    epochs: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)

    def schedule(self, base: Schedule) -> Schedule:
        mine = {"epochs": self.epochs, "learning_rate": self.learning_rate, "validate_every": 0}
        return base.model_copy(update=mine)


def check_scenes(settings: Adapters, users: Sequence[UserSequence]) -> None:
    """Raises `BuildError` for a scene of which there is nothing to learn."""
    known = {user.scene_at(i) for user in users for i in range(1, len(user.items))}
    for scene in settings.scenes:
        if scene not in known:
            named = ", ".join(sorted(name for name in known if name)) or "none"
            raise BuildError(f"adapters.scenes: nothing was clicked in {scene!r}, only in: {named}")


def train_adapter(
    settings: Adapters, model: Path, examples: Examples, base: Schedule, out: Path
) -> None:
    """Trains one over the model in the folder `model` and leaves it in `out`, unless it is there;
    what was interrupted goes on (see `train`)."""
    part = out.with_name(f"{out.name}.training")
    if not out.exists():
        progress = train(lambda: _trainee(settings, model), examples, settings.schedule(base), part)
        losses = json.dumps({"losses": progress.losses})
        (part / "model" / "training.json").write_text(losses + "\n")
        (part / "model").rename(out)
    shutil.rmtree(part, ignore_errors=True)


def in_scene(
    users: Sequence[UserSequence], encoder: Encoder, schedule: Schedule, scene: str
) -> Examples:
    """Draws the examples of an epoch: of each user who clicked in the scene, one such click."""

    def example(user: UserSequence, cut: int, rng: np.random.Generator) -> Example:
        history = user.items[max(0, cut - schedule.max_history) : cut]
        profile = {} if rng.random() < schedule.blind_share else user.profile
        return encoder.example(history, user.items[cut], profile, scene, history_labels=False)

    def draw(rng: np.random.Generator) -> list[Example]:
        chosen = list(cuts_in(users, scene, rng, cold=schedule.cold_share > 0))
        return [example(user, cut, rng) for user, cut in chosen]

    return draw


def merge(model: Path, adapter: Path, out: Path) -> Path:
    """The model that an adapter makes of `model`, as a folder of its own."""
    from peft import PeftModel

    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors*"))
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(out)
    return out


def _trainee(settings: Adapters, model: Path) -> Trainee:
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(PROJECTIONS),
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(base, config)

    def save(out: Path) -> None:
        wrapped.save_pretrained(out, save_embedding_layers=False)
        for file in out.iterdir():
            if file.name not in ADAPTER_FILES:
                file.unlink()
        _settle(out / ADAPTER_FILES[0])

    return Trainee(base, save)


def _settle(path: Path) -> None:
    """PEFT writes sets in any order, and where the base model lay in this build."""
    config: dict[str, Any] = json.loads(path.read_text()) | {"base_model_name_or_path": None}
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
