"""Sends requests to a service: at a constant rate whatever it answers, or as fast as it answers.

An open loop sends on schedule, and a latency counts from the moment at which the request was due.
So a service that stalls is charged for everybody who would have come meanwhile; a closed loop,
which waits for answers before it asks again, forgives that (coordinated omission).

Why not a ready-made tool: locust's users wait for their answers, so its load is closed, and its
paced variants fall behind when answers do (docker/load/locustfile.py is there all the same, for who
has locust); wrk is closed as well; wrk2, vegeta and k6 are open, but are no Python packages and run
scripts of other languages.
"""

import asyncio
import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar

import aiohttp
import numpy as np

from bench.timing import digits

P = ParamSpec("P")
T = TypeVar("T")

PATH = "/v1/recommendations"
_JSON = {"Content-Type": "application/json"}
_TIMEOUT_S = 30.0
_KEPT_S = 15.0
_AHEAD_S = 0.1


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer with status 200: when its request was due and when it was there, by the clock that
    all processes of the machine share (`time.perf_counter`), and what it said."""

    due: float
    there: float
    content: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of a schedule: seconds after its start at which it was due, seconds until it had
    ended, and the outcome, as in `Answered`."""

    due: float
    seconds: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back, and what sending cost.

    seconds:  latencies of all requests, failed ones included
    outcomes: how many got each status, or "timeout", "unreachable" or "broken" without one;
              "popular" are those of status 200 that a fallback answered
    wall_s:   from the first request to the last answer
    cpu_s:    processor time of the sending process
    lag_s:    how late the latest request was sent: a sender that cannot keep up measures itself
    replies:  what was answered, where that was asked for
    each:     the requests, of a schedule
    began:    `time.perf_counter` at the start of a schedule
    """

    seconds: list[float]
    outcomes: dict[str, int]
    wall_s: float
    cpu_s: float
    lag_s: float = 0.0
    replies: list[Reply] = field(default_factory=list)
    each: list[Sent] = field(default_factory=list)
    began: float = 0.0

    @property
    def failed(self) -> int:
        """Requests without a model's answer: refused, failed, or answered by a fallback."""
        return sum(count for outcome, count in self.outcomes.items() if outcome != "200")

    @property
    def per_second(self) -> float:
        return self.outcomes.get("200", 0) / self.wall_s

    def percentile(self, share: float) -> float:
        """Seconds within which `share` percent of the requests had ended."""
        return float(np.percentile(self.seconds, share))

    def __str__(self) -> str:
        p50, p99 = (digits(self.percentile(share) * 1e3) for share in (50, 99))
        return f"p50 {p50} ms, p99 {p99} ms, {self.failed} of {len(self.seconds)} failed"


def percentile(sent: Sequence[Sent], share: float) -> float:
    """Seconds within which `share` percent of these had ended; no number where there are none."""
    return float(np.percentile([one.seconds for one in sent], share)) if sent else float("nan")


def open_loop(
    url: str,
    bodies: Sequence[bytes],
    rate: float,
    seconds: float,
    *,
    evenly: bool = False,
    seed: int = 0,
    keep: bool = False,
) -> Answered:
    """`rate` requests a second for `seconds`, one at least, as a Poisson process or evenly spaced;
    `keep` what is answered."""
    phases = [(rate, max(seconds, 1 / rate))]
    due = even(phases) if evenly else poisson(phases, np.random.default_rng(seed))
    return scheduled(url, bodies, due, keep=keep)


def even(phases: Sequence[tuple[float, float]]) -> list[float]:
    """When requests are due at constant rates: `phases` are (requests a second, seconds)."""
    due: list[float] = []
    start = 0.0
    for rate, seconds in phases:
        due += (start + np.arange(round(rate * seconds)) / rate).tolist()
        start += seconds
    return due


def poisson(phases: Sequence[tuple[float, float]], rng: np.random.Generator) -> list[float]:
    """When requests are due that come independently of one another; `phases` as in `even`, in each
    of which as many come as in an even one: a Poisson process, given how many there are."""
    due: list[float] = []
    start = 0.0
    for rate, seconds in phases:
        moments = rng.uniform(0, seconds, round(rate * seconds))
        due += (start + np.sort(moments)).tolist()
        start += seconds
    return due


