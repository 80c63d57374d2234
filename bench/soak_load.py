"""Sends the work of a soak, at a constant rate whatever is answered, and reads back what was
acknowledged. For a process of its own; `bench.http_load` says why the rate is constant."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.http_load import even, paced, with_session
from bench.soak_work import Request, Work
from bench.swapped import Sids
from model_store.bundle import Bundle

# Given up before the service does, or a request could meet its closing.
_KEPT_S = 2.0
_READERS = 4


@dataclass(frozen=True, slots=True)
class Response:
    """What one request got.

    kind:    as in `soak_work.MIX`, or "found" for a search for items that have just come
    due:     when it was to be sent, by `time.perf_counter`, which all processes share
    there:   when the answer was there
    status:  0 where there was none
    how:     the reason of a fallback, else the source; the kind of a problem; the error
    version: of the bundle that answered, 0 where none is named
    """

    kind: str
    due: float
    there: float
    status: int
    how: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """What came of it. `wrong` has a line for each answer that was not what it should be; `lost`
    names events that were acknowledged and are not there; `lag_s` is how late the latest request
    was sent."""

    responses: list[Response]
    wrong: list[str]
    acknowledged: int
    lost: list[str]
    written: int
    deleted: int
    found: int
    lag_s: float
    cpu_s: float


def saturation(
    url: str, bundle: Path, users: int, sids: Sids, in_flight: int, seconds: float
) -> float:
    """Answers a second of the same mix when there is always more to do. Half as long before, to
    warm up."""

    async def run(session: aiohttp.ClientSession) -> float:
        work = Work(Bundle.load(bundle), users, sids, seed=1)
        rate = 0.0
        for span in (seconds / 2, seconds):
            end = (start := time.perf_counter()) + span

            async def caller(end: float = end) -> int:
                answered = 0
                while (now := time.perf_counter()) < end:
                    await _ask(session, url, work, work.next(), now)
                    answered += 1
                return answered

            answered = await asyncio.gather(*(caller() for _ in range(in_flight)))
            rate = sum(answered) / (time.perf_counter() - start)
        return rate

    return asyncio.run(with_session(run, kept_s=_KEPT_S))


def soak_load(
    url: str, bundle: Path, users: int, sids: Sids, rate: float, seconds: float
) -> Account:
    """`rate` requests a second for `seconds`; then every acknowledged event is looked for."""

    async def run(session: aiohttp.ClientSession) -> Account:
        work = Work(Bundle.load(bundle), users, sids)
        responses: list[Response] = []
        start, cpu = time.perf_counter(), time.process_time()

        async def one(moment: float) -> None:
            responses.append(await _ask(session, url, work, work.next(), start + moment))

        lag = await paced(even([(rate, seconds)]), start, one)
        cpu = time.process_time() - cpu
        lost = await _lost(session, url, work)
        return Account(
            responses,
            work.wrong,
            sum(map(len, work.acknowledged.values())),
            lost,
            work.written,
            work.deleted,
            work.found,
            lag,
            cpu,
        )

    return asyncio.run(with_session(run, kept_s=_KEPT_S))


async def _ask(
    session: aiohttp.ClientSession, url: str, work: Work, request: Request, due: float
) -> Response:
    request.asked = time.perf_counter()
    try:
        async with session.request(request.method, url + request.path, data=request.body) as answer:
            document: dict[str, Any] = await answer.json(content_type=None)
            there = time.perf_counter()
            status, retry = answer.status, "Retry-After" in answer.headers
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        work.refused(request)
        return Response(request.kind, due, time.perf_counter(), 0, repr(error))
    if status == 200:
        work.answered(request, there, document)
        return Response(request.kind, due, there, status, _how(document), _version(document))
    work.refused(request)
    problem = str(document.get("type")).removeprefix("urn:sidrec:problem:")
    how = problem if retry else f"{problem} without Retry-After"
    return Response(request.kind, due, there, status, how)


def _how(answer: dict[str, Any]) -> str:
    """Of a batch the first reason, if there is any."""
    parts = [one["answer"] for one in answer.get("results", ()) if one["answer"]] or [answer]
    reasons = [part["reason"] for part in parts if part.get("reason")]
    return str(reasons[0] if reasons else parts[0].get("source", "acknowledged"))


def _version(answer: dict[str, Any]) -> int:
    return int(answer.get("bundle", {}).get("version", 0))


async def _lost(session: aiohttp.ClientSession, url: str, work: Work) -> list[str]:
    left = list(work.acknowledged.items())
    lost: list[str] = []

    async def reader() -> None:
        while left:
            user, wanted = left.pop()
            async with session.get(f"{url}/v1/users/{user}/history") as answer:
                document = await answer.json()
            events = [event["event_id"] for event in document.get("events", ())]
            if events != sorted(events, key=lambda event: int(event[1:])):
                work.wrong.append(f"the history of {user} is not in order")
            lost.extend(f"{user}/{event}" for event in wanted - set(events))

    await asyncio.gather(*(reader() for _ in range(_READERS)))
    return lost
