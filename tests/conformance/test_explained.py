"""Every engine says alike what each level added to a score."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Engine, Query
from tests.conformance.agreement import TOLERANCE, assert_agree
from tests.conformance.test_demo import prompts


@pytest.fixture(scope="module")
def queries(demo: Bundle) -> list[Query]:
    """Of two widths, every second one restricted."""
    odd = Eligibility.of(None, range(0, len(demo.catalogue), 2))
    return [
        Query(prompt, (20, 5)[i % 3 == 0], odd if i % 2 else None, explain=True)
        for i, prompt in enumerate(prompts(demo, 8, seed=3))
    ]


@torch.inference_mode()
def test_gains_are_the_log_probabilities_of_the_tokens(
    engine: Engine, demo: Bundle, queries: list[Query]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo.model_path, dtype=torch.float32).eval()
    for query, beams in zip(queries, engine.search_batch(queries), strict=True):
        assert len(beams) == query.beam_width
        for beam in beams[:5]:
            tokens = [int(demo.level_tokens[i][code]) for i, code in enumerate(beam.codes)]
            ids = torch.tensor([[*query.prompt_token_ids, *tokens]])
            logits = model(ids, use_cache=False).logits[0, -len(tokens) - 1 : -1]
            expected = logits.log_softmax(dim=1)[torch.arange(len(tokens)), tokens]
            assert beam.gains is not None
            assert beam.gains == pytest.approx(expected.tolist(), abs=TOLERANCE)
            assert sum(beam.gains) == pytest.approx(beam.score, abs=1e-6)


def test_the_beams_are_those_of_the_same_query_without(
    engine: Engine, queries: list[Query]
) -> None:
    plain = engine.search_batch([replace(query, explain=False) for query in queries])
    assert all(beam.gains is None for beams in plain for beam in beams)
    for explained, beams in zip(engine.search_batch(queries), plain, strict=True):
        assert_agree(explained, beams)
