from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.build.sids.collisions import reassign, resolve_collisions, spec_for
from model_store.sid import END

CODES = np.array([[1, 2], [3, 4], [1, 2], [1, 2], [5, 6]], np.int32)
POPULARITY = np.array([5.0, 1, 9, 7, 0])


def never(rows: np.ndarray) -> np.ndarray:
    raise AssertionError("no distance is needed")


def test_extra_numbers_colliding_items_by_popularity_and_others_end() -> None:
    solved = resolve_collisions(CODES, POPULARITY, "extra", never)
    assert solved.tolist() == [[1, 2, 2], [3, 4, END], [1, 2, 0], [1, 2, 1], [5, 6, END]]
    assert spec_for(solved, [8, 8]).format(solved[0]) == "<a_1><b_2><c_2>"


def test_keep_leaves_items_on_one_sid() -> None:
    solved = resolve_collisions(CODES, POPULARITY, "keep", never)
    assert (solved[:, :2] == CODES).all()
    assert not spec_for(solved, [8, 8]).extra


def test_without_collisions_there_is_no_extra_level() -> None:
    codes = np.array([[0, 1], [1, 0]], np.int32)
    for policy in ("keep", "extra", "reassign"):
        solved = resolve_collisions(codes, np.zeros(2), policy, never)
        spec = spec_for(solved, [2, 2])
        assert not spec.extra
        assert spec.depth == 2


def test_the_closest_stays_and_the_others_move_to_the_nearest_free_code() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 0], [0, 3], [1, 0]], np.int32)
    distances = np.array([[2, 3, 9, 9], [1, 5, 6, 2], [4, 5, 8, 9], [9, 9, 9, 0]], np.float32)
    moved = reassign(codes, np.zeros(5), lambda rows: distances[rows])
    # Item 1 is closest to code 0. Of items 0 and 2 the pair (0, code 1) is the closest; code 3 is
    # item 3's, so item 2 gets code 2. Item 4 stands alone behind its prefix.
    assert moved.tolist() == [[0, 1], [0, 0], [0, 2], [0, 3], [1, 0]]


def test_who_finds_no_free_code_keeps_its_own_and_gets_the_extra_token() -> None:
    codes = np.zeros((3, 2), np.int32)
    distances = np.array([[0, 1], [3, 2], [4, 3]], np.float32)
    solved = resolve_collisions(codes, np.array([1.0, 0, 9]), "reassign", lambda r: distances[r])
    assert solved.tolist() == [[0, 0, 1], [0, 1, END], [0, 0, 0]]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 3), st.integers(1, 8))
def test_no_collision_is_left_that_a_free_code_would_solve(
    seed: int, n: int, prefixes: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 5, size=(n, size)).astype(np.float32)  # with ties
    codes = np.column_stack([rng.integers(prefixes, size=n), distances.argmin(1)]).astype(np.int32)
    popularity = rng.integers(3, size=n).astype(float)
    moved = reassign(codes, popularity, lambda rows: distances[rows])
    assert (moved[:, 0] == codes[:, 0]).all()
    before = Counter(map(tuple, codes.tolist()))
    after = Counter(map(tuple, moved.tolist()))
    for prefix in range(prefixes):
        members = (codes[:, 0] == prefix).sum()
        used = {code for first, code in after if first == prefix}
        assert len(used) == min(members, size)
    for old, new in zip(codes.tolist(), moved.tolist(), strict=True):
        if old != new:
            assert before[tuple(old)] > 1
            assert tuple(new) not in before  # it was free
            assert after[tuple(new)] == 1
    assert (reassign(codes, popularity, lambda rows: distances[rows]) == moved).all()
    solved = resolve_collisions(codes, popularity, "reassign", lambda rows: distances[rows])
    assert len(np.unique(solved, axis=0)) == n
