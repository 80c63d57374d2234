"""Random catalogues of SIDs for property-based tests, as plain tuples and as code matrices."""

from collections.abc import Iterable, Sequence

import numpy as np
from hypothesis import strategies as st

from model_store.sid import END, Codes, Trie

Sid = tuple[int, ...]


def padded(sid: Sequence[int], depth: int) -> Sid:
    return (*sid, *[END] * (depth - len(sid)))


def matrix(sids: Iterable[Sequence[int]], depth: int) -> Codes:
    """The code matrix of SIDs in the given order."""
    return np.array([padded(sid, depth) for sid in sids], np.int32).reshape(-1, depth)


def build(rows: Sequence[Sid]) -> Trie:
    """The trie of padded SIDs in any order."""
    return Trie.build(np.array(sorted(rows), np.int32))


def sid_rows(
    *, max_depth: int = 4, max_code: int = 3, max_items: int = 30
) -> st.SearchStrategy[list[Sid]]:
    """Padded SIDs, sorted: few codes, so that prefixes are shared and SIDs collide, of mixed
    lengths, so that some are prefixes of others."""

    def of_depth(depth: int) -> st.SearchStrategy[list[Sid]]:
        sid = st.lists(st.integers(0, max_code), min_size=1, max_size=depth)
        return st.lists(sid.map(lambda codes: padded(codes, depth)), min_size=1, max_size=max_items)

    return st.integers(1, max_depth).flatmap(of_depth).map(sorted)
