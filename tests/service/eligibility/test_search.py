"""What is eligible, decided inside the search: as if the catalogue held nothing else.

The reference searches a trie that is built from scratch of the eligible items alone, by the same
model. That this engine finds what Hugging Face finds is tested elsewhere.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from model_store.bundle import Bundle
from model_store.catalogue import Catalogue
from model_store.sid import Trie
from service.answer import Ask
from service.eligibility.filter import Filter
from service.eligibility.filters import Filters
from service.eligibility.policy import Policy
from service.engine import Engine, Query, create_engine
from service.history import History
from service.prompt import PromptBuilder
from service.recommender import Recommender
from service.redis_client import connect
from tests.engine.reference import assert_same, beams_of
from tests.tiny import ARCHITECTURES, Item, make_bundle, random_items

EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIZES = (4, 4, 4)


@dataclass(frozen=True)
class Model:
    """A random model, with tokens for any catalogue of these tests."""

    bundle: Bundle
    engine: Engine

    def over(self, items: Sequence[Item]) -> Bundle:
        """The model over other items, which its engine searches from now on."""
        catalogue = Catalogue.from_items(items, self.bundle.spec)
        # Loading the weights for every example would take longer than all else.
        self.engine.trie = Trie.build(catalogue.codes)
        return replace(self.bundle, catalogue=catalogue, trie=self.engine.trie)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    """One of each architecture."""
    folder: Path = tmp_path_factory.mktemp("eligible")
    items = random_items(400, SIZES, extra_share=0.6)
    with ExitStack() as stack:
        found = {}
        for kind in ARCHITECTURES:
            bundle = make_bundle(folder, items, architecture=kind, name=kind)
            engine = stack.enter_context(create_engine("torch", bundle, device="cpu"))
            found[kind] = Model(bundle, engine)
        yield found


@dataclass(frozen=True)
class Case:
    """Items with collisions and SIDs of different lengths, and what is asked for."""

    items: list[Item]
    architecture: str
    history: list[str]
    filter: Any
    rules: Any
    exclude: list[str]
    k: int
    beam_width: int

    def may(self, item: Item) -> bool:
        return (
            holds(self.filter, item)
            and holds(self.rules, item)
            and item["item_id"] not in self.exclude
        )


def holds(wanted: Any, item: Item) -> bool:
    """What the few forms of filter mean that `_filters` draws."""
    return wanted is None or (
        item["brand"] in wanted.get("brand", {}).get("in", [item["brand"]])
        and item["price"] < wanted.get("price", {}).get("lt", 100)
        and not ("not" in wanted and item["brand"] == wanted["not"]["brand"])
    )


_brand = st.integers(0, 4).map("brand-{}".format)
_filters = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "brand": st.lists(_brand, max_size=3).map(lambda brands: {"in": brands}),
        "price": st.integers(0, 100).map(lambda price: {"lt": price}),
        "not": _brand.map(lambda brand: {"brand": brand}),
    },
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n = draw(st.integers(1, 60))
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    items = random_items(n, SIZES, seed=draw(st.integers(0, 99)), extra_share=share)
    item_id = st.integers(0, n - 1).map("item-{}".format)
    return Case(
        items=items,
        architecture=draw(st.sampled_from(ARCHITECTURES)),
        history=draw(st.lists(item_id, min_size=1, max_size=20)),
        filter=draw(_filters),
        rules=draw(_filters),
        exclude=draw(st.lists(item_id, max_size=n)),
        k=draw(st.integers(1, 30)),
        beam_width=draw(st.sampled_from([1, 2, 5, 20])),
    )


@EXAMPLES
@given(case=cases(), others=st.lists(st.booleans(), max_size=2))
def test_beams_are_those_of_a_trie_of_the_eligible(
    models: dict[str, Model], case: Case, others: list[bool]
) -> None:
    """Whoever else is in the batch."""
    model = models[case.architecture]
    bundle = model.over(case.items)
    only = [item for item in case.items if case.may(item)]
    ids, row_of = bundle.catalogue.item_ids, bundle.catalogue.row_of
    rules = None if case.rules is None else Filter.model_validate(case.rules)
    filters = Filters(bundle.catalogue, rules)
    allowed = filters.compile(filters.bind(Filter.model_validate(case.filter or {})))
    eligible = allowed.without([row_of[item_id] for item_id in case.exclude])
    prompt = [5 + row for row in range(len(case.history))]
    query = Query(prompt, case.beam_width, eligible)
    company = [replace(query, eligible=allowed if ruled else None) for ruled in others]
    found = model.engine.search_batch([*company, query])[-1]
    if not only:
        assert found == []
        return
    alone = model.over(only)
    [expected] = model.engine.search_batch([Query(prompt, case.beam_width)])
    assert_same(beams_of(found), beams_of(expected))
    for beam, same in zip(found, expected, strict=True):
        left = [ids[row] for row in eligible.rows(beam.rows.start, beam.rows.stop)]
        assert left == [alone.catalogue.item_ids[row] for row in same.rows]


@EXAMPLES
@given(case=cases())
def test_answers_are_those_of_a_catalogue_of_the_eligible(
    models: dict[str, Model], history: History, case: Case
) -> None:
    model = models[case.architecture]
    bundle = model.over(case.items)
    only = [item for item in case.items if case.may(item)]
    wanted = None if case.filter is None else Filter.model_validate(case.filter)
    rules = None if case.rules is None else Filter.model_validate(case.rules)
    ask = Ask(
        k=case.k,
        history=case.history,
        beam_width=case.beam_width,
        exclude=case.exclude,
        filter=wanted,
    )
    recommender = Recommender(
        bundle, model.engine, history, beam_width=20, policy=Policy(rules=rules)
    )
    answer = asyncio.run(recommender.recommend(ask))
    assert answer.eligible_items == len(only)
    assert len(answer.picks) == min(case.k, len(only))
    assume(only)
    # The history stays what it is: the prompt is that of the whole catalogue.
    rows = [bundle.catalogue.row_of[item_id] for item_id in case.history]
    tokens, _ = PromptBuilder(bundle).build(rows)
    alone = model.over(only)
    [beams] = model.engine.search_batch([Query(tokens, max(case.beam_width, case.k))])
    ids = alone.catalogue.item_ids
    expected = [(ids[row], beam.score) for beam in beams for row in beam.rows][: case.k]
    assert [pick.item_id for pick in answer.picks] == [item_id for item_id, _ in expected]
    scores = [score for _, score in expected]
    assert [pick.score for pick in answer.picks] == pytest.approx(scores, abs=1e-4)


@pytest.fixture
def history() -> Iterator[History]:
    """Of a Redis that is not there: these requests carry their own."""
    client = connect("redis://127.0.0.1:1", timeout_ms=200)
    yield History(client)
    asyncio.run(client.aclose())


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, Engine]]:
    """10,000 items, a quarter of which share a SID, a tenth with an extra token."""
    items = random_items(10_000, (32, 32, 16), extra_share=0.1)
    bundle = make_bundle(tmp_path_factory.mktemp("large"), items)
    with ExitStack() as stack:
        yield bundle, stack.enter_context(create_engine("torch", bundle, device="cpu"))


@pytest.mark.parametrize("few", [1, 2, 5, 11, 12, 19, 20, 21, 40, 99, 150, 199, 200])
async def test_few_of_ten_thousand_all_come_back(
    large: tuple[Bundle, Engine], history: History, few: int
) -> None:
    bundle, engine = large
    recommender = Recommender(bundle, engine, history, beam_width=20)
    ids = np.array(bundle.catalogue.item_ids)
    for seed in range(3):
        rng = np.random.default_rng([few, seed])
        left = rng.choice(ids, few, replace=False).tolist()
        wanted = Filter.model_validate({"item_id": {"in": left}})
        past = rng.choice(ids, 5).tolist()
        for k in {few, min(20, few), min(200, few + 1)}:
            answer = await recommender.recommend(Ask(k=k, history=past, filter=wanted))
            found = [pick.item_id for pick in answer.picks]
            assert answer.source == "model"
            assert answer.eligible_items == few
            assert len(set(found)) == len(found) == min(k, few)
            assert set(found) <= set(left)
