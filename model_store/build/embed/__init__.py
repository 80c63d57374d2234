"""Item text to vectors: hashed words without any download, or any Hugging Face encoder."""

from collections.abc import Mapping
from typing import Any

from model_store.build.embed.base import Embedder, Encoder, Vectors
from model_store.build.embed.tfidf import TextEmbedder
from model_store.errors import BuildError

__all__ = ["Embedder", "Encoder", "TextEmbedder", "Vectors", "load_embedder"]


def load_embedder(about: Mapping[str, Any], tensors: Mapping[str, Vectors]) -> Embedder:
    """The embedder that `about()` and `tensors()` described. Raises `BuildError` for another."""
    match about.get("embedder"):
        case "tfidf-svd":
            return TextEmbedder(tensors["idf"], tensors["components"])
        case "hugging-face":
            # transformers takes seconds to import, and the default does without it.
            from model_store.build.embed.hugging_face import HuggingFaceEmbedder

            return HuggingFaceEmbedder.load(Encoder.model_validate(about["encoder"]))
        case other:
            raise BuildError(f"no embedder is called {other!r}")
