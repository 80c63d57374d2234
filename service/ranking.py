"""From SIDs to items."""

from collections.abc import Iterable, Sequence
from itertools import islice

from model_store.sid import Eligibility
from service.engine import Beam


def best_items(
    beams: Sequence[Beam], k: int, eligible: Eligibility | None = None
) -> list[tuple[int, float]]:
    """The first `k` catalogue rows of the beams that are eligible, with the score of their SID.

    The catalogue already has the items of one SID in the order in which they are to be shown.
    """

    def rows(beam: Beam) -> Iterable[int]:
        # The only item of a beam is eligible, or the search would not have found it.
        if eligible is None or len(beam.rows) == 1:
            return beam.rows
        return eligible.rows(beam.rows.start, beam.rows.stop)

    return list(islice(((row, beam.score) for beam in beams for row in rows(beam)), k))
