"""What reaches Redis, when, and what is said of what does not."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from service.errors import ExperimentsUnavailable
from service.experiments import recorder as module
from service.experiments.counters import ArmCounters, ArmKey
from service.experiments.definition import Experiment
from service.experiments.recorder import Exposure, Recorder
from service.experiments.running import Running
from service.experiments.store import DefinitionStore
from service.experiments.trail import Heard, Shown, Trails
from service.redis_client import Server, connect
from service.redis_server import EmbeddedRedis
from tests.service.conftest import PATIENT_MS
from tests.service.experiments.conftest import experiment

EXPERIMENT = experiment()
WIDE = ArmKey(EXPERIMENT.key, "wide")


class Process:
    """What one process has of experiments."""

    def __init__(self, client: Server) -> None:
        self.lost: Counter[str] = Counter()
        self.store = DefinitionStore(client)
        self.running = Running(self.store, lambda name: None)
        self.counters = ArmCounters(client)
        self.recorder = Recorder(
            self.counters,
            Trails(client),
            self.running,
            purchase_types=["purchase"],
            lost=lambda what, count: self.lost.update({what: count}),
        )

    async def begin(self, one: Experiment = EXPERIMENT) -> None:
        assert await self.store.write(await self.running.refresh(), one.name, one)
        await self.running.refresh()

    async def users(self) -> tuple[int, int, int]:
        """Exposed, clicking, purchasing ones."""
        users = (await self.counters.read(EXPERIMENT))["wide"].users
        return users["exposed"].count, users["clicked"].count, users["purchased"].count


@pytest.fixture
async def process(redis: Server) -> Process:
    made = Process(redis)
    await made.begin()
    return made


def answer(user: str, request_id: str = "r") -> Exposure:
    return Exposure(user, Shown(request_id, time.time(), (WIDE,)), 5.0, False, False)


def did(user: str, kind: str = "click", request_id: str | None = "r") -> Heard:
    return Heard(user, kind, time.time(), request_id)


async def test_events_wait_a_turn_for_answers_of_other_processes(
    process: Process, redis: Server
) -> None:
    other = Process(redis)
    await other.running.refresh()
    process.recorder.answered(answer("ann"))
    other.recorder.heard([did("ann"), did("ann", "purchase", None), did("ann", "view")])
    assert other.recorder.waiting == 2
    await other.recorder.deliver()  # where it is faster than the process with the answer
    await process.recorder.deliver()
    assert await process.users() == (1, 0, 0)
    await other.recorder.deliver()
    assert await process.users() == (1, 1, 1)
    assert process.recorder.waiting == other.recorder.waiting == 0


async def test_a_click_of_somebody_else_or_of_no_answer(process: Process) -> None:
    process.recorder.answered(answer("ann", "r1"))
    process.recorder.heard([did("bob", request_id="r1"), did("ann", request_id="r2")])
    process.recorder.heard([did("bob", request_id=None)])
    for _ in range(2):
        await process.recorder.deliver()
    assert await process.users() == (1, 0, 0)


async def test_what_a_forgotten_user_left_behind(process: Process) -> None:
    for user in ("ann", "bob"):
        process.recorder.answered(answer(user))
        process.recorder.heard([did(user)])
    await process.recorder.forget("ann")
    for _ in range(2):
        await process.recorder.deliver()
    assert await process.users() == (1, 1, 0)


async def test_nothing_is_lost_or_counted_twice_while_redis_is_away(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        async with connect(server.url, timeout_ms=PATIENT_MS) as client:
            process = Process(client)
            await process.begin()
            process.recorder.answered(answer("ann"))
            await process.recorder.deliver()
    async with connect(server.url) as client:
        process.counters._client = client
        process.recorder._trails._client = client
        process.recorder.answered(answer("bob"))
        process.recorder.heard([did("ann"), did("bob")])
        for _ in range(3):
            with pytest.raises(ExperimentsUnavailable):
                await process.recorder.deliver()
        assert process.recorder.waiting == 3
        with EmbeddedRedis(tmp_path / "redis"):
            for _ in range(2):
                await process.recorder.deliver()
            assert await process.users() == (2, 2, 0)
            totals = (await process.counters.read(EXPERIMENT))["wide"]
            assert totals.counts["answers"] == 2
    assert not process.lost


async def test_what_does_not_fit_is_counted_as_lost(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT", 5)
    for n in range(4):
        process.recorder.answered(answer(f"u{n}"))
    process.recorder.heard([did(f"u{n}") for n in range(3)])
    process.recorder.answered(answer("late"))
    assert process.lost == {"events": 2, "answers": 1}
    for _ in range(2):
        await process.recorder.deliver()
    assert await process.users() == (4, 1, 0)


async def test_what_could_not_be_delivered_for_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_GIVEN_UP_S", -1)
    async with connect("redis://127.0.0.1:1") as client:
        process = Process(client)
        process.recorder.answered(answer("ann"))
        with pytest.raises(ExperimentsUnavailable):
            await process.recorder.deliver()
        assert process.lost["answers"] == 1
        assert process.recorder.waiting == 0


async def test_it_delivers_by_itself_and_what_is_left_at_the_end(process: Process) -> None:
    async with process.recorder.delivering(0.01):
        process.recorder.answered(answer("ann"))
        while process.recorder.waiting:  # noqa: ASYNC110 - nobody tells when Redis has it
            await asyncio.sleep(0.01)
        process.recorder.answered(answer("bob"))
        process.recorder.heard([did("bob")])
    assert await process.users() == (2, 1, 0)
