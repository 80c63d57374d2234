"""Ranking held-out cases as the service would: what a history holds may be left out."""

from itertools import chain
from pathlib import Path

import numpy as np

from model_store.build.dataset import UserSequence
from model_store.build.evaluate import Case
from service.engine import Query, create_engine
from service.offline import engine_ranker
from service.prompt import PromptBuilder
from tests.tiny import make_bundle, random_items


def test_seen_items_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    """Twenty SIDs for fifty items, so that twenty beams are all there is, and a SID of an item
    that was seen often names others that were not."""
    bundle = make_bundle(tmp_path, random_items(50, (5, 4)))
    rng = np.random.default_rng(1)
    histories = [tuple(rng.integers(50, size=n).tolist()) for n in (1, 4, 12, 45)]
    cases = [Case(UserSequence("u", history), 0) for history in histories]
    with create_engine("torch", bundle) as engine:
        prompts = [PromptBuilder(bundle).build(history)[0] for history in histories]
        answers = engine.search_batch([Query(prompt, 20) for prompt in prompts])
    everything = [list(chain.from_iterable(beam.rows for beam in beams)) for beams in answers]
    assert all(sorted(rows) == list(range(50)) for rows in everything)

    assert engine_ranker(bundle)(cases) == [rows[:10] for rows in everything]
    unseen = [
        [row for row in rows if row not in history]
        for rows, history in zip(everything, histories, strict=True)
    ]
    assert engine_ranker(bundle, exclude_seen=True)(cases) == [rows[:10] for rows in unseen]
