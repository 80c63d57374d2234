"""What the torch engine writes down of a search, against a model that reads each prefix whole."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Query, Trace
from service.engine.fake import FakeEngine
from service.engine.torch.engine import TorchEngine
from service.engine.trace import TracedLevel
from tests.engine.reference import considered
from tests.engine.test_parity import native, random_prompts, reference_model
from tests.engine.traces import assert_traced, paths_of
from tests.tiny import make_bundle, random_items

__all__ = ["native"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Few codes and many items: SIDs collide, and some are prefixes of others."""
    items = random_items(160, (5, 5, 5), seed=3, extra_share=0.3)
    return make_bundle(tmp_path_factory.mktemp("trace"), items)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Any:
    return reference_model(bundle)


def kinds(bundle: Bundle) -> list[tuple[Eligibility | None, set[int]]]:
    """Eligibilities, with the rows that each leaves."""
    n = len(bundle.catalogue)
    rng = np.random.default_rng(1)
    half, few = rng.random(n) < 0.5, np.isin(np.arange(n), [3, n // 2, n - 1])
    gone = range(0, n, 3)
    return [
        (None, set(range(n))),
        (Eligibility.of(half), set(np.flatnonzero(half).tolist())),
        (Eligibility.of(None, gone), set(range(n)) - set(gone)),
        (Eligibility.of(half, gone), set(np.flatnonzero(half).tolist()) - set(gone)),
        (Eligibility.of(few), set(np.flatnonzero(few).tolist())),
    ]


@pytest.mark.parametrize("width", [1, 4, 9, 200])
def test_against_a_model_that_reads_each_prefix(
    bundle: Bundle, model: Any, native: bool, width: int
) -> None:
    prompts = random_prompts(bundle, [9, 30, 4, 17, 60], seed=width)
    asked = [
        (Query(prompt, width, eligible, trace=Trace()), rows)
        for prompt, (eligible, rows) in zip(prompts, kinds(bundle), strict=True)
    ]
    with TorchEngine(bundle, device="cpu", native=native) as engine:
        engine.search_batch([query for query, _ in asked])  # all of them in one batch
    for query, rows in asked:
        assert query.trace is not None
        right = considered(model, bundle, query.prompt_token_ids, width, rows)
        assert_traced(query.trace, right, width)


@pytest.mark.parametrize("kind", ["torch", "fake"])
def test_the_search_is_the_same_and_its_end_is_the_answer(bundle: Bundle, kind: str) -> None:
    plain = [
        Query(prompt, 6 + i % 3, eligible, explain=True)
        for i, (prompt, (eligible, _)) in enumerate(
            zip(random_prompts(bundle, [9, 30, 4, 17, 60]), kinds(bundle), strict=True)
        )
    ]
    traced = [replace(q, trace=Trace() if i % 2 else None) for i, q in enumerate(plain)]
    with TorchEngine(bundle, device="cpu") if kind == "torch" else FakeEngine(bundle) as engine:
        right = engine.search_batch(plain)
        engine.search_batch(plain)  # from here on the prompts are known
        assert engine.search_batch(traced) == engine.search_batch(plain)
    for query, beams in zip(traced, right, strict=True):
        if query.trace is None:
            continue
        kept = [one for one in query.trace.levels[-1].prefixes if one.fate == "kept"]
        codes = paths_of(query.trace)[-1][: len(kept)]
        assert [tuple(code for code in path if code >= 0) for path in codes] == [
            beam.codes for beam in beams
        ]
        torch.testing.assert_close([k.score for k in kept], [b.score for b in beams])
        for beam, place in zip(beams, range(len(kept)), strict=True):
            assert gains(query.trace, place)[: len(beam.codes)] == pytest.approx(beam.gains)


def gains(trace: Trace, place: int | None) -> list[float]:
    """What each level added to the prefix in this place of the last one."""
    found = []
    for level in reversed(trace.levels):
        one = level.prefixes[place or 0]
        found.append(one.gain)
        place = one.parent
    return found[::-1]


def test_a_search_that_was_begun_before_leaves_nothing_behind(bundle: Bundle) -> None:
    trace = Trace([TracedLevel(1, 2, 0, ())])
    with FakeEngine(bundle) as engine:
        engine.search_batch([Query([1, 2, 3], 5, trace=trace)])
    assert [level.width for level in trace.levels] == [5] * bundle.spec.depth


def test_nothing_eligible(bundle: Bundle) -> None:
    nothing = Eligibility.of(np.zeros(len(bundle.catalogue), np.bool_))
    query = Query([1, 2, 3], 5, nothing, trace=Trace())
    with TorchEngine(bundle, device="cpu") as engine:
        engine.search_batch([query])
    assert query.trace is not None
    first, *rest = query.trace.levels
    assert first.considered == first.removed == bundle.trie.n_nodes(1)
    assert {one.fate for one in first.prefixes} == {"ineligible"}
    assert all(level == TracedLevel(5, 0, 0, ()) for level in rest)
