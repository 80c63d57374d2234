"""What a bundle keeps so that a later item gets its codes: from text to codes in milliseconds.

quantizer.json          kinds and settings: embedder, quantizer, the attributes that are read, …
quantizer.safetensors   codebooks, layers, word weights, reference errors

Numpy does the work, whatever the codebooks were learnt with; there is never a pickle. A Hugging
Face encoder is not kept itself, only its name or folder.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from model_store.build.embed import Embedder, Vectors, load_embedder
from model_store.build.sids.config import Collisions
from model_store.build.sids.joint import Joint
from model_store.build.sids.residual import Dense, ResidualQuantizer
from model_store.errors import BuildError
from model_store.sid import Codes, SidSpec

ABOUT = "quantizer.json"
TENSORS = "quantizer.safetensors"


@dataclass(frozen=True, slots=True)
class Quantizer:
    """text:      the attributes that are read, in this order
    kind:      how the codebooks were learnt
    joint:     predicts what clicks would say, where the quantizer was taught by clicks too
    reference: reconstruction errors of catalogue items that it has not learnt from, ascending;
               None if they were not kept (quantizers of the first bundles)
    """

    text: tuple[str, ...]
    embedder: Embedder
    residual: ResidualQuantizer
    kind: str
    collisions: Collisions = "extra"
    joint: Joint | None = None
    reference: Vectors | None = None

    @classmethod
    def load(cls, folder: Path) -> "Quantizer":
        """Reads a bundle's `quantizer/`. Raises `BuildError` if it is not there or not usable."""
        try:
            about = json.loads((folder / ABOUT).read_text())
            tensors = load_file(folder / TENSORS)
            return cls(
                text=tuple(about["text"]),
                embedder=load_embedder(about, tensors),
                residual=_residual(tensors),
                kind=about["quantizer"],
                collisions=about.get("collisions", "extra"),
                joint=_joint(about, tensors),
                reference=tensors.get("reference"),
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BuildError(f"{folder}: not a quantizer: {error!r}") from error

    def save(self, folder: Path) -> None:
        """Writes the two files."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            **self.embedder.about(),
            "quantizer": self.kind,
            "text": list(self.text),
            "collisions": self.collisions,
        }
        tensors = dict(self.embedder.tensors())
        tensors |= {f"codebook.{i}": book for i, book in enumerate(self.residual.codebooks)}
        tensors |= _named_layers("encoder", self.residual.encoder)
        tensors |= _named_layers("decoder", self.residual.decoder)
        if self.joint is not None:
            about["collaborative_weight"] = self.joint.weight
            tensors |= {"joint.slope": self.joint.slope, "joint.intercept": self.joint.intercept}
        if self.reference is not None:
            tensors["reference"] = self.reference
        (folder / TENSORS).write_bytes(save(tensors))
        (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")

    def check(self, spec: SidSpec) -> None:
        """Raises `BuildError` unless its codes are those of `spec`."""
        levels = spec.levels[: spec.depth - spec.extra]
        sizes, known = self.residual.sizes, tuple(level.size for level in levels)
        if len(sizes) != len(known) or any(s > k for s, k in zip(sizes, known, strict=True)):
            raise BuildError(
                f"the quantizer has codebooks of {sizes}, the bundle's SIDs of {known}"
            )

    def texts(self, items: Sequence[Mapping[str, Any]]) -> list[str]:
        """The text of each item; empty where an item has none of the attributes."""
        return item_texts(items, self.text)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """What is quantised, shape (texts, dimensions), for items of which only texts are known."""
        vectors = self.embedder.embed(texts)
        return vectors if self.joint is None else self.joint.join(vectors)

    def sids(self, texts: Sequence[str]) -> tuple[Codes, Vectors]:
        """Codes (texts, levels), collisions and all, and reconstruction errors (texts,)."""
        vectors = self.vectors(texts)
        codes = self.residual.encode(vectors)
        return codes, self.residual.errors(vectors, codes)


def item_texts(items: Sequence[Mapping[str, Any]], attributes: Sequence[str]) -> list[str]:
    """The attributes of each item in one line; empty where an item has none of them."""
    values = ([str(item.get(name) or "") for name in attributes] for item in items)
    return [" ".join(value).strip() for value in values]


def _residual(tensors: Mapping[str, Vectors]) -> ResidualQuantizer:
    def layers(name: str) -> tuple[Dense, ...]:
        count = sum(key.startswith(f"{name}.") and key.endswith(".weight") for key in tensors)
        return tuple(
            Dense(tensors[f"{name}.{i}.weight"], tensors[f"{name}.{i}.bias"]) for i in range(count)
        )

    levels = sum(key.startswith("codebook.") for key in tensors)
    books = tuple(tensors[f"codebook.{level}"] for level in range(levels))
    if not books:
        raise ValueError("no codebook")
    return ResidualQuantizer(books, layers("encoder"), layers("decoder"))


def _named_layers(name: str, layers: Sequence[Dense]) -> dict[str, Vectors]:
    parts = ((i, part) for i in range(len(layers)) for part in ("weight", "bias"))
    return {f"{name}.{i}.{part}": getattr(layers[i], part) for i, part in parts}


def _joint(about: Mapping[str, Any], tensors: Mapping[str, Vectors]) -> Joint | None:
    if "joint.slope" not in tensors:
        return None
    weight = float(about["collaborative_weight"])
    return Joint(tensors["joint.slope"], tensors["joint.intercept"], weight)
