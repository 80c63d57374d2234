"""Answers in time: what cannot finish is not started, and somebody else answers by then."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest

from model_store.bundle import Bundle
from service import deadline as deadlines
from service.answer import Answer, Ask
from service.deadline import Deadline, Pace
from service.engine.fake import FakeEngine
from service.errors import DeadlinePassed, InvalidInput
from service.history import History
from service.recommender import Recommender
from service.redis_client import connect
from tests.service.conftest import PATIENT_MS, MakeClient
from tests.service.test_api import HISTORY, recommend

MARGIN = 0.15
"""Seconds: a test machine that others share stops us for longer than the answer takes."""


@pytest.fixture
async def history(redis_url: str) -> AsyncIterator[History]:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    yield History(client)
    await client.aclose()


@pytest.fixture
def slow(bundle: Bundle) -> Iterator[FakeEngine]:
    """Half a second a batch."""
    with FakeEngine(bundle, delay_ms=500) as engine:
        yield engine


async def timed(recommender: Recommender, ask: Ask) -> tuple[Answer, float]:
    start = time.monotonic()
    answer = await recommender.recommend(ask)
    return answer, time.monotonic() - start


async def test_every_answer_is_there_in_time(
    bundle: Bundle, slow: FakeEngine, history: History
) -> None:
    """Forty clients at once; their searches would be some batches of half a second each."""
    recommender = Recommender(bundle, slow, history, beam_width=20)
    asks = [
        Ask(k=5, history=[f"item-{n}"], deadline_ms=(50, 100, 200)[n % 3], beam_width=5 + n)
        for n in range(40)
    ]
    for _ in range(2):
        found = await asyncio.gather(*(timed(recommender, ask) for ask in asks))
        for ask, (answer, seconds) in zip(asks, found, strict=True):
            assert (answer.source, answer.reason) == ("popular", "deadline")
            assert len(answer.picks) == 5
            assert seconds < (ask.deadline_ms or 0) / 1000 + MARGIN
    # Of all that was asked only the first batch was started, and what waited was dropped.
    await asyncio.sleep(0.6)
    assert len(slow.stats().batch_sizes) == 1


async def test_what_cannot_finish_is_not_started(
    bundle: Bundle, slow: FakeEngine, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender(bundle, slow, history, beam_width=20)
    first = await recommender.recommend(Ask(k=5, history=HISTORY))  # whatever it takes
    assert first.source == "model"
    slow.stats()
    answer, seconds = await timed(recommender, Ask(k=5, history=HISTORY, deadline_ms=300))
    assert (answer.source, answer.reason) == ("popular", "deadline")
    assert seconds < 0.1  # at once: nobody waited for a search
    assert "search" not in answer.timing_ms
    assert list(slow.stats().batch_sizes) == []
    enough = await recommender.recommend(Ask(k=5, history=HISTORY, deadline_ms=5000))
    assert (enough.source, enough.reason) == ("model", None)
    # An engine that has recovered is found out about.
    slow.delay_ms = 0
    late = await recommender.recommend(Ask(k=5, history=HISTORY, deadline_ms=300))
    assert late.reason == "deadline"
    monkeypatch.setattr(deadlines, "_FORGOTTEN_S", 0.0)
    again = await recommender.recommend(Ask(k=5, history=HISTORY, deadline_ms=300))
    assert again.source == "model"


async def test_the_deployment_says_how_long_where_the_request_does_not(
    bundle: Bundle, slow: FakeEngine, history: History
) -> None:
    recommender = Recommender(bundle, slow, history, beam_width=20, deadline_ms=50)
    assert (await recommender.recommend(Ask(k=5, history=HISTORY))).reason == "deadline"
    longer = await recommender.recommend(Ask(k=5, history=HISTORY, deadline_ms=5000))
    assert longer.source == "model"


async def test_a_history_that_takes_too_long(bundle: Bundle, history: History) -> None:
    """A server that takes connections and says nothing: the timeout alone would be far too late."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = connect(f"redis://127.0.0.1:{port}", timeout_ms=PATIENT_MS)
    with FakeEngine(bundle) as fake:
        recommender = Recommender(bundle, fake, History(client), beam_width=20)
        answer, seconds = await timed(recommender, Ask(k=5, user_id="ann", deadline_ms=50))
        assert (answer.source, answer.reason) == ("popular", "deadline")
        assert (answer.stored, answer.seen_items) == ("unavailable", None)
        assert seconds < 0.05 + MARGIN
    await client.aclose()
    server.close()


