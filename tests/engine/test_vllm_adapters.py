"""LoRA adapters on vLLM: each scene is answered by its own, held against Hugging Face and PEFT."""

import asyncio
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from bench.hugging_face import HuggingFaceSearch
from model_store.bundle import Bundle
from service.answer import Ask
from service.engine import Beam, Engine, Query, create_engine
from service.errors import EngineError
from service.history import History
from service.prompt import PromptBuilder
from service.ranking import best_items
from service.recommender import Recommender
from service.redis_client import connect
from tests.conformance.agreement import assert_agree
from tests.engine.reference import assert_same, beams_of
from tests.model_store.test_bundle import seal
from tests.service.conftest import PATIENT_MS, SCENE_TEMPLATE
from tests.tiny import make_bundle, random_items

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None and not os.environ.get("CI"),
    reason="vLLM is not installed",
)

BEAMS = 10
RANKS = {"cart": 3, "home": 12}
CACHE = {"kv_cache_memory_bytes": 2**28} if not torch.cuda.is_available() else {}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(
        tmp_path_factory.mktemp("adapters"),
        random_items(80, (5, 5, 4), seed=3, extra_share=0.3),
        prompt=SCENE_TEMPLATE,
        hidden_size=128,
        adapters=RANKS,
    )


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[Engine]:
    with create_engine("vllm", bundle, **CACHE) as engine:
        yield engine


def prompts(bundle: Bundle, lengths: tuple[int, ...] = (5, 31, 40, 70, 100)) -> list[list[int]]:
    rng = np.random.default_rng(4)
    return [rng.integers(1, bundle.tokenizer.get_vocab_size(), n).tolist() for n in lengths]


def adapted(bundle: Bundle, adapter: str | None) -> Any:
    base = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=torch.float32)
    if adapter is None:
        return base.eval()
    return PeftModel.from_pretrained(base, bundle.adapters[adapter].path).eval()


@pytest.mark.parametrize("adapter", [None, *RANKS])
def test_beams_are_those_of_peft(engine: Engine, bundle: Bundle, adapter: str | None) -> None:
    reference = HuggingFaceSearch(adapted(bundle, adapter), bundle)
    for prompt in prompts(bundle):
        [found] = engine.search_batch([Query(prompt, BEAMS, adapter=adapter)])
        assert_same(beams_of(found), reference.search(prompt, BEAMS), 1e-3)


async def test_scenes_share_a_batch_and_nothing_else(engine: Engine, bundle: Bundle) -> None:
    """The same prompts with every adapter, at once: in the same steps and over the same cache."""
    queries = [
        Query(prompt, BEAMS, adapter=adapter)
        for prompt in prompts(bundle)
        for adapter in (None, *RANKS)
    ]
    alone = [engine.search_batch([query])[0] for query in queries]
    engine.stats()
    together = engine.search_batch(queries)
    assert max(engine.stats().batch_sizes) == len(queries)
    async with asyncio.timeout(60):
        joined = await asyncio.gather(*map(engine.search, reversed(queries)))
    for right, *found in zip(alone, together, reversed(joined), strict=True):
        for beams in found:
            assert_agree(beams, right)
    for start in range(0, len(queries), 3):
        assert len({scores(beams) for beams in alone[start : start + 3]}) == 3


def scores(beams: list[Beam]) -> tuple[float, ...]:
    return tuple(beam.score for beam in beams)


def test_the_cache_knows_whose_prompt_it_holds(engine: Engine, bundle: Bundle) -> None:
    prompt = np.random.default_rng(5).integers(1, 200, 96).tolist()

    def cached(adapter: str | None) -> int:
        engine.stats()
        engine.search_batch([Query(prompt, 1, adapter=adapter)])
        return engine.stats().cached_tokens

    first = [cached(adapter) for adapter in (None, *RANKS)]
    again = [cached(adapter) for adapter in (None, *RANKS)]
    # The second time each finds its own prompt but for its last block, and never another's.
    assert [now - then for then, now in zip(first, again, strict=True)] == [64, 64, 64]


async def test_an_unknown_adapter(engine: Engine) -> None:
    with pytest.raises(EngineError, match="no adapter 'attic' here"):
        await engine.search(Query([5, 6], BEAMS, adapter="attic"))


def test_fewer_at_a_time_than_there_are(engine: Engine, bundle: Bundle) -> None:
    queries = [
        Query(prompt, BEAMS, adapter=adapter) for prompt in prompts(bundle) for adapter in RANKS
    ]
    with create_engine("vllm", bundle, max_loras=1, **CACHE) as other:
        found = other.search_batch(queries)
    for ours, theirs in zip(found, engine.search_batch(queries), strict=True):
        assert_agree(ours, theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_lora": False}, "enable_lora cannot be chosen"),
        ({"max_lora_rank": 8}, "LoRA rank 12 is greater than max_lora_rank 8"),
    ],
)
def test_refused(bundle: Bundle, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        create_engine("vllm", bundle, **options, **CACHE)


def test_an_adapter_that_vllm_does_not_run_is_refused_at_the_start(
    bundle: Bundle, tmp_path: Path
) -> None:
    """Its pairs are fine, and belong to a base model that was changed with them."""
    folder = shutil.copytree(bundle.path, tmp_path / "bundle")
    config = folder / "adapters/home/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "init_lora_weights": "pissa"}))
    seal(folder)
    with pytest.raises(EngineError, match="init_lora_weights='pissa'"):
        create_engine("vllm", Bundle.load(folder), **CACHE)


async def test_a_request_gets_the_adapter_of_its_scene(
    engine: Engine, bundle: Bundle, redis_url: str
) -> None:
    client = connect(redis_url, timeout_ms=PATIENT_MS, connect_timeout_ms=PATIENT_MS)
    recommender = Recommender(bundle, engine, History(client), beam_width=BEAMS)
    items = ["item-1", "item-2"]
    rows = [bundle.catalogue.row_of[item] for item in items]
    for scene, adapter in (("home", "home"), ("cart", "cart"), (None, None)):
        answer = await recommender.recommend(Ask(k=5, history=items, scene=scene))
        prompt, _ = PromptBuilder(bundle).build(rows, scene=scene)
        [beams] = engine.search_batch([Query(prompt, BEAMS, adapter=adapter)])
        expected = [score for _, score in best_items(beams, 5)]
        assert [pick.score for pick in answer.picks] == pytest.approx(expected, abs=1e-4)
    await client.aclose()
