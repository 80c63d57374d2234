"""Items that the quantizer gave the same codes: kept, told apart by an extra token, or moved.

Everything here is deterministic: ties go to the more popular item, then to the earlier one.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from model_store.build.embed.base import Vectors
from model_store.build.sids.config import Collisions
from model_store.sid import END, Codes, Level, SidSpec

Rows = npt.NDArray[np.int64]
LastDistances = Callable[[Rows], Vectors]
"""Rows to their squared distances from each code of the last level: (rows,) to (rows, codes)."""


def resolve_collisions(
    codes: Codes,
    popularity: npt.NDArray[np.float64],
    policy: Collisions,
    last_distances: LastDistances,
) -> Codes:
    """SIDs of a catalogue: shape (n, levels) to (n, levels + 1), `END` where there is no extra.

    With `keep` nobody has the extra token. With `extra` the items of a SID are numbered by falling
    popularity. With `reassign` they first move at the last level (`reassign`), and those who still
    collide are numbered.
    """
    if policy == "keep":
        return np.column_stack([codes, np.full(len(codes), END, np.int32)])
    if policy == "reassign":
        codes = reassign(codes, popularity, last_distances)
    return np.column_stack([codes, _numbers(codes, popularity)])


def reassign(
    codes: Codes, popularity: npt.NDArray[np.float64], last_distances: LastDistances
) -> Codes:
    """Moves colliding items to codes of the last level that are free behind their other codes.

    On each SID the item closest to the code stays. Of all the others behind the same prefix, the
    pair of item and free code with the smallest distance is served first, then the next, as long
    as a code is free. Items without collision never move, and whoever is left when no code is free
    keeps the code that it had.
    """
    moved = codes.copy()
    for rows in _groups(codes[:, :-1]):
        last = codes[rows, -1]
        if len(np.unique(last)) == len(rows):
            continue
        distances = last_distances(rows)
        own = distances[np.arange(len(rows)), last]
        order = np.lexsort((rows, -popularity[rows], own, last))
        stays = np.zeros(len(rows), bool)
        stays[order[np.r_[True, np.diff(last[order]) > 0]]] = True
        free = np.ones(distances.shape[1], bool)
        free[last[stays]] = False
        movers, open_codes = np.flatnonzero(~stays), np.flatnonzero(free)
        for mover, code in _closest_pairs(
            distances[np.ix_(movers, open_codes)], popularity[rows[movers]]
        ):
            moved[rows[movers[mover]], -1] = open_codes[code]
    return moved


def spec_for(codes: Codes, sizes: Sequence[int]) -> SidSpec:
    """`<a_…><b_…>…` for codes whose last column is the extra level, empty or not."""
    extra = int(codes[:, -1].max()) + 1
    used = [*sizes, extra] if extra else sizes
    levels = [Level(f"<{chr(ord('a') + i)}_{{}}>", size) for i, size in enumerate(used)]
    return SidSpec(tuple(levels), extra=bool(extra))


def _numbers(codes: Codes, popularity: npt.NDArray[np.float64]) -> Codes:
    """The extra column (n,): items of one SID by falling popularity, `END` for an item alone."""
    _, sid, size = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    order = np.lexsort((-popularity, sid))
    starts = np.concatenate([[0], np.cumsum(size)[:-1]])
    number = np.empty(len(codes), np.int32)
    number[order] = np.arange(len(codes)) - starts[sid[order]]
    return np.where(size[sid] > 1, number, END).astype(np.int32)


def _groups(prefixes: Codes) -> Iterator[Rows]:
    """The rows of each prefix that several items share, ascending."""
    _, prefix, size = np.unique(prefixes, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(prefix, kind="stable")
    for rows in np.split(order, np.cumsum(size)[:-1]):
        if len(rows) > 1:
            yield rows


def _closest_pairs(
    distances: Vectors, popularity: npt.NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """Greedy matching: the closest pair of (row, column), then the closest of what is left."""
    row, column = np.indices(distances.shape).reshape(2, -1)
    rows_left, columns_left = (set(range(n)) for n in distances.shape)
    for pair in np.lexsort((column, row, -popularity[row], distances.ravel())):
        one, other = int(row[pair]), int(column[pair])
        if one in rows_left and other in columns_left:
            rows_left.remove(one)
            columns_left.remove(other)
            yield one, other
