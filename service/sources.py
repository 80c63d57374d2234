"""Where the items of an answer come from: a chain, in which each source fills what is missing.

model             the model, by history, profile and scene
profile           the model, by profile and scene alone, where it was trained so
popular_in_scene  what is clicked in the scene now, then what was when the catalogue was made
popular           the same over all scenes; it knows every item, so the chain ends here

The model is asked once at most, by what is known of the user: an engine that failed, or had no
time, is not asked again for the same answer.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from model_store.catalogue import Catalogue
from model_store.sid import Eligibility
from service.popularity import Popularity

Source = Literal["model", "profile", "popular_in_scene", "popular"]
Reason = Literal[
    "no_history",
    "nothing_eligible",
    "deadline",
    "overloaded",
    "history_unavailable",
    "engine_error",
    "engine_dead",
]
Rows = npt.NDArray[np.int64]


class Picks:
    """The rows of an answer as it fills: up to `k`, distinct, eligible, each with score and source.

    It is full when k rows are there, or all that are eligible, if the chain has been through.
    """

    def __init__(self, k: int, eligible: Eligibility | None) -> None:
        self._k = k
        self._eligible = eligible
        self._rows: dict[int, tuple[float | None, Source]] = {}

    @property
    def full(self) -> bool:
        return len(self._rows) >= self._k

    @property
    def source(self) -> Source:
        """Of the first row, which names the answer."""
        return next((source for _, _, source in self), "popular")

    def __iter__(self) -> Iterator[tuple[int, float | None, Source]]:
        for row, (score, source) in self._rows.items():
            yield row, score, source

    def scored(self, source: Source, rows: Iterable[tuple[int, float]]) -> None:
        """Takes rows that a search has found, so eligible ones, with their scores."""
        for row, score in rows:
            if not self.full:
                self._rows.setdefault(row, (score, source))

    def ranked(self, source: Source, rows: Rows) -> None:
        """Takes rows from the front of a ranking (n,) of distinct rows, eligible or not."""
        # No more of them come again than are here already, so the first k fill what is missing.
        if self._eligible is None:
            found = rows[: self._k].tolist()
        else:
            found = self._eligible.among(rows, self._k)
        for row in found:
            if not self.full:
                self._rows.setdefault(row, (None, source))


def popular_rows(
    catalogue: Catalogue, now: Popularity | None, scene: str | None
) -> Iterator[tuple[Source, Rows]]:
    """The rankings at the end of the chain, in order; those that count clicks `now` may be short,
    the last one is of all items."""

    def clicked(where: str | None) -> Rows:
        top = () if now is None else now.top(where)
        known = (catalogue.row_of.get(item_id) for item_id, _ in top)
        return np.array([row for row in known if row is not None], np.int64)

    if scene is not None:
        yield "popular_in_scene", clicked(scene)
        if scene in catalogue.scenes:
            yield "popular_in_scene", catalogue.popular(scene)
    yield "popular", clicked(None)
    yield "popular", catalogue.popular()
