"""What the finished stages of a build left behind, read back for the stages that come after."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tokenizers import Tokenizer

from model_store.blend import Blend
from model_store.build.blend import read_blend
from model_store.build.config import BuildConfig
from model_store.build.dataset import Encoder
from model_store.build.evaluate import Split
from model_store.build.files import Row
from model_store.build.ingest import read_items, read_split
from model_store.build.publish import make_bundle
from model_store.build.stages import Work
from model_store.bundle import Bundle
from model_store.sid import SidSpec
from model_store.store import Store

SPEC = TypeAdapter(SidSpec)


class Results:
    """Each of these needs the stages that it reads from, and no more."""

    def __init__(self, config: BuildConfig, work: Work) -> None:
        self._config = config
        self._work = work

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self._work.path("train") / "model"

    @property
    def training(self) -> dict[str, Any]:
        """How the training went: epochs, losses, scores, seconds."""
        found: dict[str, Any] = json.loads((self._work.path("train") / "training.json").read_text())
        return found

    def adapter(self, scene: str) -> Path:
        """The folder of a scene's adapter."""
        return self._work.path("adapters") / scene

    def data(self) -> tuple[list[Row], Split]:
        """The items with their SIDs, and the sequences and cases as rows of these items."""
        items = read_items(self._work.path("sids"))
        return items, read_split(self._work.path("ingest"), items)

    def spec(self) -> SidSpec:
        return SPEC.validate_json((self._work.path("sids") / "spec.json").read_bytes())

    def encoder(self, items: Sequence[Row], folder: Path | None = None) -> Encoder:
        """Of the tokenizer in `folder`, or else of the one that the dataset stage made."""
        folder, spec = folder or self._work.path("dataset"), self.spec()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        return Encoder(
            Tokenizer.from_file(str(folder / "tokenizer.json")),
            spec,
            self._config.prompt,
            spec.parse([item["sid"] for item in items]),
            end=settings["eos_token"],
            titles=[str(item["title"]) if item.get("title") else None for item in items],
        )

    @property
    def blend(self) -> Blend | None:
        """What the bundle will blend its model with."""
        return read_blend(self._work.path("blend")) if self._config.blend else None

    def trial(self, store: Path, model: Path, blend: Blend | None = None) -> Bundle:
        """A bundle of the model folder `model` that nobody will serve, in a store of its own."""
        return Bundle.load(make_bundle(self._config, self._work, Store(store), model, blend=blend))
