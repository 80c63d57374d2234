"""Concurrent callers: the same answers as one at a time, and nobody waits for ever."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Beam, Engine, Query, create_engine
from service.engine.batching import BatchingEngine
from service.engine.fake import FakeEngine
from service.engine.torch.engine import TorchEngine
from service.errors import EngineDead, EngineError
from tests.tiny import make_bundle, random_items

PATIENCE = 30.0
WIDTHS = (1, 3, 8, 8, 20)
POISON = 13
"""The first token of a prompt on which `Scripted` fails."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    items = random_items(300, (8, 8, 8), seed=6, extra_share=0.3)
    return make_bundle(tmp_path_factory.mktemp("batching"), items)


@pytest.fixture(params=["torch", "fake"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    kind: str = request.param
    options: dict[str, Any] = {"device": "cpu", "batch_tokens": 600} if kind == "torch" else {}
    with create_engine(kind, bundle, **options) as engine:
        yield engine


def random_queries(bundle: Bundle, count: int, *, seed: int = 0) -> list[Query]:
    """Prompts of different lengths, of different widths, some with a restriction."""
    rng = np.random.default_rng(seed)
    n = len(bundle.catalogue)

    def query(i: int) -> Query:
        length = int(rng.integers(1, 90))
        prompt = rng.integers(POISON + 1, bundle.tokenizer.get_vocab_size(), length).tolist()
        eligible = (
            None,
            Eligibility.of(rng.random(n) < 0.2),
            Eligibility.of(excluded=rng.integers(0, n, 40)),
            Eligibility.of(np.zeros(n, bool)),
        )[int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1]))]
        return Query(prompt, WIDTHS[i % len(WIDTHS)], eligible)

    return [query(i) for i in range(count)]


def assert_same_beams(found: Sequence[list[Beam]], expected: Sequence[list[Beam]]) -> None:
    """The same SIDs and rows in the same order; the sums of a larger batch may round otherwise."""
    assert [[(b.codes, b.rows) for b in beams] for beams in found] == [
        [(b.codes, b.rows) for b in beams] for beams in expected
    ]
    for some, others in zip(found, expected, strict=True):
        assert [b.score for b in some] == pytest.approx([b.score for b in others], abs=1e-4)


