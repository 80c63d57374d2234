"""Ranks held-out cases through the serving path: same prompts, same engine, same order of items."""

from collections.abc import Sequence

from rich.progress import track

from model_store.build.evaluate import CUTOFFS, Case, Ranker
from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Query, create_engine
from service.prompt import PromptBuilder
from service.ranking import best_items

BEAM_WIDTH = 20

_AT_ONCE = 64


def engine_ranker(bundle: Bundle, kind: str = "torch", *, exclude_seen: bool = False) -> Ranker:
    """A ranker of catalogue rows by the bundle's own model; `exclude_seen` leaves the items of a
    case's history out, as an answer leaves out what it may not contain."""
    prompt = PromptBuilder(bundle)

    def rank(cases: Sequence[Case]) -> list[list[int]]:
        queries = []
        for case in cases:
            scene = case.user.scene
            tokens, _ = prompt.build(case.user.items, case.user.profile, scene)
            adapter = scene if scene in bundle.adapters else None
            eligible = Eligibility.of(excluded=case.user.items) if exclude_seen else None
            queries.append(Query(tokens, BEAM_WIDTH, eligible, adapter))
        # Prompts of like length side by side, so that little of a batch's cache is padding.
        order = sorted(range(len(queries)), key=lambda i: len(queries[i].prompt_token_ids))
        ranked: list[list[int]] = [[] for _ in queries]
        with create_engine(kind, bundle) as engine:
            for start in track(range(0, len(order), _AT_ONCE), "evaluating"):
                chosen = order[start : start + _AT_ONCE]
                for i, beams in zip(
                    chosen, engine.search_batch([queries[i] for i in chosen]), strict=True
                ):
                    # A beam names all items of its SID, the excluded ones too.
                    seen = set(cases[i].user.items) if exclude_seen else set()
                    best = best_items(beams, max(CUTOFFS) + len(seen))
                    ranked[i] = [row for row, _ in best if row not in seen][: max(CUTOFFS)]
        return ranked

    return rank
