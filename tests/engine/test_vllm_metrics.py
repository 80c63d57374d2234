"""What `/metrics` says of the vLLM engine, after real searches over HTTP."""

import importlib.util
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from model_store.bundle import Bundle
from service.app import create_app
from service.engine import Query, create_engine
from service.prompt import PromptBuilder
from service.settings import Settings
from tests.service.conftest import PATIENT_MS
from tests.service.test_api import recommend
from tests.service.test_metrics import Samples, scrape, value
from tests.tiny import make_bundle, random_items

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None and not os.environ.get("CI"),
    reason="vLLM is not installed",
)

BEAMS = 20
LEVELS = 3
BLOCK = 32
"""Tokens of a cache block, the unit in which prompts are shared."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    items = random_items(300, (6,) * LEVELS, seed=2)
    return make_bundle(tmp_path_factory.mktemp("metrics"), items, hidden_size=128)


@contextmanager
def serving(bundle: Bundle, state: Path, redis_url: str, **options: Any) -> Iterator[TestClient]:
    settings = Settings(
        bundle=bundle.path,
        engine="vllm",
        engine_options=options,
        beam_width=BEAMS,
        max_wait_ms=0,  # a slow machine refuses none of them
        redis_url=redis_url,
        redis_timeout_ms=PATIENT_MS,
        state_dir=state,
    )
    with TestClient(create_app(settings)) as client:
        yield client


def history(count: int, seed: int = 0) -> list[str]:
    return [f"item-{(seed * 37 + n * 11) % 300}" for n in range(count)]


def moved(before: Samples, after: Samples, metric: str, **labels: str) -> float:
    return value(after, metric, **labels) - value(before, metric, **labels)


def test_steps_rows_and_the_prefix_cache(tiny: Bundle, tmp_path: Path, redis_url: str) -> None:
    asked = history(20)
    row_of = tiny.catalogue.row_of
    prompt, _ = PromptBuilder(tiny).build([row_of[item] for item in asked])
    whole = (len(prompt) - 1) // BLOCK * BLOCK
    assert whole >= 2 * BLOCK
    with serving(tiny, tmp_path, redis_url, kv_cache_memory_bytes=2**28) as client:
        start = scrape(client)
        recommend(client, history=asked)
        first = scrape(client)
        # A step for each level: the prompt alone, then up to 20 prefixes behind it.
        assert moved(start, first, "engine_batch_size_count") == LEVELS
        assert moved(start, first, "engine_batch_size_sum") == LEVELS
        assert moved(start, first, "engine_step_rows_count") == LEVELS
        rows = moved(start, first, "engine_step_rows_sum")
        assert 1 + 6 < rows <= 1 + 6 + BEAMS
        # Each prefix behind the prompt finds the prompt's whole blocks in the cache.
        assert moved(start, first, "engine_prompt_tokens_total", source="cache") >= whole * (
            rows - 1
        )
        assert moved(start, first, "engine_prompt_tokens_total", source="model") >= len(prompt)

        recommend(client, history=asked)
        again = scrape(client)
        cached, computed = (
            [
                moved(*pair, "engine_prompt_tokens_total", source=source)
                for pair in ((start, first), (first, again))
            ]
            for source in ("cache", "model")
        )
        assert cached[1] - cached[0] == computed[0] - computed[1] == whole

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda n: recommend(client, history=history(9, n)), range(64)))
        together = scrape(client)
        steps = moved(again, together, "engine_batch_size_count")
        assert 0 < steps < 64 * LEVELS
        assert moved(again, together, "engine_batch_size_sum") > steps
        assert value(together, "engine_preemptions_total") == 0
        assert value(together, "engine_queue_depth") == 0


def test_preemptions_are_counted_and_change_no_answer(
    tiny: Bundle, tmp_path: Path, redis_url: str
) -> None:
    """Prompts that enter the cache piece by piece, and do not all fit: some lose their place."""
    cramped: dict[str, Any] = {
        "kv_cache_memory_bytes": 2**19,
        "long_prefill_token_threshold": BLOCK,
        "scheduler_reserve_full_isl": False,
    }
    asked = [history(30, seed) for seed in range(8)]
    with serving(tiny, tmp_path, redis_url, **cramped) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda h: recommend(client, history=h, k=BEAMS), asked))
        assert value(scrape(client), "engine_preemptions_total") > 0
    builder, row_of = PromptBuilder(tiny), tiny.catalogue.row_of
    with create_engine("torch", tiny, device="cpu") as torch:
        right = torch.search_batch(
            [Query(builder.build([row_of[item] for item in h])[0], BEAMS) for h in asked]
        )
    for answer, beams in zip(found, right, strict=True):
        expected = [(row, beam.score) for beam in beams for row in beam.rows][:BEAMS]
        assert [row_of[item["item_id"]] for item in answer["items"]] == [r for r, _ in expected]
        scores = [item["score"] for item in answer["items"]]
        assert scores == pytest.approx([score for _, score in expected], abs=1e-3)
