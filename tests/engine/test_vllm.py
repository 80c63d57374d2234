"""What is vLLM's alone: the mask and its two interfaces, options, and the death of a core."""

import asyncio
import importlib
import importlib.util
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.engine.vllm.mask import LEVELS, STATE, RowState, SidMask, pack
from service.errors import EngineDead, EngineError
from tests.tiny import make_bundle, random_items

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None and not os.environ.get("CI"),
    reason="vllm is not installed",
)

VOCABULARY = 90
SLOTS = 16
# Levels of different sizes; the second lies apart and backwards, and lacks the token of a code.
TOKENS = [list(range(10, 31)), [80, 75, -1, 70, 65, 60, 55, 50, 45, 40], [1, 3, 5]]


def random_states(n: int, seed: int) -> list[RowState | None]:
    rng = np.random.default_rng(seed)
    states: list[RowState | None] = []
    for _ in range(n):
        level = int(rng.integers(len(TOKENS)))
        allowed = rng.random((1, len(TOKENS[level]))) < 0.4
        states.append(None if rng.random() < 0.1 else RowState(level, pack(allowed)[0]))
    return states


def expected(logits: Tensor, states: list[RowState | None]) -> Tensor:
    """Row by row and token by token."""
    right = logits.clone()
    for row, state in enumerate(states):
        if state is None:
            continue
        right[row] = -torch.inf
        logp = logits[row].log_softmax(dim=0)
        for code, token in enumerate(TOKENS[state.level]):
            if token >= 0 and state.allowed[code // 8] >> code % 8 & 1:
                right[row, token] = logp[token]
    return right


def parameters(state: RowState | None) -> Any:
    # As it arrives from another process: a tuple has become a list.
    return SimpleNamespace(extra_args=None if state is None else {STATE: list(state)})


@pytest.fixture
def mask() -> SidMask:
    return SidMask(TOKENS, SLOTS, torch.device("cpu"))


class TestMask:
    @pytest.mark.parametrize("seed", range(5))
    def test_like_token_by_token(self, mask: SidMask, seed: int) -> None:
        states = random_states(SLOTS, seed)
        logits = torch.randn(SLOTS, VOCABULARY, generator=torch.Generator().manual_seed(seed))
        mask.write(range(SLOTS), states)
        right = expected(logits, states)
        torch.testing.assert_close(mask.apply(logits.clone(), np.arange(SLOTS)), right)
        order = np.random.default_rng(seed).permutation(SLOTS)[:7]
        found = mask.apply(logits[torch.from_numpy(order)], order)
        torch.testing.assert_close(found, right[torch.from_numpy(order)])

    def test_slots_move_swap_and_empty(self, mask: SidMask) -> None:
        states = [state for state in random_states(20, 7) if state is not None][:4]
        mask.write(range(4), states)
        mask.swap(0, 1)
        mask.move(3, 2)
        now: list[RowState | None] = [states[1], states[0], states[3], None]
        logits = torch.randn(4, VOCABULARY)
        right = expected(logits, now)
        torch.testing.assert_close(mask.apply(logits, np.arange(4)), right)
        mask.clear([0])
        plain = torch.randn(1, VOCABULARY)
        torch.testing.assert_close(mask.apply(plain.clone(), np.arange(1)), plain)


@needs_vllm
class TestProcessors:
    """Both interfaces see the same batches, each in its own way, and write the same logits."""

    def test_agree_while_requests_come_and_go(self) -> None:
        from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

        from service.engine.vllm.processor_v1 import SidProcessorV1
        from service.engine.vllm.processor_v2 import SidProcessorV2

        config = SimpleNamespace(
            additional_config={LEVELS: TOKENS}, scheduler_config=SimpleNamespace(max_num_seqs=SLOTS)
        )
        device = torch.device("cpu")
        first = SidProcessorV1(config, device, False)
        requests: Any = SimpleNamespace(max_num_reqs=SLOTS, device=device)
        second = SidProcessorV2(config, requests)
        assert not first.is_argmax_invariant()

        # Six requests; then 0 and 4 leave, 5 takes the place of 0, 1 and 2 change places.
        states = random_states(6, 3)
        update: Any = [(i, parameters(state), None, []) for i, state in enumerate(states)]
        first.update_state(BatchUpdate(6, removed=[], added=update, moved=[]))
        for i, state in enumerate(states):
            assert second.add_request(10 + i, parameters(state)) == (state is not None)
        second.apply_staged_writes()
        self.agree(first, second, states, [10, 11, 12, 13, 14, 15])
        swap, one_way = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL
        moved = [(5, 0, one_way), (1, 2, swap)]
        first.update_state(BatchUpdate(4, removed=[4, 0], added=[], moved=moved))
        first.update_state(None)
        left = [states[5], states[2], states[1], states[3]]
        self.agree(first, second, left, [15, 12, 11, 13])

    def agree(self, first: Any, second: Any, states: Any, slots: list[int]) -> None:
        logits = torch.randn(len(states), VOCABULARY)
        right = expected(logits, states)
        mapping = np.array(slots)
        context = SimpleNamespace(
            idx_mapping_np=mapping, expanded_idx_mapping=torch.from_numpy(mapping)
        )
        torch.testing.assert_close(first.apply(logits.clone()), right)
        torch.testing.assert_close(second.apply(logits.clone(), context), right)
        # Two rows a request, as when tokens are guessed ahead.
        twice = SimpleNamespace(
            idx_mapping_np=mapping,
            expanded_idx_mapping=torch.from_numpy(mapping).repeat_interleave(2),
        )
        doubled = second.apply(logits.repeat_interleave(2, 0), twice)
        torch.testing.assert_close(doubled, right.repeat_interleave(2, 0))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    items = random_items(40, (4, 4), seed=1, extra_share=0.3)
    return make_bundle(tmp_path_factory.mktemp("vllm"), items, hidden_size=128)


@pytest.fixture
def engine(bundle: Bundle) -> Iterator[Any]:
    with create_engine("vllm", bundle, kv_cache_memory_bytes=2**27) as engine:
        yield engine


@needs_vllm
class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"warp": 9}, "vLLM has no engine argument warp"),
            ({"logprobs_mode": "raw_logits"}, "logprobs_mode cannot be chosen"),
            ({"data_parallel_size": 2}, "data_parallel_size: .* run a service for each copy"),
            ({"pipeline_parallel_size": 2}, "pipeline_parallel_size: .* stages would stand idle"),
            ({"max_model_len": 3}, "max_model_len 3 does not fit: a prompt and a SID of 3 tokens"),
            ({"max_model_len": 10_000}, "the model has 256 positions"),
            ({"dtype": "float7"}, "float7"),
        ],
    )
    def test_refused(self, bundle: Bundle, options: dict[str, Any], message: str) -> None:
        with pytest.raises(EngineError, match=message):
            create_engine("vllm", bundle, **options)

    def test_two_in_a_process_one_with_a_shorter_model(self, bundle: Bundle, engine: Any) -> None:
        threads, query = torch.get_num_threads(), Query([5, 6, 7], 10)
        [right] = engine.search_batch([query])
        with create_engine("vllm", bundle, max_model_len=64, max_num_seqs=4) as other:
            assert other.max_prompt_tokens == 61
            [found] = other.search_batch([query])
        assert [beam.codes for beam in found] == [beam.codes for beam in right]
        [again] = engine.search_batch([query])
        assert again == right
        torch.set_num_threads(threads)  # vLLM has not taken this away


