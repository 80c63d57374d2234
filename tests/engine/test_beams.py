"""Beam search against an exhaustive ranking, and `advance` against a naive search."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from bench.hugging_face import Found
from model_store.bundle import Bundle
from model_store.sid import END, Eligibility, EligibilityBatch, Trie
from service.engine import Query
from service.engine.beams import Beams, advance, answers
from service.engine.torch.engine import TorchEngine
from tests.engine.reference import assert_same, beams_of, every_score
from tests.model_store.tries import Sid, build, sid_rows
from tests.tiny import ARCHITECTURES, make_bundle, random_items

EXAMPLES = settings(deadline=None, max_examples=60)
# Sums of these are exact in fp32, and few: ties are certain.
COARSE = (-0.5, -1.0, -1.5)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MadeUpModel:
    """Log-probabilities that depend on the query and on everything written so far."""

    codes: int
    seed: int
    coarse: bool

    def logp(self, query: int, prefix: Sid) -> npt.NDArray[np.float32]:
        return _drawn(self, query, prefix)


@lru_cache(100_000)
def _drawn(model: MadeUpModel, query: int, prefix: Sid) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng([model.seed, query, *(code + 1 for code in prefix)])
    drawn = rng.choice(COARSE, model.codes) if model.coarse else -rng.exponential(2, model.codes)
    return drawn.astype(np.float32)


@dataclass(frozen=True)
class Case:
    """Searches over one catalogue: per query a width and which rows may be found (None: all)."""

    rows: Sequence[Sid]
    model: MadeUpModel
    widths: list[int]
    masks: list[Mask | None]


def search(case: Case, masks_as_exclusions: bool = False) -> list[list[Found]]:
    """`advance` through all levels, as an engine drives it."""
    trie = build(case.rows)
    queries = len(case.widths)
    eligible = EligibilityBatch(
        [
            None if mask is None else of_mask(mask, masks_as_exclusions and i % 2 == 0)
            for i, mask in enumerate(case.masks)
        ],
        trie.n_items,
    )
    beams = Beams.start(queries, torch.device("cpu"))
    for depth in range(trie.depth):
        table, row = logp_rows(case.model, trie, depth, beams)
        beams = advance(trie, depth, beams, table, row, case.widths, eligible)
        assert_in_order(beams)
    found = answers(trie, beams)
    for query in found:
        for beam in query:
            depth = len(beam.codes)
            assert {case.rows[i][:depth] for i in beam.rows} == {beam.codes}
            assert len(beam.rows) == sum(
                row == (*beam.codes, *[END] * (trie.depth - depth)) for row in case.rows
            )
    return [beams_of(query) for query in found]


def assert_in_order(beams: Beams) -> None:
    """Query by query, and within a query by ascending node."""
    places = list(zip(beams.query.tolist(), beams.node.tolist(), strict=True))
    assert places == sorted(set(places))
    assert len(beams) == len(beams.score) == len(beams.parent) == len(beams.code)


def of_mask(mask: Mask, as_exclusions: bool) -> Eligibility:
    if as_exclusions:
        return Eligibility.of(excluded=np.flatnonzero(~mask))
    return Eligibility.of(mask)


def logp_rows(
    model: MadeUpModel, trie: Trie, depth: int, beams: Beams
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row of log-probabilities for each beam, in a shuffled order."""
    first, _ = trie.rows(depth, beams.node)
    prefixes = trie.codes[first.long()][:, :depth].tolist()
    table = [
        model.logp(query, tuple(prefix))
        for query, prefix in zip(beams.query.tolist(), prefixes, strict=True)
    ]
    place = torch.randperm(len(table), generator=torch.Generator().manual_seed(depth))
    stacked = torch.empty(max(1, len(table)), model.codes)
    if table:
        stacked[place] = torch.from_numpy(np.stack(table))
    return stacked, place


def naive_search(case: Case, query: int) -> list[Found]:
    """Beam search with dictionaries and sorting."""
    mask = case.masks[query]
    rows = [row for i, row in enumerate(case.rows) if mask is None or mask[i]]
    beams: dict[Sid, np.float32] = {(): np.float32(0)}
    for depth in range(len(case.rows[0])):
        candidates = {
            row[: depth + 1]: beams[row[:depth]] + gain(case.model, query, row[: depth + 1])
            for row in rows
            if row[:depth] in beams
        }
        ranked = sorted(candidates, key=lambda sid: (-candidates[sid], sid))
        beams = {sid: candidates[sid] for sid in ranked[: case.widths[query]]}
    return without_ends(beams)


