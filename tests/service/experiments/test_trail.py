"""Which answers a click belongs to."""

import pytest

from service.experiments.counters import ArmKey
from service.experiments.trail import CLOCKS_S, KEPT, Heard, Shown, Trails, credited, trail_key
from service.redis_client import RedisClient

A, B = ArmKey("one.1", "a"), ArmKey("two.2", "b")
AT = 1_750_000_000.0
TRAIL = [Shown("r1", AT, (A,)), Shown("r2", AT + 50, (A, B)), Shown("r3", AT + 60, (B,))]
WINDOWS = {"one.1": 100.0, "two.2": 1000.0}


@pytest.mark.parametrize(
    ("after", "request_id", "expected"),
    [
        (10, "r1", {A}),
        (10, "r3", {B}),  # the clock of whoever clicks may be anything
        (10, "r9", set()),
        (101, "r1", set()),  # too late
        (149, "r2", {A, B}),
        (151, "r2", {B}),
        (10, None, {A}),
        (-CLOCKS_S, None, {A}),
        (-CLOCKS_S - 1, None, set()),  # before anything was shown
        (55, None, {A, B}),
        (300, None, {B}),
        (1061, None, set()),
    ],
)
def test_what_an_event_counts_for(
    after: float, request_id: str | None, expected: set[ArmKey]
) -> None:
    assert credited(Heard("u", "click", AT + after, request_id), TRAIL, WINDOWS) == expected


def test_an_experiment_that_is_gone() -> None:
    assert credited(Heard("u", "click", AT + 55, "r2"), TRAIL, {"two.2": 1000.0}) == {B}


async def test_trails_are_kept_in_order_bounded_and_for_a_while(
    anywhere: RedisClient,
) -> None:
    trails = Trails(anywhere)
    await trails.add({"ann": TRAIL[1:], "b}{ob": TRAIL[:1]}, AT + 60, 1000)
    await trails.add({"ann": [TRAIL[0], TRAIL[1]]}, AT + 60, 1000)
    assert await trails.read(["ann", "b}{ob", "eve"]) == {
        "ann": TRAIL,
        "b}{ob": TRAIL[:1],
        "eve": [],
    }
    assert 0 < await anywhere.pttl(trail_key("ann")) <= 1_000_000
    await trails.add({"ann": [Shown("r4", AT + 1055, (A,))]}, AT + 1055, 1000)
    assert [one.request_id for one in (await trails.read(["ann"]))["ann"]] == ["r3", "r4"]
    many = [Shown(f"m{n}", AT + 1060 + n, (A,)) for n in range(KEPT + 5)]
    await trails.add({"ann": many}, AT + 1200, 1000)
    assert (await trails.read(["ann"]))["ann"] == many[5:]
    assert await trails.forget("ann")
    assert not await trails.forget("ann")
