"""Item text to vectors without any download: hashed words, TF-IDF, truncated SVD.

The small offline default. Latin words and Chinese characters, single and in pairs, are hashed into
a fixed number of columns, so that a text with unseen words still has a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

from model_store.build.embed.base import Vectors

_WORD = r"(?u)[a-z0-9]+(?:\.[0-9]+)?|[\u4e00-\u9fff]"


@dataclass(frozen=True, slots=True)
class TextEmbedder:
    """idf: (features,); components: (features, dimensions)."""

    idf: Vectors
    components: Vectors

    @classmethod
    def fit(
        cls, texts: Sequence[str], *, dimensions: int, features: int = 4096, seed: int = 0
    ) -> "TextEmbedder":
        """Learns word weights and directions from the texts of a catalogue."""
        counts = _counts(texts, features)
        documents = np.bincount(counts.indices, minlength=features)
        idf = (np.log((1 + len(texts)) / (1 + documents)) + 1).astype(np.float32)
        svd = TruncatedSVD(min(dimensions, len(texts) - 1), random_state=seed)
        svd.fit(_weighted(counts, idf))
        return cls(idf, np.ascontiguousarray(svd.components_.T, np.float32))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (texts, dimensions); zero for a text without a word."""
        weighted = _weighted(_counts(texts, len(self.idf)), self.idf)
        return np.asarray(normalize(weighted @ self.components), np.float32)

    def about(self) -> Mapping[str, str]:
        return {"embedder": "tfidf-svd"}

    def tensors(self) -> Mapping[str, Vectors]:
        return {"idf": self.idf, "components": self.components}


def _counts(texts: Sequence[str], features: int) -> csr_matrix:
    vectorizer = HashingVectorizer(
        n_features=features,
        token_pattern=_WORD,
        ngram_range=(1, 2),
        alternate_sign=False,
        norm=None,
        dtype=np.float32,
    )
    return vectorizer.transform(texts)


def _weighted(counts: csr_matrix, idf: Vectors) -> csr_matrix:
    return normalize(counts.multiply(idf).tocsr())