def gain(model: MadeUpModel, query: int, prefix: Sid) -> np.float32:
    if prefix[-1] == END:
        return np.float32(0)
    value: np.float32 = model.logp(query, prefix[:-1])[prefix[-1]]
    return value


def exhaustive(case: Case, query: int) -> list[Found]:
    """Every eligible SID, ranked."""
    mask = case.masks[query]
    scores: dict[Sid, np.float32] = {}
    for i, row in enumerate(case.rows):
        if mask is None or mask[i]:
            total = np.float32(0)
            for depth in range(len(row)):
                total += gain(case.model, query, row[: depth + 1])
            scores[row] = total
    return without_ends({sid: scores[sid] for sid in sorted(scores, key=lambda s: (-scores[s], s))})


def without_ends(ranked: dict[Sid, np.float32]) -> list[Found]:
    return [(tuple(c for c in sid if c != END), float(score)) for sid, score in ranked.items()]


@st.composite
def cases(draw: st.DrawFn, *, wide: bool = False) -> Case:
    rows = draw(sid_rows(max_items=40))
    queries = draw(st.integers(1, 4))
    narrow = st.integers(1, 8)
    mask = st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)).map(np.array)
    return Case(
        rows,
        MadeUpModel(codes=4, seed=draw(st.integers(0, 9)), coarse=draw(st.booleans())),
        [len(rows) if wide else draw(narrow) for _ in range(queries)],
        [draw(st.none() | mask) for _ in range(queries)],
    )


class TestAdvance:
    @given(cases())
    @EXAMPLES
    def test_same_beams_in_the_same_order_as_a_naive_search(self, case: Case) -> None:
        assert search(case) == [naive_search(case, i) for i in range(len(case.widths))]

    @given(cases(wide=True))
    @EXAMPLES
    def test_wide_enough_it_is_exhaustive(self, case: Case) -> None:
        assert search(case) == [exhaustive(case, i) for i in range(len(case.widths))]

    @given(cases())
    @EXAMPLES
    def test_no_beam_dies(self, case: Case) -> None:
        for found, width, mask in zip(search(case), case.widths, case.masks, strict=True):
            chosen = [r for i, r in enumerate(case.rows) if mask is None or mask[i]]
            assert len(found) == min(width, len(set(chosen)))

    @given(cases())
    @EXAMPLES
    def test_eligible_search_is_search_in_a_catalogue_of_the_eligible(self, case: Case) -> None:
        for i, (found, mask) in enumerate(zip(search(case), case.masks, strict=True)):
            rows = [row for j, row in enumerate(case.rows) if mask is None or mask[j]]
            if not rows:
                assert found == []
                continue
            # Query numbers are part of the made-up model: ask under the same number.
            widths, masks = [*case.widths[: i + 1]], [None] * (i + 1)
            assert search(Case(rows, case.model, widths, [*masks]))[i] == found

    @given(cases())
    @EXAMPLES
    def test_an_exclusion_list_does_what_a_mask_does(self, case: Case) -> None:
        assert search(case, masks_as_exclusions=True) == search(case)

    def test_ties_break_by_code_with_the_shorter_sid_first(self) -> None:
        rows = [(0, 1), (0, END), (1, END), (0, 0)]

        class Indifferent(MadeUpModel):
            def logp(self, query: int, prefix: Sid) -> npt.NDArray[np.float32]:
                return np.zeros(4, np.float32)

        case = Case(sorted(rows), Indifferent(4, 0, True), [3], [None])
        assert search(case) == [[((0,), 0.0), ((0, 0), 0.0), ((0, 1), 0.0)]]

    def test_a_complete_sid_keeps_its_score_and_may_win(self) -> None:
        class Falling(MadeUpModel):
            def logp(self, query: int, prefix: Sid) -> npt.NDArray[np.float32]:
                return np.array([-1, -2, -3, -4], np.float32)

        rows = sorted([(1, END), (0, 0), (0, 2), (3, END)])
        case = Case(rows, Falling(4, 0, True), [3], [None])
        assert search(case) == [[((0, 0), -2.0), ((1,), -2.0), ((0, 2), -4.0)]]

    def test_nothing_eligible_for_anyone(self) -> None:
        rows = [(0, 0), (1, END)]
        model = MadeUpModel(codes=4, seed=0, coarse=False)
        none = np.zeros(2, bool)
        assert search(Case(rows, model, [2, 5], [none, none])) == [[], []]


