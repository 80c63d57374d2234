"""One process that sends its share of the load, on schedule, and takes down what comes back."""

import asyncio
import json
import resource
import time
from bisect import bisect
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import aiohttp
import numpy as np

from bench.connection import authorization
from bench.http_load import even, exchange, paced, poisson, with_session
from bench.load.samples import Log, Samples
from bench.load.traffic import EVENTS, Mix, Traffic
from bench.load.wares import Wares
from bench.users import Users

PER_WORKER = 3
"""Counts of a worker: sent, ended, and of these without a 200."""

_counts: MutableSequence[int] = [0] * PER_WORKER


@dataclass(frozen=True, slots=True)
class Step:
    """A constant rate, in requests a second, for so long."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Target:
    """Where to, as whom, and what.

    users, exponent: how many there are, and the law by which they come (see `bench.users.Users`)
    even: requests are evenly spaced; else each comes independently of the others
    """

    url: str
    key: str | None
    wares: Wares
    mix: Mix
    users: int = 2000
    exponent: float = 0.6
    seed: int = 20
    even: bool = False
    timeout_s: float = 30.0

    def crowd(self) -> Users:
        return Users(self.wares.items, self.users, self.seed, name="load", exponent=self.exponent)


@dataclass(frozen=True, slots=True)
class Task:
    """The `number`th of `of` equal shares of `steps`, from `begins` on by the clock that all
    processes of a machine share (`time.perf_counter`). `turn` counts a target's runs, `run` is the
    name of no other run that the service ever sees."""

    target: Target
    steps: Sequence[Step]
    begins: float
    run: str
    turn: int
    number: int
    of: int


@dataclass(frozen=True, slots=True)
class Done:
    """What came back, and the processor time that it took, until the last had ended."""

    samples: Samples
    cpu_s: float
    wall_s: float


def prepare(counts: MutableSequence[int]) -> None:
    """For each process, once: where it counts, and as many connections as it may have."""
    global _counts
    _counts = counts
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def work(task: Task) -> Done:
    """Sends, and waits for all that was sent."""
    target = task.target
    name = f"{task.run}-{task.number}"
    traffic = Traffic(
        target.crowd(), target.wares.filters, target.mix, seed=f"{target.seed}-{name}", name=name
    )
    phases = [(step.rate / task.of, step.seconds) for step in task.steps]
    rng = np.random.default_rng([target.seed, task.turn, task.number])
    due = even(phases) if target.even else poisson(phases, rng)
    sender = _Sender(task, traffic)
    cpu = time.process_time()

    async def run(session: aiohttp.ClientSession) -> float:
        return await paced(due, task.begins, lambda moment: sender.send(session, moment))

    headers = authorization(target.key)
    asyncio.run(with_session(run, timeout_s=target.timeout_s, headers=headers))
    wall = time.perf_counter() - task.begins
    return Done(sender.log.samples(), time.process_time() - cpu, wall)


class _Sender:
    def __init__(self, task: Task, traffic: Traffic) -> None:
        self.log = Log()
        self._task = task
        self._traffic = traffic
        self._ends = list(accumulate(step.seconds for step in task.steps))
        self._at = PER_WORKER * task.number

    async def send(self, session: aiohttp.ClientSession, moment: float) -> None:
        task, due = self._task, self._task.begins + moment
        late = time.perf_counter() - due
        step = task.steps[min(bisect(self._ends, moment), len(task.steps) - 1)]
        visit, call = self._traffic.call(step.rate / task.of)
        _counts[self._at] += 1
        outcome, content = await exchange(session, task.target.url + call.path, call.body)
        seconds = time.perf_counter() - due
        _counts[self._at + 1] += 1
        _counts[self._at + 2] += outcome != "200"
        event, answer = call.path == EVENTS, _document(content) if outcome == "200" else {}
        if not event and outcome == "200":
            visit.shown([item["item_id"] for item in answer.get("items", [])])
        self.log.ended(moment, seconds, late, event, outcome, answer)


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
