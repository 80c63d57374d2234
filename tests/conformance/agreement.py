"""When two engines agree. In fp32, sums in another order make scores differ in the sixth digit."""

from collections.abc import Sequence

from service.engine import Beam

TOLERANCE = 1e-3
"""Of a score."""

NEAR = 3e-5
"""Scores closer than this are a tie: which of them comes first, or last of all, is open."""


def assert_agree(found: Sequence[Beam], right: Sequence[Beam]) -> None:
    """The same SIDs in the same order with the same scores and items, ties aside."""
    assert len(found) == len(right)
    known = {beam.codes: beam for beam in right}
    for place, (ours, theirs) in enumerate(zip(found, right, strict=True)):
        assert abs(ours.score - theirs.score) < TOLERANCE
        if ours.codes != theirs.codes:
            # Another SID at this place: one of the same score, or one that is cut off in `right`.
            same = known.get(ours.codes, right[-1])
            assert abs(same.score - theirs.score) < NEAR, f"place {place}: {ours} for {theirs}"
        if ours.codes in known:
            assert ours.rows == known[ours.codes].rows
    assert len({beam.codes for beam in found}) == len(found)
