"""Who may still wait for the engine, on a clock that the test moves."""

import math
from contextlib import ExitStack, suppress

import pytest

from service import engine_queue
from service.engine_queue import EngineQueue
from service.errors import EngineError, Overloaded

Batch = list[tuple[ExitStack, int]]
"""Searches that run or wait, and when each came."""


class Clock:
    """Instead of `time.monotonic`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(engine_queue, "time", clock)
    return clock


def run(queue: EngineQueue, clock: Clock, count: int, seconds: float, caller: str = "a") -> None:
    """One search after the other, `seconds` each."""
    for _ in range(count):
        with queue.search(caller):
            clock.now += seconds


def join(queue: EngineQueue, searches: ExitStack, count: int, caller: str = "a") -> None:
    """So many searches join, all of them let in, and are under way until `searches` closes."""
    for _ in range(count):
        queue.check(caller)
        searches.enter_context(queue.search(caller))


def test_nothing_is_refused_before_anything_is_known(clock: Clock) -> None:
    queue = EngineQueue(10)
    with ExitStack() as searches:
        join(queue, searches, 1000)
        assert (queue.wait, queue.under_way) == (0, 1000)


def test_the_wait_is_the_number_ahead_over_the_rate(clock: Clock) -> None:
    queue = EngineQueue(500)
    run(queue, clock, 1000, 0.02)
    assert queue.limit == pytest.approx(25, rel=0.02)  # half a second of fifty a second
    with ExitStack() as searches:
        for ahead in range(math.floor(queue.limit)):
            assert queue.wait == pytest.approx(ahead / 50, rel=0.02)
            join(queue, searches, 1)
        with pytest.raises(
            Overloaded, match=r"2[45] searches are ahead, which take 0\.[45]\d s"
        ) as refused:
            queue.check("a")
        assert refused.value.retry_after == 1
    queue.check("a")
    assert queue.under_way == 0


def test_time_without_work_says_nothing_of_the_rate(clock: Clock) -> None:
    queue = EngineQueue(500)
    for _ in range(500):
        run(queue, clock, 1, 0.02)
        clock.now += 10
    assert queue.limit == pytest.approx(25, rel=0.02)


def test_the_rate_follows_the_engine(clock: Clock) -> None:
    queue = EngineQueue(1000)
    run(queue, clock, 500, 0.01)
    assert queue.limit == pytest.approx(100, rel=0.02)
    run(queue, clock, 100, 0.05)
    assert queue.limit == pytest.approx(20, rel=0.1)
    run(queue, clock, 500, 0.01)
    assert queue.limit == pytest.approx(100, rel=0.1)


def test_an_engine_that_stands_still_is_noticed_while_it_does(clock: Clock) -> None:
    queue = EngineQueue(1000)
    run(queue, clock, 500, 0.01)
    with ExitStack() as searches:
        for _ in range(20):
            searches.enter_context(queue.search("a"))
        queue.check("a")
        clock.now += 5
        assert queue.limit == engine_queue._LEAST
        with pytest.raises(Overloaded, match=r"20 searches are ahead, which take 5\.00 s"):
            queue.check("a")
    run(queue, clock, 500, 0.01)
    assert queue.limit == pytest.approx(100, rel=0.1)


def test_what_fails_or_is_given_up_is_no_sign_of_speed(clock: Clock) -> None:
    queue = EngineQueue(1000)
    run(queue, clock, 500, 0.02)
    before = queue.limit
    for _ in range(100):
        with suppress(EngineError), queue.search("a"):
            raise EngineError("no")
    assert queue.limit == pytest.approx(before)
    assert queue.under_way == 0


def test_an_engine_that_has_ended_one_search_has_another_one_there(clock: Clock) -> None:
    queue = EngineQueue(10)
    run(queue, clock, 20, 2.0)
    assert queue.limit == engine_queue._LEAST


@pytest.mark.parametrize("tick", [0.001, 0.01, 0.1])
def test_batches_grow_as_long_as_those_let_in_are_done_in_time(clock: Clock, tick: float) -> None:
    """Three come in each tick; the engine takes 20 ticks and one for each of a batch. One may wait
    a hundred."""
    queue = EngineQueue(round(100_000 * tick))
    run(queue, clock, 100, 21 * tick)
    assert queue.limit < 5
    running, waiting, sizes, waited = Batch(), Batch(), list[int](), list[int]()
    end = 0
    for now in range(50_000):
        clock.now += tick
        if now >= end:
            for search, joined in running:
                waited.append(now - joined)
                search.close()
            running, waiting = waiting, []
            sizes.append(len(running))
            end = now + 20 + len(running) if running else now
        for _ in range(3):
            if not queue.full_for("a"):
                waiting.append((ExitStack(), now))
                waiting[-1][0].enter_context(queue.search("a"))
    # The last ones of a batch joined it when it was not known to be so long.
    assert max(waited[len(waited) // 2 :]) <= 112
    assert 55 <= max(sizes[-4:]) <= 70
    for search, _ in running + waiting:
        search.close()


def test_a_first_batch_is_not_refused_for_what_one_search_took(clock: Clock) -> None:
    queue = EngineQueue(5000)
    run(queue, clock, 1, 0.1)
    with ExitStack() as searches:
        join(queue, searches, 24)
        for _ in range(20):  # the engine is at work on them
            queue.check("a")
            clock.now += 0.1
    assert queue.limit > 24


def test_without_a_limit_any_number_waits(clock: Clock) -> None:
    queue = EngineQueue(0)
    run(queue, clock, 20, 2.0)
    with ExitStack() as searches:
        join(queue, searches, 500)


def test_callers_share_a_full_queue(clock: Clock) -> None:
    queue = EngineQueue(1000)
    run(queue, clock, 500, 0.05)
    size = math.floor(queue.limit)
    assert size in (19, 20)
    with ExitStack() as greedy, ExitStack() as modest:
        join(queue, greedy, size, "greedy")
        assert queue.full_for("greedy")
        for _ in range(int(queue.limit / 2)):  # its half, whatever the other holds
            assert not queue.full_for("modest")
            modest.enter_context(queue.search("modest"))
        assert queue.full_for("modest")
        assert queue.full_for("greedy")
        assert not queue.full_for("third")
        greedy.pop_all().close()
        # Now there is room, and room is for everybody.
        assert not queue.full_for("greedy")
        assert not queue.full_for("modest")
    assert queue.under_way == 0


def test_many_callers_do_not_make_the_queue_endless(clock: Clock) -> None:
    queue = EngineQueue(1000)
    run(queue, clock, 500, 0.05)
    with ExitStack() as searches:
        for number in range(500):
            caller = f"key-{number}"
            if not queue.full_for(caller):
                searches.enter_context(queue.search(caller))
        assert queue.under_way < 2 * queue.limit + 1