async def paced(
    due: Iterable[float], start: float, send: Callable[[float], Coroutine[Any, Any, None]]
) -> float:
    """`send(moment)` at each moment of `due`, seconds after `start` by `time.perf_counter`,
    whatever becomes of those before; returns when all have ended, how late the latest began."""
    lag = 0.0
    async with asyncio.TaskGroup() as group:
        for moment in due:
            at = start + moment
            if (early := at - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            lag = max(lag, time.perf_counter() - at)
            group.create_task(send(moment))
    return lag


def scheduled(
    url: str, bodies: Sequence[bytes], due: Sequence[float], *, keep: bool = False
) -> Answered:
    """A request at each moment of `due`, seconds from now on, whatever the answers do."""

    async def run(session: aiohttp.ClientSession) -> Answered:
        sent: list[Sent] = []
        replies: list[Reply] = []
        start, left = time.perf_counter() + _AHEAD_S, cycle(bodies)

        async def one(moment: float) -> None:
            outcome, content = await _post(session, url, next(left))
            at, there = start + moment, time.perf_counter()
            sent.append(Sent(moment, there - at, outcome))
            if keep and outcome in ("200", "popular"):
                replies.append(Reply(at, there, content))

        lag = await paced(due, start, one)
        wall = time.perf_counter() - start
        cost = time.process_time() - cpu
        seconds, outcomes = [one.seconds for one in sent], Counter(one.outcome for one in sent)
        return Answered(seconds, dict(outcomes), wall, cost, lag, replies, sent, start)

    cpu = time.process_time()
    return asyncio.run(with_session(run))


def closed_loop(url: str, bodies: Sequence[bytes], in_flight: int, seconds: float) -> Answered:
    """As many requests as get answers in `seconds`, `in_flight` at any time."""

    async def run(session: aiohttp.ClientSession) -> Answered:
        seconds_taken: list[float] = []
        outcomes: Counter[str] = Counter()
        start, left = time.perf_counter(), cycle(bodies)

        async def caller() -> None:
            while (at := time.perf_counter()) < start + seconds:
                outcomes[(await _post(session, url, next(left)))[0]] += 1
                seconds_taken.append(time.perf_counter() - at)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        wall = time.perf_counter() - start
        return Answered(seconds_taken, dict(outcomes), wall, time.process_time() - cpu)

    cpu = time.process_time()
    return asyncio.run(with_session(run))


def apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns in a fresh process, which shares no interpreter with what it loads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=gc.freeze) as pool:
        return pool.submit(work, *args, **kwargs).result()


async def with_session(
    run: Callable[[aiohttp.ClientSession], Awaitable[T]],
    *,
    timeout_s: float = _TIMEOUT_S,
    headers: Mapping[str, str] = MappingProxyType({}),
    kept_s: float = _KEPT_S,
) -> T:
    """What `run` returns. Every request of the session carries `headers`; a connection that has
    been idle for `kept_s` is not used again."""
    # No limit of connections: a request that waits for one would not be on the wire when due.
    connections = aiohttp.TCPConnector(limit=0, keepalive_timeout=kept_s)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(
        connector=connections, timeout=timeout, headers={**_JSON, **headers}
    ) as session:
        return await run(session)


async def exchange(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[str, bytes]:
    """The status of the answer to a POST, or what kept it from coming, and its content."""
    try:
        async with session.post(url, data=body) as answer:
            return str(answer.status), await answer.read()
    except TimeoutError:
        return "timeout", b""
    except aiohttp.ClientConnectorError:
        return "unreachable", b""
    except aiohttp.ClientError:
        return "broken", b""


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[str, bytes]:
    outcome, content = await exchange(session, url + PATH, body)
    # The answer's own source stands before those of its items.
    _, _, source = content.partition(b'"source":"')
    if outcome == "200" and source.startswith(b"popular"):
        return "popular", content
    return outcome, content
