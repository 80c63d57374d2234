"""Who may still wait for the engine, on a clock that the test moves."""

import math
from contextlib import ExitStack, suppress

import pytest

from service import engine_queue
from service.engine_queue import EngineQueue
from service.errors import EngineError, Overloaded


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


def test_nothing_is_refused_before_anything_is_known(clock: Clock) -> None:
    queue = EngineQueue(10)
    with ExitStack() as searches:
        for _ in range(1000):
            queue.check("a")
            searches.enter_context(queue.search("a"))
        assert (queue.wait, queue.under_way) == (0, 1000)


def test_the_wait_is_the_number_ahead_over_the_rate(clock: Clock) -> None:
    queue = EngineQueue(500)
    run(queue, clock, 1000, 0.02)
    assert queue.limit == pytest.approx(25, rel=0.02)  # half a second of fifty a second
    with ExitStack() as searches:
        for ahead in range(math.floor(queue.limit)):
            assert queue.wait == pytest.approx(ahead / 50, rel=0.02)
            queue.check("a")
            searches.enter_context(queue.search("a"))
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
        with pytest.raises(Overloaded):
            queue.check("a")
    run(queue, clock, 300, 0.01)
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


def test_batches_grow_as_long_as_two_are_done_in_time(clock: Clock) -> None:
    """Somebody comes every millisecond; the engine takes 20 ms and 1 ms for each of a batch."""
    queue = EngineQueue(100)
    run(queue, clock, 100, 0.021)
    assert queue.limit < 5
    running, waiting, sizes, end = ExitStack(), ExitStack(), [0], 0.0
    for _ in range(5000):
        if clock.now >= end:
            before = queue.under_way
            running.close()
            running, waiting = waiting.pop_all(), ExitStack()
            sizes.append(queue.under_way)
            assert before == sum(sizes[-2:])
            end = clock.now + 0.02 + 0.001 * sizes[-1]
        if not queue.full_for("a"):
            waiting.enter_context(queue.search("a"))
        clock.now += 0.001
    # Two of 30 take 100 ms.
    assert 50 <= sum(sizes[-2:]) <= 60
    running.close()
    waiting.close()


def test_without_a_limit_any_number_waits(clock: Clock) -> None:
    queue = EngineQueue(0)
    run(queue, clock, 20, 2.0)
    with ExitStack() as searches:
        for _ in range(500):
            queue.check("a")
            searches.enter_context(queue.search("a"))


def test_callers_share_a_full_queue(clock: Clock) -> None:
    queue = EngineQueue(1000)
    run(queue, clock, 500, 0.05)
    size = math.floor(queue.limit)
    assert size in (19, 20)
    with ExitStack() as greedy, ExitStack() as modest:
        for _ in range(size):
            queue.check("greedy")
            greedy.enter_context(queue.search("greedy"))
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