class Gate:
    """Holds the engine's thread inside a batch until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def wait(self) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE)


class Scripted(FakeEngine):
    """Runs what `script` says before each batch, and writes down what it ran."""

    def __init__(self, bundle: Bundle) -> None:
        self.script: Callable[[Sequence[Query]], None] = lambda queries: None
        self.ran: list[list[Query]] = []
        super().__init__(bundle)

    def _run(self, queries: Sequence[Query]) -> list[list[Beam]]:
        self.ran.append(list(queries))
        self.script(queries)
        return super()._run(queries)


@pytest.fixture
async def scripted(bundle: Bundle) -> AsyncIterator[Scripted]:
    with Scripted(bundle) as engine:
        yield engine


async def held(engine: Scripted) -> tuple[Gate, asyncio.Task[list[Beam]]]:
    """Keeps the engine busy with one query, so that others have to wait."""
    gate = Gate()
    engine.script = lambda queries: gate.wait()
    first = asyncio.create_task(engine.search(Query([1], 1)))
    assert await asyncio.to_thread(gate.entered.wait, PATIENCE)
    return gate, first


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


async def waiting(engine: Engine, queries: Sequence[Query]) -> list[asyncio.Task[list[Beam]]]:
    """Callers of an engine that is held, once all of them wait."""
    tasks = [asyncio.create_task(engine.search(query)) for query in queries]
    await until(lambda: engine.stats().queue_depth == len(queries))
    return tasks


async def outcomes(tasks: Sequence[asyncio.Task[list[Beam]]]) -> list[list[Beam] | BaseException]:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*tasks, return_exceptions=True)


def fail_on_poison(queries: Sequence[Query]) -> None:
    if any(query.prompt_token_ids[0] == POISON for query in queries):
        raise RuntimeError("poison")


class TestBatch:
    def test_a_batch_answers_like_one_at_a_time(self, engine: Engine, bundle: Bundle) -> None:
        queries = random_queries(bundle, 25)
        together = engine.search_batch(queries)
        alone = [engine.search_batch([query])[0] for query in queries]
        assert_same_beams(together, alone)
        assert any(together)

    def test_twice_the_same(self, engine: Engine, bundle: Bundle) -> None:
        queries = random_queries(bundle, 10)
        # The second time the torch engine knows the prompts, and sums up in another order.
        assert_same_beams(engine.search_batch(queries), engine.search_batch(queries))

    def test_no_queries_no_answers(self, engine: Engine) -> None:
        assert engine.search_batch([]) == []
        assert list(engine.stats().batch_sizes) == []

    def test_batches_stay_within_the_token_budget(self, bundle: Bundle) -> None:
        depth, lengths = bundle.spec.depth, (100, 150, 60, 40, 250)
        queries = [Query([20] * length, 4) for length in lengths]
        with TorchEngine(bundle, device="cpu", batch_tokens=250 + 8 * depth) as engine:
            found = engine.search_batch(queries)
            assert list(engine.stats().batch_sizes) == [2, 2, 1]
            assert [len(beams) for beams in found] == [4] * 5

    def test_like_widths_share_a_batch(self, bundle: Bundle) -> None:
        widths = (4, 8, 9, 3, 40, 17, 2)
        queries = [Query([20] * (5 + width), width) for width in widths]
        with TorchEngine(bundle, device="cpu") as engine:
            together = engine.search_batch(queries)
            # 4 and 8, but not 9; 3 would make 8 too wide. Then 9 and 17; 3 and 2; 40.
            assert list(engine.stats().batch_sizes) == [2, 2, 2, 1]
        with TorchEngine(bundle, device="cpu") as engine:
            assert_same_beams(together, [engine.search_batch([query])[0] for query in queries])

    def test_a_prompt_longer_than_the_budget_runs_alone(self, bundle: Bundle) -> None:
        queries = [Query([20] * 50, 2), Query([20], 2)]
        with TorchEngine(bundle, device="cpu", batch_tokens=10) as engine:
            found = engine.search_batch(queries)
            assert list(engine.stats().batch_sizes) == [1, 1]
            assert [len(beams) for beams in found] == [2, 2]

    def test_from_many_threads(self, engine: Engine, bundle: Bundle) -> None:
        queries = random_queries(bundle, 12)
        expected = engine.search_batch(queries)
        found: dict[int, list[list[Beam]]] = {}

        def work(number: int) -> None:
            found[number] = engine.search_batch(queries)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(found) == len(threads)
        for beams in found.values():
            assert_same_beams(beams, expected)


class TestRefused:
    @pytest.mark.parametrize("excess", [None, 1, 1000])
    async def test_a_prompt_that_is_empty_or_too_long(
        self, engine: Engine, excess: int | None
    ) -> None:
        tokens = 0 if excess is None else engine.max_prompt_tokens + excess
        message = f"a prompt has 1 to {engine.max_prompt_tokens} tokens here, this one {tokens}"
        query = Query([20] * tokens, 5)
        with pytest.raises(EngineError, match=message):
            engine.search_batch([Query([20], 1), query])
        with pytest.raises(EngineError, match=message):
            await engine.search(query)
        assert list(engine.stats().batch_sizes) == []

    @pytest.mark.parametrize("width", [0, -1])
    async def test_a_width_below_one(self, engine: Engine, width: int) -> None:
        with pytest.raises(EngineError, match=f"a beam width of {width}"):
            engine.search_batch([Query([20], width)])
        with pytest.raises(EngineError, match=f"a beam width of {width}"):
            await engine.search(Query([20], width))

    def test_the_longest_prompt_is_answered(self, engine: Engine) -> None:
        [beams] = engine.search_batch([Query([20] * engine.max_prompt_tokens, 5)])
        assert len(beams) == 5


class TestConcurrentCallers:
    async def test_sixty_at_once_are_answered_like_one_at_a_time(
        self, engine: Engine, bundle: Bundle
    ) -> None:
        queries = random_queries(bundle, 60, seed=1)
        alone = [engine.search_batch([query])[0] for query in queries]
        engine.stats()
        order = random.Random(0).sample(range(60), 60)
        tasks = [asyncio.create_task(engine.search(queries[i])) for i in order]
        async with asyncio.timeout(PATIENCE):
            found = dict(zip(order, await asyncio.gather(*tasks), strict=True))
        assert_same_beams([found[i] for i in range(60)], alone)
        sizes = engine.stats().batch_sizes
        assert sum(sizes) == 60
        assert max(sizes) > 1

    async def test_those_that_wait_share_a_batch_with_like_widths(self, scripted: Scripted) -> None:
        gate, first = await held(scripted)
        queries = [Query([20 + i], width) for i, width in enumerate((4, 9, 4, 4, 9))]
        tasks = await waiting(scripted, queries)
        gate.opened.set()
        await outcomes([first, *tasks])
        assert [[q.prompt_token_ids[0] for q in batch] for batch in scripted.ran] == [
            [1],
            [20, 22, 23],
            [21, 24],
        ]
        stats = scripted.stats()
        assert (stats.queue_depth, list(stats.batch_sizes)) == (0, [3, 2])
        assert list(scripted.stats().batch_sizes) == []

    async def test_callers_in_several_event_loops(self, engine: Engine, bundle: Bundle) -> None:
        queries = random_queries(bundle, 8)
        expected = engine.search_batch(queries)

        async def ask() -> list[list[Beam]]:
            return await asyncio.gather(*(engine.search(query) for query in queries))

        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*(asyncio.to_thread(asyncio.run, ask()) for _ in range(3)))
        for beams in found:
            assert_same_beams(beams, expected)


class TestCancelled:
    async def test_a_caller_that_has_gone_is_dropped_and_the_others_answered(
        self, scripted: Scripted
    ) -> None:
        gate, first = await held(scripted)
        queries = [Query([20 + i], 4) for i in range(6)]
        tasks = await waiting(scripted, queries)
        for gone in (0, 2, 5):
            tasks[gone].cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        left = [1, 3, 4]
        answers = await outcomes([first, *(tasks[i] for i in left)])
        assert scripted.ran[1:] == [[queries[i] for i in left]]
        assert answers[1:] == [scripted.search_batch([queries[i]])[0] for i in left]
        assert all(tasks[i].cancelled() for i in (0, 2, 5))

    async def test_all_callers_gone(self, scripted: Scripted) -> None:
        gate, first = await held(scripted)
        tasks = await waiting(scripted, [Query([20], 4), Query([21], 4)])
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        await outcomes([first])
        async with asyncio.timeout(PATIENCE):
            assert len(await scripted.search(Query([22], 4))) == 4
        assert [batch[0].prompt_token_ids for batch in scripted.ran] == [[1], [22]]

    async def test_gone_while_its_batch_runs(self, scripted: Scripted) -> None:
        gate, first = await held(scripted)
        first.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        async with asyncio.timeout(PATIENCE):
            assert len(await scripted.search(Query([22], 4))) == 4
        assert first.cancelled()

    async def test_gone_just_as_the_engine_looks(self, scripted: Scripted) -> None:
        """The caller's loop may cancel between two looks of the engine's thread at its future."""
        gate, first = await held(scripted)
        [task] = await waiting(scripted, [Query([20], 4)])

        class CancelledAtSecondLook(asyncio.Future[list[Beam]]):
            looks = 0

            def cancelled(self) -> bool:
                self.looks += 1
                return self.looks > 1

        task.cancel()
        await asyncio.sleep(0)
        scripted._waiting[0].future = CancelledAtSecondLook()
        gate.opened.set()
        await outcomes([first])
        async with asyncio.timeout(PATIENCE):
            assert len(await scripted.search(Query([22], 4))) == 4

    async def test_timeouts_under_load_leave_the_engine_well(
        self, engine: Engine, bundle: Bundle
    ) -> None:
        queries = random_queries(bundle, 60, seed=2)
        dice = random.Random(3)

        async def impatient(query: Query) -> list[Beam] | None:
            try:
                async with asyncio.timeout(dice.choice([0, 0.001, 0.01, PATIENCE])):
                    return await engine.search(query)
            except TimeoutError:
                return None

        found = await asyncio.gather(*map(impatient, queries))
        answered = [i for i, beams in enumerate(found) if beams is not None]
        assert 0 < len(answered) < 60
        assert_same_beams(
            [found[i] or [] for i in answered],
            engine.search_batch([queries[i] for i in answered]),
        )
        assert engine.alive


class TestFailing:
    async def test_only_the_query_at_fault_fails(self, scripted: Scripted) -> None:
        gate, first = await held(scripted)
        queries = [Query([token], 4) for token in (20, POISON, 21, 22)]
        tasks = await waiting(scripted, queries)
        scripted.script = fail_on_poison
        gate.opened.set()
        _, *found = await outcomes([first, *tasks])
        error = found.pop(1)
        assert type(error) is EngineError
        assert str(error) == "RuntimeError: poison"
        assert isinstance(error.__cause__, RuntimeError)
        assert found == [scripted.search_batch([queries[i]])[0] for i in (0, 2, 3)]
        assert scripted.alive

    async def test_alone_in_its_batch(self, scripted: Scripted) -> None:
        scripted.script = fail_on_poison
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(EngineError, match="RuntimeError: poison"):
                await scripted.search(Query([POISON], 4))
            assert len(await scripted.search(Query([20], 4))) == 4

    async def test_two_at_fault_each_get_their_own_error(self, scripted: Scripted) -> None:
        gate, first = await held(scripted)
        tasks = await waiting(scripted, [Query([POISON], 4), Query([POISON, 1], 4)])
        scripted.script = fail_on_poison
        gate.opened.set()
        _, one, other = await outcomes([first, *tasks])
        assert isinstance(one, EngineError)
        assert isinstance(other, EngineError)
        assert one is not other

    async def test_the_fake_engine_fails_on_request(self, bundle: Bundle) -> None:
        with create_engine("fake", bundle, fails=True) as engine:
            with pytest.raises(EngineError, match="told to fail"):
                await engine.search(Query([20], 4))
            assert engine.alive


class TestClosed:
    async def test_waiting_queries_end_with_engine_dead(self, scripted: Scripted) -> None:
        gate, first = await held(scripted)
        tasks = await waiting(scripted, [Query([20], 4), Query([21], 5)])
        closing = asyncio.create_task(asyncio.to_thread(scripted.close))
        await until(lambda: not scripted.alive)
        with pytest.raises(EngineDead):
            await scripted.search(Query([22], 4))
        gate.opened.set()
        answer, *dead = await outcomes([first, *tasks])
        assert isinstance(answer, list)
        assert [type(error) for error in dead] == [EngineDead, EngineDead]
        assert [len(batch) for batch in scripted.ran] == [1]
        async with asyncio.timeout(PATIENCE):
            await closing

    async def test_after_close_nothing_is_answered(self, engine: Engine) -> None:
        assert engine.alive
        engine.close()
        assert not engine.alive
        with pytest.raises(EngineDead):
            await engine.search(Query([20], 4))
        engine.close()

    def test_leaving_the_context_closes(self, bundle: Bundle) -> None:
        with create_engine("fake", bundle) as engine:
            assert engine.alive
        assert not engine.alive

    async def test_a_caller_whose_loop_is_gone_harms_nobody(self, scripted: Scripted) -> None:
        gate, first = await held(scripted)

        async def ask_and_leave() -> None:
            task = asyncio.create_task(scripted.search(Query([20], 4)))
            await asyncio.sleep(0)
            # A loop that ends cancels its tasks; one that is killed leaves them as they are.
            task._log_destroy_pending = False  # type: ignore[attr-defined]

        loop = asyncio.new_event_loop()
        await asyncio.to_thread(loop.run_until_complete, ask_and_leave())
        loop.close()
        gate.opened.set()
        await outcomes([first])
        async with asyncio.timeout(PATIENCE):
            assert len(await scripted.search(Query([21], 4))) == 4

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    async def test_when_the_thread_dies_everyone_hears_of_it(self, scripted: Scripted) -> None:
        class Fatal(BaseException):
            pass

        def die(queries: Sequence[Query]) -> None:
            raise Fatal

        gate, first = await held(scripted)
        tasks = await waiting(scripted, [Query([20], 4), Query([21], 4), Query([22], 7)])
        scripted.script = die
        gate.opened.set()
        answer, *dead = await outcomes([first, *tasks])
        assert isinstance(answer, list)
        assert [type(error) for error in dead] == [EngineDead] * 3
        await until(lambda: not scripted.alive)
        with pytest.raises(EngineDead):
            await scripted.search(Query([23], 4))


def test_every_engine_batches() -> None:
    """The tests above run `BatchingEngine` through its two engines."""
    assert issubclass(TorchEngine, BatchingEngine)
    assert issubclass(FakeEngine, BatchingEngine)