def test_over_http(make_client: MakeClient) -> None:
    client = make_client(engine_options={"delay_ms": 400}, deadline_ms=5000)
    assert recommend(client, history=HISTORY)["source"] == "model"
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        answer = recommend(client, history=HISTORY, deadline_ms=60)
        seconds.append(time.monotonic() - start)
        assert (answer["source"], answer["reason"]) == ("popular", "deadline")
    assert statistics.median(seconds) < 0.06 + MARGIN


async def test_waiting_ends_with_the_deadline() -> None:
    cancelled = False

    async def forever() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(DeadlinePassed):
        await Deadline(10).wait(forever())
    assert cancelled
    passed = Deadline(1)
    await asyncio.sleep(0.01)
    assert passed.left == 0
    with pytest.raises(DeadlinePassed):
        await passed.wait(forever())


async def test_what_the_work_says_is_left_alone() -> None:
    async def says(outcome: Any) -> Any:
        await asyncio.sleep(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    for deadline in (Deadline(0), Deadline(10_000)):
        assert await deadline.wait(says(7)) == 7
        for error in (InvalidInput("k", "no"), TimeoutError("its own")):
            with pytest.raises(type(error)):
                await deadline.wait(says(error))
    assert Deadline(0).at is None
    assert Deadline(0).left is None


def search(pace: Pace, seconds: float, error: Exception | None = None) -> None:
    with suppress(KeyError, DeadlinePassed), pace.measured():
        time.sleep(seconds)
        if error is not None:
            raise error


def test_the_expected_time_is_the_median_of_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    assert pace.expected() == 0
    assert pace.fits(Deadline(1))
    for seconds in (0.05, 0.02, 0.2):
        search(pace, seconds)
    assert 0.05 <= pace.expected() < 0.2
    assert pace.fits(Deadline(0))
    assert pace.fits(Deadline(1000))
    assert not pace.fits(Deadline(20))
    # After a second without a search one may try, and what it finds replaces what was.
    monkeypatch.setattr(deadlines, "_FORGOTTEN_S", 0.0)
    assert pace.fits(Deadline(20))
    monkeypatch.setattr(deadlines, "_FORGOTTEN_S", 1.0)
    assert not pace.fits(Deadline(20))
    monkeypatch.setattr(deadlines, "_FORGOTTEN_S", 0.0)
    search(pace, 0.001)
    monkeypatch.setattr(deadlines, "_FORGOTTEN_S", 1.0)
    assert pace.fits(Deadline(20))


@pytest.mark.parametrize(
    ("error", "counts"), [(None, True), (DeadlinePassed("now"), True), (KeyError(), False)]
)
def test_a_search_given_up_took_at_least_so_long(error: Exception | None, counts: bool) -> None:
    pace = Pace()
    search(pace, 0.01, error)
    assert (pace.expected() >= 0.01) is counts


def test_no_more_at_once_than_were_done_in_time() -> None:
    pace = Pace()
    for _ in range(50):
        search(pace, 0, DeadlinePassed("late"))
    assert pace.fits(Deadline(60_000))  # one always may
    with pace.measured():
        assert not pace.fits(Deadline(60_000))
        assert pace.fits(Deadline(0))  # who has all the time in the world waits
    for _ in range(50):
        search(pace, 0)
    with pace.measured():
        assert pace.fits(Deadline(60_000))  # it has grown again
