"""Ranks held-out cases through the serving path: same prompts, same engine, same order of items."""

from collections.abc import Sequence

from rich.progress import track

from model_store.build.evaluate import CUTOFFS, Case, Ranker
from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.prompt import PromptBuilder
from service.recommender import best_items

BEAM_WIDTH = 20

_AT_ONCE = 64


def engine_ranker(bundle: Bundle, kind: str = "torch") -> Ranker:
    """A ranker of catalogue rows by the bundle's own model."""
    prompt = PromptBuilder(bundle)

    def rank(cases: Sequence[Case]) -> list[list[int]]:
        queries = []
        for case in cases:
            scene = case.user.scene
            tokens, _ = prompt.build(case.user.items, case.user.profile, scene)
            adapter = scene if scene in bundle.adapters else None
            queries.append(Query(tokens, BEAM_WIDTH, adapter=adapter))
        # Prompts of like length side by side, so that little of a batch's cache is padding.
        order = sorted(range(len(queries)), key=lambda i: len(queries[i].prompt_token_ids))
        ranked: list[list[int]] = [[] for _ in queries]
        with create_engine(kind, bundle) as engine:
            for start in track(range(0, len(order), _AT_ONCE), "evaluating"):
                chosen = order[start : start + _AT_ONCE]
                for i, beams in zip(
                    chosen, engine.search_batch([queries[i] for i in chosen]), strict=True
                ):
                    ranked[i] = [row for row, _ in best_items(beams, max(CUTOFFS))]
        return ranked

    return rank
