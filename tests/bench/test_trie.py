"""The trie benchmark runs, and what it calls a check is one."""

from itertools import pairwise

import numpy as np
import pytest

from bench.prefixes import Constraint, LogitsProcessor, PrefixDictionary, PrefixSets, named
from bench.trie_contest import (
    DICTIONARY,
    ORACLE,
    PROCESSOR,
    TRIE,
    Disagreement,
    Layout,
    _consult,
    _contest,
    _walks,
    compare,
)
from model_store.sid import Codes, Trie
from tests.bench.conftest import Measure

LAYOUT = Layout(3, 8)
WIDTH = 5


def distinct_codes() -> Codes:
    """Fifty or so sorted SIDs, each of one item."""
    codes: Codes = np.unique(LAYOUT.draw(60), axis=0)
    return codes


def test_it_runs_to_the_end(measure: Measure) -> None:
    found = measure("trie", "--items", 50, "--beams", "2,6", "--searches", 2, "--vocabulary", 10)
    assert found["settings"]["items"] == [50]
    rows = {(row["layout"], row["beams"], row["contestant"]): row for row in found["rows"]}
    assert len(rows) == 3 * 2 * 5
    for (_, _, contestant), row in rows.items():
        assert row["microseconds"]["low"] > 0
        if contestant in (TRIE, DICTIONARY, ORACLE):
            assert row["build_seconds"] > 0
            assert row["bytes_per_item"] > 0
        if contestant != ORACLE:
            assert row["floor_microseconds"] > 0
            assert row["levels"][0]["children"] <= 50


def test_every_constraint_finds_what_the_trie_finds() -> None:
    codes = distinct_codes()
    dictionary = PrefixDictionary(codes)
    constraints: list[Constraint] = [
        dictionary,
        LogitsProcessor(dictionary, [8] * 3, 100),
        PrefixSets(codes),
    ]
    states = _walks(Trie.build(codes), 8, WIDTH, 4)
    for before, after in pairwise(states):
        if after.step.depth == 0:
            continue
        kept = dict(zip(map(tuple, after.step.prefixes.tolist()), after.step.score, strict=True))
        for constraint in constraints:
            found = named(before.step, constraint.step(before.step))
            compare(str(constraint), found, [(key, float(kept[key])) for key in kept])


@pytest.mark.parametrize("place", [0, 2, -1])
def test_an_item_that_only_the_trie_knows_is_noticed(place: int) -> None:
    codes = distinct_codes()
    shared = np.flatnonzero((codes[1:, :2] == codes[:-1, :2]).all(axis=1))
    without = np.delete(codes, shared[place], axis=0)
    trie = Trie.build(codes)
    # As many beams as items: every one of them is found.
    states = _walks(trie, 8, len(codes), 3)
    with pytest.raises(Disagreement, match=DICTIONARY):
        _contest(trie, PrefixDictionary(without), LAYOUT, states, 2, 10)
    with pytest.raises(Disagreement, match=ORACLE):
        _consult(trie, PrefixSets(without), states)


def test_scores_are_compared() -> None:
    compare(PROCESSOR, [((1, 2), -1.0)], [((1, 2), -1.0)])
    with pytest.raises(Disagreement, match="scores"):
        compare(PROCESSOR, [((1, 2), -1.0)], [((1, 2), -1.01)])
    with pytest.raises(Disagreement, match="scores"):
        compare(PROCESSOR, [((1, 2), float("nan"))], [((1, 2), -1.0)])


def test_skewed_codes_share_prefixes() -> None:
    even, skewed = (
        len(np.unique(Layout(2, 256, skewed=flag).draw(5000), axis=0)) for flag in (False, True)
    )
    assert skewed < 0.9 * even
