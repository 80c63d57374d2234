"""Answers held-out cases through the serving path: same prompts, same engine, same ranking."""

from collections.abc import Sequence

from rich.progress import track

from model_store.blend import Scored
from model_store.build.evaluate import CUTOFFS, Case, Finder, Ranker
from model_store.bundle import Bundle
from model_store.sid import Eligibility
from service.engine import Query, create_engine
from service.prompt import PromptBuilder
from service.ranking import Ranking, items_of

BEAM_WIDTH = 20

_AT_ONCE = 64


def engine_finder(bundle: Bundle, kind: str = "torch", *, exclude_seen: bool = False) -> Finder:
    """What the bundle's own model finds, in catalogue rows; `exclude_seen` leaves the items of a
    case's history out, as an answer leaves out what it may not contain."""
    prompt = PromptBuilder(bundle)

    def find(cases: Sequence[Case]) -> list[Scored]:
        queries = []
        for case in cases:
            scene = case.user.scene
            tokens, _ = prompt.build(case.user.items, case.user.profile, scene)
            adapter = scene if scene in bundle.adapters else None
            queries.append(Query(tokens, BEAM_WIDTH, _eligible(case, exclude_seen), adapter))
        # Prompts of like length side by side, so that little of a batch's cache is padding.
        order = sorted(range(len(queries)), key=lambda i: len(queries[i].prompt_token_ids))
        found: list[Scored] = [()] * len(queries)
        with create_engine(kind, bundle) as engine:
            for start in track(range(0, len(order), _AT_ONCE), "evaluating"):
                chosen = order[start : start + _AT_ONCE]
                asked = [queries[i] for i in chosen]
                for i, beams in zip(chosen, engine.search_batch(asked), strict=True):
                    found[i] = list(items_of(beams, queries[i].eligible))
        return found

    return find


def engine_ranker(bundle: Bundle, kind: str = "torch", *, exclude_seen: bool = False) -> Ranker:
    """What an answer would show of that."""
    finder, ranking = engine_finder(bundle, kind, exclude_seen=exclude_seen), Ranking(bundle)

    def rank(cases: Sequence[Case]) -> list[list[int]]:
        answers = [
            ranking.of_rows(found, case.user.items, max(CUTOFFS), _eligible(case, exclude_seen))
            for case, found in zip(cases, finder(cases), strict=True)
        ]
        return [[row for row, _ in answer] for answer in answers]

    return rank


def _eligible(case: Case, exclude_seen: bool) -> Eligibility | None:
    return Eligibility.of(excluded=case.user.items) if exclude_seen else None
