"""When a trace is right: held against what a search must have considered."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from service.engine.trace import Fate, Trace, TracedLevel, TracedPrefix
from tests.engine.reference import Considered

NEAR = 3e-5
"""Scores closer than this are a tie to engines in fp32."""


def paths_of(trace: Trace) -> list[list[tuple[int, ...]]]:
    """Per level the codes of each prefix, found by going from parent to parent."""
    found: list[list[tuple[int, ...]]] = [[()]]
    for level in trace.levels:
        found.append([(*found[-1][one.parent or 0], one.code) for one in level.prefixes])
    return found[1:]


def assert_traced(
    trace: Trace, right: Sequence[Sequence[Considered]], width: int, tolerance: float = 1e-4
) -> None:
    """`right` is what the reference says that the same search considers."""
    assert len(trace.levels) == len(right)
    assert all(one.parent is None for one in trace.levels[0].prefixes)
    for above, level in pairwise(trace.levels):
        fates = [
            above.prefixes[one.parent].fate for one in level.prefixes if one.parent is not None
        ]
        assert fates == ["kept"] * len(level.prefixes)
    for level, paths, found in zip(trace.levels, paths_of(trace), right, strict=True):
        assert level.width == width
        assert level.considered == len(found)
        assert level.removed == sum(one.eligible_items == 0 for one in found)
        _assert_level(level, paths, found, tolerance)


def _assert_level(
    level: TracedLevel,
    paths: Sequence[tuple[int, ...]],
    found: Sequence[Considered],
    tolerance: float,
) -> None:
    open_ = [one for one in found if one.eligible_items]
    expected: dict[Fate, list[Considered]] = {
        "kept": open_[: level.width],
        "dropped": open_[level.width : 2 * level.width],
        "ineligible": [one for one in found[: level.width] if not one.eligible_items],
    }
    known = {one.path: one for one in found}
    assert [one.fate for one in level.prefixes] == [
        fate for fate, ones in expected.items() for _ in ones
    ]
    places = [one for ones in expected.values() for one in ones]
    assert len(set(paths)) == len(paths)
    for traced, path, place in zip(level.prefixes, paths, places, strict=True):
        same = known[path]
        _assert_prefix(traced, same, tolerance)
        # Another prefix may stand in its place only where the two are a tie.
        assert path == place.path or abs(same.score - place.score) < NEAR


def _assert_prefix(traced: TracedPrefix, right: Considered, tolerance: float) -> None:
    assert traced.gain == pytest.approx(right.gain, abs=tolerance)
    assert traced.score == pytest.approx(right.score, abs=tolerance)
    assert traced.eligible_items == right.eligible_items
