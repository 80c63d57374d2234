"""Every engine on the shipped bundle: the same beams as the torch engine, alone and in company."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Beam, Engine, Query
from service.errors import DeadlinePassed, EngineError
from service.prompt import PromptBuilder
from tests.conformance.agreement import assert_agree

PATIENCE = 120


def prompts(bundle: Bundle, count: int, seed: int) -> list[list[int]]:
    """Prompts over random histories of all lengths that the model takes."""
    builder, rng = PromptBuilder(bundle), np.random.default_rng(seed)
    lengths = rng.integers(1, 120, count)
    return [
        builder.build([int(row) for row in rng.integers(len(bundle.catalogue), size=n)])[0]
        for n in lengths
    ]


def assert_all_same(found: Sequence[Sequence[Beam]], right: Sequence[Sequence[Beam]]) -> None:
    for ours, theirs in zip(found, right, strict=True):
        assert_agree(ours, theirs)


@pytest.fixture(scope="module")
def queries(demo: Bundle) -> list[Query]:
    """A hundred, of different lengths and widths, some of them restricted."""
    rng = np.random.default_rng(5)
    made = []
    for i, prompt in enumerate(prompts(demo, 100, seed=6)):
        mask = rng.random(len(demo.catalogue)) < (0.001, 0.05, 0.6)[i % 3]
        excluded = np.flatnonzero(rng.random(len(demo.catalogue)) < 0.3)
        kinds = [None, None, Eligibility.of(mask), Eligibility.of(None, excluded)]
        made.append(Query(prompt, (20, 20, 20, 7, 50)[i % 5], kinds[i % 4]))
    return made


@pytest.fixture(scope="module")
def right(reference: Engine, queries: list[Query]) -> list[list[Beam]]:
    return [reference.search_batch([query])[0] for query in queries]


class TestBeams:
    def test_one_at_a_time(
        self, engine: Engine, queries: list[Query], right: list[list[Beam]]
    ) -> None:
        found = [engine.search_batch([query])[0] for query in queries[:20]]
        assert_all_same(found, right[:20])

    def test_a_hundred_prompts_in_one_batch(
        self, engine: Engine, reference: Engine, demo: Bundle
    ) -> None:
        asked = [Query(prompt, 20) for prompt in prompts(demo, 120, seed=7)]
        assert_all_same(engine.search_batch(asked), reference.search_batch(asked))

    @pytest.mark.parametrize("width", [1, 2, 300, 10**9])
    def test_other_widths(
        self, engine: Engine, reference: Engine, demo: Bundle, width: int
    ) -> None:
        asked = [Query(prompt, width) for prompt in prompts(demo, 2, seed=8)]
        found = engine.search_batch(asked)
        assert_all_same(found, reference.search_batch(asked))

    def test_longest_and_shortest_prompt(
        self, engine: Engine, reference: Engine, demo: Bundle
    ) -> None:
        assert engine.max_prompt_tokens == reference.max_prompt_tokens
        rng = np.random.default_rng(9)
        asked = [
            Query(rng.integers(1, demo.tokenizer.get_vocab_size(), n).tolist(), 20)
            for n in (1, 2, 31, 32, 33, 63, 64, engine.max_prompt_tokens)
        ]
        assert_all_same(engine.search_batch(asked), reference.search_batch(asked))


class TestEligibility:
    def test_fewer_eligible_than_beams(
        self, engine: Engine, reference: Engine, demo: Bundle
    ) -> None:
        items = engine.trie.n_items
        few = Eligibility.of(np.isin(np.arange(items), [0, 7, items - 1]))
        asked = [Query(prompt, 20, few) for prompt in prompts(demo, 3, seed=10)]
        found = engine.search_batch(asked)
        assert [len(beams) for beams in found] == [3, 3, 3]
        assert_all_same(found, reference.search_batch(asked))

    def test_nothing_eligible(self, engine: Engine) -> None:
        nothing = Eligibility.of(np.zeros(engine.trie.n_items, np.bool_))
        [alone] = engine.search_batch([Query([5, 6, 7], 20, nothing)])
        assert alone == []
        none, some = engine.search_batch([Query([5, 6], 20, nothing), Query([5, 6], 20)])
        assert (len(none), len(some)) == (0, 20)


class TestTogether:
    async def test_a_hundred_at_once_in_any_order(
        self, engine: Engine, queries: list[Query], right: list[list[Beam]]
    ) -> None:
        order = random.Random(11).sample(range(len(queries)), len(queries))
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*(engine.search(queries[i]) for i in order))
        assert_all_same(found, [right[i] for i in order])

    async def test_a_query_joins_at_any_moment(
        self, engine: Engine, queries: list[Query], right: list[list[Beam]]
    ) -> None:
        chance = random.Random(12)

        async def later(query: Query) -> list[Beam]:
            await asyncio.sleep(chance.random() * 0.5)
            return await engine.search(query)

        async with asyncio.timeout(PATIENCE):
            found = await asyncio.gather(*(later(query) for query in queries))
        assert_all_same(found, right)

    async def test_callers_that_go_change_nothing_for_the_rest(
        self, engine: Engine, queries: list[Query], right: list[list[Beam]]
    ) -> None:
        tasks = [asyncio.create_task(engine.search(query)) for query in queries]
        chance = random.Random(13)
        for task in tasks[::2]:
            await asyncio.sleep(chance.random() * 0.02)
            task.cancel()
        async with asyncio.timeout(PATIENCE):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        found = [outcome for outcome in outcomes[1::2] if not isinstance(outcome, BaseException)]
        assert_all_same(found, right[1::2])

    async def test_what_is_late_is_not_started(
        self, engine: Engine, queries: list[Query], right: list[list[Beam]]
    ) -> None:
        now = time.monotonic()
        asked = [replace(q, deadline=now + (i % 2) * PATIENCE) for i, q in enumerate(queries[:20])]
        async with asyncio.timeout(PATIENCE):
            outcomes = await asyncio.gather(*map(engine.search, asked), return_exceptions=True)
        assert all(isinstance(outcome, DeadlinePassed) for outcome in outcomes[::2])
        found = [outcome for outcome in outcomes[1::2] if not isinstance(outcome, BaseException)]
        assert_all_same(found, right[1:20:2])

    async def test_a_query_that_cannot_be_answered_fails_alone(
        self, engine: Engine, queries: list[Query], right: list[list[Beam]]
    ) -> None:
        strange = Query([5, 6, 7], 20, Eligibility.of(np.ones(3, np.bool_)))
        asked = [*queries[:4], strange, *queries[4:8]]
        async with asyncio.timeout(PATIENCE):
            outcomes = await asyncio.gather(
                *(engine.search(query) for query in asked), return_exceptions=True
            )
        assert isinstance(outcomes.pop(4), EngineError)
        assert_all_same([o for o in outcomes if not isinstance(o, BaseException)], right[:8])
        assert engine.alive

    @pytest.mark.parametrize(("tokens", "width"), [(0, 20), (513, 20), (5, 0)])
    async def test_refuses(self, engine: Engine, tokens: int, width: int) -> None:
        with pytest.raises(EngineError, match=r"tokens here|beam width of 0"):
            await engine.search(Query([5] * tokens, width))
        with pytest.raises(EngineError):
            engine.search_batch([Query([5] * tokens, width)])


def test_stats_say_what_ran(engine: Engine) -> None:
    engine.stats()
    engine.search_batch([Query([5, 6, 7], 20), Query([5, 6], 20)])
    stats = engine.stats()
    assert stats.queue_depth == 0
    assert set(stats.batch_sizes) == {2}
    assert list(engine.stats().batch_sizes) == []