@needs_vllm
class TestTails:
    """A prompt is computed once, its last block too; and nothing depends on it."""

    def test_only_the_prefixes_are_computed(self, engine: Any) -> None:
        for tokens in (1, 29, 32, 33, 70):
            engine.stats()
            engine.search_batch([Query([5 + (i + tokens) % 90 for i in range(tokens)], 10)])
            stats = engine.stats()
            others = sum(stats.step_rows) - 1  # all but the row that computes the prompt
            assert others > 5
            assert stats.cached_tokens == others * tokens

    def test_memory_too_small_to_keep_prompts(self, bundle: Bundle, engine: Any) -> None:
        queries = [Query([5 + (i + j) % 90 for j in range(100)], 10) for i in range(8)]
        right = engine.search_batch(queries)
        # 14 blocks of 32 tokens, 8 of which are left for others: one prompt is kept, not eight.
        with create_engine("vllm", bundle, num_gpu_blocks_override=14) as tight:
            for _ in range(2):
                found = tight.search_batch(queries)
                assert [[b.codes for b in beams] for beams in found] == [
                    [b.codes for b in beams] for beams in right
                ]


@needs_vllm
class TestDeath:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    async def test_everyone_hears_of_it(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: Any) -> None:
            raise RuntimeError("the device is gone")

        monkeypatch.setattr("service.engine.vllm.core.Core.step", fail)
        queries = [Query([5, 6, 7], 5), Query([5, 6], 5)]
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*map(engine.search, queries), return_exceptions=True)
        assert all(isinstance(outcome, EngineDead) for outcome in outcomes)
        assert str(outcomes[0].__cause__) == "the device is gone"
        assert not engine.alive
        with pytest.raises(EngineDead):
            await engine.search(queries[0])
        engine.close()

    async def test_closing_ends_those_in_flight(self, engine: Any) -> None:
        tasks = [asyncio.create_task(engine.search(Query([i, 6], 20))) for i in range(1, 60)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(engine.close)
        async with asyncio.timeout(60):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, list | EngineDead)
        with pytest.raises(EngineDead):
            engine.search_batch([Query([5], 5)])


@needs_vllm
def test_it_starts_beside_numba(bundle: Bundle) -> None:
    importlib.import_module("numba")
    with create_engine("vllm", bundle, kv_cache_memory_bytes=2**27) as engine:
        assert len(engine.search_batch([Query([1, 2, 3], 5)])[0]) == 5
