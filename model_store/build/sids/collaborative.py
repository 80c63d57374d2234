"""Who is clicked together, as vectors, joined to the vectors of the items' texts.

Items that people use alike get alike SIDs only if something tells the quantizer; the text does not
always. LETTER (Wang et al., 2024) aligns the codes with collaborative embeddings, CoST (Zhu et al.,
2024) and later work likewise. Here the signal enters in the simplest way that keeps the quantizer
unchanged: vectors by shifted positive PMI and truncated SVD, which is what skip-gram factorises
(Levy and Goldberg, 2014), stand beside the text's.

A later item has no clicks. Its part is predicted from its text, by ridge regression over the items
that have some; so are those of catalogue items without a click.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from model_store.build.embed.base import Vectors
from model_store.build.sids.config import Collaborative
from model_store.errors import BuildError

Clicks = Sequence[Sequence[int]]
"""Rows of the items that each user clicked, in time order."""


def click_vectors(clicks: Clicks, n_items: int, settings: Collaborative, seed: int) -> Vectors:
    """Unit vectors (items, dimensions); zero for an item that is never clicked near another.

    Raises `BuildError` if there are too few clicks for so many dimensions.
    """
    counts = _pairs(clicks, n_items, settings.reach)
    pmi = _shifted_positive_pmi(counts, settings.shift)
    if pmi.nnz <= settings.dimensions:
        raise BuildError(
            f"sids.collaborative: {pmi.nnz} pairs of items that are clicked together are too few"
            f" for {settings.dimensions} dimensions"
        )
    svd = TruncatedSVD(settings.dimensions, random_state=seed)
    # U √S in place of U S, as Levy and Goldberg found best.
    vectors = svd.fit_transform(pmi) / np.sqrt(np.maximum(svd.singular_values_, 1e-12))
    return np.asarray(normalize(vectors), np.float32)


def _pairs(clicks: Clicks, n_items: int, reach: int) -> csr_matrix:
    """How often two items are clicked within `reach` steps of each other, in either order."""
    flat = np.array([item for user in clicks for item in user], np.int64)
    user = np.repeat(np.arange(len(clicks)), [len(items) for items in clicks])
    one, other = [], []
    for step in range(1, reach + 1):
        same = np.flatnonzero(user[:-step] == user[step:])
        one.append(flat[same])
        other.append(flat[same + step])
    left, right = np.concatenate(one), np.concatenate(other)
    distinct = left != right
    left, right = left[distinct], right[distinct]
    both = (np.concatenate([left, right]), np.concatenate([right, left]))
    return coo_matrix((np.ones(2 * len(left)), both), shape=(n_items, n_items)).tocsr()


def _shifted_positive_pmi(counts: csr_matrix, shift: float) -> csr_matrix:
    """max(0, log(#(i, j) · N / (#i · #j)) − log shift), which stays sparse."""
    of_item = np.asarray(counts.sum(1)).ravel()
    pairs = counts.tocoo()
    pmi = np.log(pairs.data * of_item.sum() / (of_item[pairs.row] * of_item[pairs.col] * shift))
    matrix = csr_matrix((np.maximum(pmi, 0), (pairs.row, pairs.col)), shape=counts.shape)
    matrix.eliminate_zeros()
    return matrix