# Catalogues small enough to score every SID: collisions, mixed lengths, prefixes of others.
SMALL = random_items(40, (4, 4, 4), seed=5, extra_share=0.4)
PROMPT_LENGTHS = (3, 11, 40)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    architecture: str = request.param
    return make_bundle(tmp_path_factory.mktemp("beams"), SMALL, architecture=architecture)


def prompts_for(bundle: Bundle) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [
        rng.integers(1, bundle.tokenizer.get_vocab_size(), length).tolist()
        for length in PROMPT_LENGTHS
    ]


def distinct(bundle: Bundle, rows: Sequence[int] | None = None) -> set[tuple[int, ...]]:
    codes = bundle.catalogue.codes if rows is None else bundle.catalogue.codes[list(rows)]
    return {tuple(code for code in row if code != END) for row in codes.tolist()}


class TestTorchEngine:
    def test_the_catalogue_is_what_these_tests_need(self, bundle: Bundle) -> None:
        sids = distinct(bundle)
        assert len(sids) < len(bundle.catalogue)
        assert any(sid[:3] in sids for sid in sids if len(sid) == 4)
        assert any(sid[:3] not in sids for sid in sids if len(sid) == 4)

    def test_ranks_like_scoring_every_sid(self, bundle: Bundle) -> None:
        model = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=torch.float32).eval()
        prompts = prompts_for(bundle)
        width = len(bundle.catalogue)
        with TorchEngine(bundle, device="cpu") as engine:
            found = engine.search_batch([Query(prompt, width) for prompt in prompts])
        for prompt, beams in zip(prompts, found, strict=True):
            assert_same(beams_of(beams), every_score(model, bundle, prompt))

    def test_rows_are_the_items_with_that_sid(self, bundle: Bundle) -> None:
        with TorchEngine(bundle, device="cpu") as engine:
            [beams] = engine.search_batch([Query([5, 6, 7], len(bundle.catalogue))])
        rows = [row for beam in beams for row in beam.rows]
        assert sorted(rows) == list(range(len(bundle.catalogue)))
        assert any(len(beam.rows) > 1 for beam in beams)
        for beam in beams:
            assert distinct(bundle, beam.rows) == {beam.codes}

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
    def test_eligible_items_are_ranked_like_all_of_them(self, bundle: Bundle, share: float) -> None:
        model = AutoModelForCausalLM.from_pretrained(bundle.model_path, dtype=torch.float32).eval()
        mask = np.random.default_rng(3).random(len(bundle.catalogue)) < share
        eligible = Eligibility.of(mask)
        may = distinct(bundle, np.flatnonzero(mask).tolist())
        prompts = prompts_for(bundle)
        queries = [Query(prompt, len(bundle.catalogue), eligible) for prompt in prompts]
        with TorchEngine(bundle, device="cpu") as engine:
            found = engine.search_batch(queries)
        for prompt, beams in zip(prompts, found, strict=True):
            every = every_score(model, bundle, prompt)
            assert_same(beams_of(beams), [pair for pair in every if pair[0] in may])

    def test_a_narrow_search_fills_up_although_few_items_are_eligible(self, bundle: Bundle) -> None:
        last = len(bundle.catalogue) - 1
        few = Eligibility.of(np.isin(np.arange(last + 1), [0, 7, last]))
        expected = distinct(bundle, [0, 7, last])
        with TorchEngine(bundle, device="cpu") as engine:
            for prompt in prompts_for(bundle):
                [beams] = engine.search_batch([Query(prompt, 3, few)])
                assert {beam.codes for beam in beams} == expected

    def test_a_width_far_beyond_the_catalogue_costs_no_memory(self, bundle: Bundle) -> None:
        with TorchEngine(bundle, device="cpu") as engine:
            usual, vast = engine.search_batch([Query([5, 6], 40), Query([5, 6], 10**9)])
        assert beams_of(usual) == beams_of(vast)
