"""Every engine says alike what each level added to a score, and what became of its prefixes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Engine, Query, Trace
from tests.conformance.agreement import TOLERANCE, assert_agree
from tests.conformance.test_demo import assert_all_same, prompts
from tests.engine.reference import considered
from tests.engine.traces import assert_traced


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


@pytest.fixture(scope="module")
def traceable(demo: Bundle) -> list[tuple[Query, set[int]]]:
    """Of two widths, with the rows that each may find; neighbours that want no trace aside."""
    items = len(demo.catalogue)
    some = np.random.default_rng(2).random(items) < 0.2
    everything, odd = set(range(items)), set(range(1, items, 2))
    kinds = [
        (None, everything),
        (Eligibility.of(None, range(0, items, 2)), odd),
        (Eligibility.of(some, range(0, items, 2)), odd & set(np.flatnonzero(some).tolist())),
    ]
    return [
        (Query(prompt, (20, 5)[i % 2], kinds[i % 3][0]), kinds[i % 3][1])
        for i, prompt in enumerate(prompts(demo, 3, seed=13))
    ]


@torch.inference_mode()
def test_traces_are_what_the_model_says_of_each_prefix(
    engine: Engine, demo: Bundle, traceable: list[tuple[Query, set[int]]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo.model_path, dtype=torch.float32).eval()
    traced = [replace(query, trace=Trace()) for query, _ in traceable]
    engine.search_batch([*traced, *(query for query, _ in traceable)])
    for query, (_, rows) in zip(traced, traceable, strict=True):
        assert query.trace is not None
        right = considered(model, demo, query.prompt_token_ids, query.beam_width, rows)
        assert_traced(query.trace, right, query.beam_width, TOLERANCE)


def test_a_trace_changes_no_beam(engine: Engine, traceable: list[tuple[Query, set[int]]]) -> None:
    plain = [query for query, _ in traceable]
    mixed = [replace(q, trace=Trace() if i % 2 else None) for i, q in enumerate(plain)]
    assert_all_same(engine.search_batch(mixed), engine.search_batch(plain))
