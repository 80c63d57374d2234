"""The catalogue, page by page: all of it, or what has some words in its title or id. No HTTP."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from model_store.edition import Edition


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in the catalogue's order, which is that of SIDs, so that what is alike stands together;
    more: whether others come behind them."""

    rows: list[int]
    more: bool


def browse(catalogue: Edition, words: str, behind: int, limit: int) -> Page:
    """Up to `limit` items behind row `behind` (-1: from the first on) in whose title or id each of
    the `words` occurs, whatever its case. Passes over all titles where there are words: not on a
    loop."""
    found = np.zeros(len(catalogue), bool)
    found[behind + 1 :] = True
    found[catalogue.unlisted] = False
    for word in words.split():
        has = [
            pc.match_substring(catalogue.table.column(name), word, ignore_case=True)
            for name in ("title", "item_id")
        ]
        found &= pc.or_kleene(*has).fill_null(False).to_numpy()
    rows = np.flatnonzero(found)[: limit + 1].tolist()
    return Page(rows[:limit], len(rows) > limit)
