"""Item text to vectors without any download: hashed words, TF-IDF, truncated SVD.

The small offline default. Latin words and Chinese characters, single and in pairs, are hashed into
a fixed number of columns, so that a text with unseen words still has a vector. Only `fit` needs
scikit-learn: a service that gives a later item its SID does without.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import mmh3
import numpy as np

from model_store.build.embed.base import Vectors, unit

_WORD = re.compile(r"[a-z0-9]+(?:\.[0-9]+)?|[\u4e00-\u9fff]")


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
        from scipy.sparse import csr_matrix
        from sklearn.decomposition import TruncatedSVD
        from sklearn.preprocessing import normalize

        rows = [hashed_words(text, features) for text in texts]
        indices = np.concatenate([columns for columns, _ in rows])
        starts = np.cumsum([0, *(len(columns) for columns, _ in rows)])
        documents = np.bincount(indices, minlength=features)
        idf = (np.log((1 + len(texts)) / (1 + documents)) + 1).astype(np.float32)
        weights = np.concatenate([counts for _, counts in rows]) * idf[indices]
        weighted = csr_matrix((weights, indices, starts), shape=(len(texts), features))
        svd = TruncatedSVD(min(dimensions, len(texts) - 1), random_state=seed)
        svd.fit(normalize(weighted))
        return cls(idf, np.ascontiguousarray(svd.components_.T, np.float32))

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, shape (texts, dimensions); zero for a text without a word."""
        vectors = np.zeros((len(texts), self.components.shape[1]), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            columns, counts = hashed_words(text, len(self.idf))
            vector[:] = (counts * self.idf[columns]) @ self.components[columns]
        return unit(vectors)

    def about(self) -> Mapping[str, str]:
        return {"embedder": "tfidf-svd"}

    def tensors(self) -> Mapping[str, Vectors]:
        return {"idf": self.idf, "components": self.components}


def hashed_words(text: str, features: int) -> tuple[np.ndarray, Vectors]:
    """The columns of a text's words and pairs of words, ascending, and how often each occurs.

    The columns are those of scikit-learn's `HashingVectorizer`, with which the first bundles were
    made.
    """
    words = _WORD.findall(text.lower())
    terms = [*words, *map(" ".join, pairwise(words))]
    counts = Counter(abs(mmh3.hash(term)) % features for term in terms)
    columns = np.array(sorted(counts), np.int64)
    return columns, np.array([counts[column] for column in columns.tolist()], np.float32)
