"""Texts between the batches of searches: they take turns, end alone, and hold nobody up."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from model_store.bundle import Bundle
from service.engine import Beam, Query
from service.engine.fake import FakeEngine
from service.errors import EngineDead, EngineError
from tests.engine.test_batching import PATIENCE, POISON, Scripted, held, until
from tests.tiny import make_bundle, random_items


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("texts")
    return make_bundle(folder, random_items(50, (4, 4, 4)))


class Endless(FakeEngine):
    """Writes for ever, notes what it does in which order, and fails behind the token `POISON`."""

    def __init__(self, bundle: Bundle) -> None:
        self.steps: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(bundle)

    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        self.steps.append("search")
        assert self.gate.wait(PATIENCE)
        return super()._run(queries)

    def _write(self, prompt: Sequence[int], max_tokens: int) -> Iterator[int]:
        while True:
            self.steps.append(f"text {prompt[0]}")
            if prompt[0] == POISON:
                raise RuntimeError("poison")
            yield prompt[0]


async def test_texts_take_turns_and_each_ends_at_its_length(bundle: Bundle) -> None:
    with Endless(bundle) as engine:
        long, short = await asyncio.gather(engine.generate([1], 50), engine.generate([2], 3))
        assert (long, short) == ([1] * 50, [2] * 3)
        between = engine.steps[engine.steps.index("text 2") :][:6]
        assert between == ["text 2", "text 1"] * 3


async def test_a_search_waits_for_one_token_only(bundle: Bundle) -> None:
    with Endless(bundle) as engine:
        engine.gate.clear()
        # Of different widths, so that they do not share a batch.
        searches = [
            asyncio.create_task(engine.search(Query([1], width))) for width in (1, 3, 9, 27)
        ]
        await until(lambda: engine.stats().queue_depth == 3)
        text = asyncio.create_task(engine.generate([1], 250))
        await asyncio.sleep(0)
        engine.gate.set()
        assert await text == [1] * 250
        assert all(await asyncio.gather(*searches))
        assert engine.steps[:8] == ["search", "text 1"] * 4


async def test_one_that_fails_fails_alone(bundle: Bundle) -> None:
    with Endless(bundle) as engine:
        failing = asyncio.create_task(engine.generate([POISON], 5))
        assert await engine.generate([1], 5) == [1] * 5
        with pytest.raises(EngineError, match="RuntimeError: poison"):
            await failing
        assert await engine.search(Query([1], 2))


async def test_closing_leaves_no_caller_waiting(bundle: Bundle) -> None:
    engine = Scripted(bundle)
    gate, first = await held(engine)
    text = asyncio.create_task(engine.generate([1], 5))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(engine.close))
    await until(lambda: not engine.alive)
    gate.opened.set()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(EngineDead):
            await text
        await closing
        assert await first
    with pytest.raises(EngineDead):
        await engine.generate([1], 5)
