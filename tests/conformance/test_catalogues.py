"""Every engine on catalogues with collisions and SIDs of different lengths, for each architecture.

What is right is computed by scoring every SID: no search, so nothing can be missed.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from model_store.bundle import Bundle
from model_store.catalogue import Catalogue
from model_store.sid import END, Eligibility, Trie, sort_order
from service.engine import Engine, Query, create_engine
from tests.conformance.conftest import OPTIONS
from tests.engine.reference import assert_same, beams_of, every_score
from tests.tiny import ARCHITECTURES, make_bundle, random_items

ITEMS = random_items(60, (4, 4, 3), seed=4, extra_share=0.5)
LENGTHS = (1, 31, 32, 33, 90)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("catalogues")
    kind: str = request.param
    return make_bundle(folder, ITEMS, architecture=kind, name=kind, hidden_size=128)


@pytest.fixture(scope="module")
def tiny_engine(kind: str, bundle: Bundle) -> Iterator[Engine]:
    with create_engine(kind, bundle, **OPTIONS[kind]) as engine:
        yield engine


def test_ranks_like_scoring_every_sid(tiny_engine: Engine, bundle: Bundle) -> None:
    model = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=torch.float32).eval()
    rng = np.random.default_rng(1)
    size = bundle.tokenizer.get_vocab_size()
    asked = [rng.integers(1, size, n).tolist() for n in LENGTHS]
    found = tiny_engine.search_batch([Query(prompt, len(ITEMS)) for prompt in asked])
    for prompt, beams in zip(asked, found, strict=True):
        assert_same(beams_of(beams), every_score(model, bundle, prompt), 1e-3)
        assert sorted(row for beam in beams for row in beam.rows) == list(range(len(ITEMS)))


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_eligible_items_rank_like_all_of_them(
    tiny_engine: Engine, bundle: Bundle, share: float
) -> None:
    mask = np.random.default_rng(2).random(len(ITEMS)) < share
    query = Query([5, 6, 7, 8], len(ITEMS))
    [every] = tiny_engine.search_batch([query])
    [found] = tiny_engine.search_batch(
        [Query(query.prompt_token_ids, len(ITEMS), Eligibility.of(mask))]
    )
    may = [beam for beam in every if mask[beam.rows.start : beam.rows.stop].any()]
    assert_same(beams_of(found), beams_of(may), 1e-3)


def other_catalogue(bundle: Bundle, share: float, more: int, seed: int) -> Bundle:
    """The bundle with a share of its items, and `more` items on random SIDs."""
    rng = np.random.default_rng(seed)
    kept = bundle.catalogue.codes[rng.random(len(ITEMS)) < share]
    new = rng.integers(0, [level.size for level in bundle.spec.levels], (more, bundle.spec.depth))
    new[rng.random(more) < 0.5, -1] = END
    codes = np.concatenate([kept, new.astype(np.int32)])
    codes = codes[sort_order(codes)]
    table = pa.table({"item_id": [f"other-{row}" for row in range(len(codes))]})
    return replace(bundle, catalogue=Catalogue(table, codes), trie=Trie.build(codes))


def test_queries_of_several_tries_in_one_batch(tiny_engine: Engine, bundle: Bundle) -> None:
    model = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=torch.float32).eval()
    others = [
        other_catalogue(bundle, 0.5, 0, seed=5),
        other_catalogue(bundle, 1.0, 30, seed=6),
        other_catalogue(bundle, 0.0, 1, seed=7),
    ]
    cases = [(bundle, None), *((other, tiny_engine.place(other.trie)) for other in others)] * 2
    rng = np.random.default_rng(8)
    size = bundle.tokenizer.get_vocab_size()
    asked = [Query(rng.integers(1, size, 12).tolist(), 100, trie=trie) for _, trie in cases]
    for (catalogue, _), query, beams in zip(
        cases, asked, tiny_engine.search_batch(asked), strict=True
    ):
        right = every_score(model, catalogue, query.prompt_token_ids)
        assert_same(beams_of(beams), right, 1e-3)
        found = sorted(row for beam in beams for row in beam.rows)
        assert found == list(range(len(catalogue.catalogue)))
