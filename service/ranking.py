"""From what a search has found to ranked items."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from model_store.blend import Scored, mixed
from model_store.bundle import Bundle
from model_store.catalogue import Catalogue
from model_store.sid import Eligibility
from service.engine import Beam


def items_of(
    beams: Sequence[Beam], eligible: Eligibility | None = None
) -> Iterator[tuple[int, float]]:
    """The catalogue rows of the beams that are eligible, with the score of their SID.

    The catalogue already has the items of one SID in the order in which they are to be shown.
    """

    def rows(beam: Beam) -> Iterable[int]:
        # The only item of a beam is eligible, or the search would not have found it.
        if eligible is None or len(beam.rows) == 1:
            return beam.rows
        return eligible.rows(beam.rows.start, beam.rows.stop)

    return ((row, beam.score) for beam in beams for row in rows(beam))


def best_items(
    beams: Sequence[Beam], k: int, eligible: Eligibility | None = None
) -> list[tuple[int, float]]:
    """The first `k` of them."""
    return list(islice(items_of(beams, eligible), k))


class Ranking:
    """How a bundle ranks for a user: as the model does, or with the neighbours of the history mixed
    in. HTTP and offline evaluation both end here."""

    def __init__(self, bundle: Bundle) -> None:
        self._blend = bundle.blend
        self._item_ids = bundle.catalogue.item_ids
        self._row_of = bundle.catalogue.row_of

    def items(
        self,
        beams: Sequence[Beam],
        history: Sequence[str],
        k: int,
        eligible: Eligibility | None,
        catalogue: Catalogue,
    ) -> list[tuple[int, float]]:
        """The first `k` eligible rows of `catalogue`, in which the beams were found, with their
        scores. `history` has item ids, oldest first. The catalogue may have changed since the
        bundle was made: an item that is new has no neighbours, one that is gone is not shown."""
        if self._blend is None:
            return best_items(beams, k, eligible)
        known = [row for i in history if (row := self._row_of.get(i)) is not None]
        rows, shares = self._blend.shares(known)
        places = [catalogue.row_of.get(self._item_ids[row], -1) for row in rows.tolist()]
        now = np.array(places, np.int64)
        here = now >= 0
        weight = self._blend.spec.weight
        return mixed(list(items_of(beams, eligible)), now[here], shares[here], weight, k, eligible)

    def of_rows(
        self, found: Scored, history: Sequence[int], k: int, eligible: Eligibility | None
    ) -> list[tuple[int, float]]:
        """The same in the catalogue of the bundle itself: `history` has its rows."""
        if self._blend is None:
            return list(found[:k])
        return self._blend.ranked(found, history, k, eligible)
