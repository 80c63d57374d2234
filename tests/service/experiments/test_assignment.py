"""Who belongs where. That it divides evenly is shown in `tests/bench/test_experiment.py`."""

from collections import Counter

import pytest

from service.experiments.assignment import Assignment

USERS = [f"user-{n}" for n in range(20_000)]


def test_the_same_for_ever() -> None:
    """Users of a running experiment must not move because the service was updated."""
    arm = Assignment("beams", {"narrow": 0.3, "wide": 0.3}).arm
    found = [arm(user) for user in ("ann", "bob", "mei", "ümit", "", "u1", "u2", "u3")]
    assert found == ["narrow", "narrow", "wide", None, "wide", "narrow", "wide", None]


def test_shares() -> None:
    shares = {"a": 0.1, "b": 0.25, "c": 0.05}
    counts = Counter(map(Assignment("salt", shares).arm, USERS))
    for arm, share in (*shares.items(), (None, 0.6)):
        assert counts[arm] / len(USERS) == pytest.approx(share, abs=0.015)


def test_nobody_moves_when_traffic_grows() -> None:
    small = Assignment("salt", {"a": 0.05, "b": 0.1})
    large = Assignment("salt", {"a": 0.3, "b": 0.6})
    inside = [user for user in USERS if small.arm(user)]
    assert [small.arm(user) for user in inside] == [large.arm(user) for user in inside]


def test_everybody_is_in_where_shares_sum_to_one() -> None:
    thirds = Assignment("salt", dict.fromkeys("abc", 1 / 3))
    assert None not in map(thirds.arm, USERS)
    assert None not in map(Assignment("salt", {"a": 0.7, "b": 0.2, "c": 0.1}).arm, USERS)
