"""What turns item texts into vectors, and is kept beside a quantizer so that a later item gets the
vector that it would have got in the build."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from model_store.build.section import Section

Vectors = npt.NDArray[np.float32]


class Encoder(Section):
    """Which encoder, and how a text becomes one vector. What its model card says goes here."""

    model: str = Field(description="name on the hub, or a local folder")
    pooling: Literal["cls", "mean", "last"] = "mean"
    normalize: bool = True
    prefix: str = Field(default="", description='text that the model wants first: "passage: "')
    max_tokens: int = Field(default=512, ge=1, description="longer texts are cut")
    batch_tokens: int = Field(default=16_384, ge=1, description="positions in a batch, padding too")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Embedder(Protocol):
    """Texts to vectors; the same text always gets the same one."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, dimensions), in the order of the texts."""
        ...

    def about(self) -> Mapping[str, Any]:
        """What JSON can say of this embedder; `embedder` names its kind."""
        ...

    def tensors(self) -> Mapping[str, Vectors]:
        """What it has learnt, by name."""
        ...


def unit(vectors: Vectors) -> Vectors:
    """Each row (n, dimensions) at length 1; one of length 0 stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)
