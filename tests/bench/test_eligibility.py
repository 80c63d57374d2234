"""The eligibility benchmark runs, and measures what it says."""

from bench.eligibility import FILTERS, Shop, _finished
from service.eligibility.filter import Filter
from service.eligibility.filters import Filters
from tests.bench.conftest import Measure


def test_it_runs_to_the_end(measure: Measure) -> None:
    found = measure("eligibility", "--items", "60,300", "--rounds", 2, "--excluded", 20)
    rows = {(row["items"], row["contestant"], row["kind"]): row for row in found["rows"]}
    assert len(rows) == 2 * (2 * len(FILTERS) + 2)
    for (items, contestant, kind), row in rows.items():
        assert row["with_ms"]["low"] > 0
        if kind == "cached":
            assert row["eligible"] == rows[items, contestant, "not cached"]["eligible"]
    assert rows[300, "20 items", "exclusions"]["eligible"] == 280


async def test_every_filter_leaves_some_items_and_excludes_some() -> None:
    shop = Shop.of(3000)
    filters = Filters(shop.catalogue)
    for wanted in FILTERS.values():
        first = await filters.eligible(Filter.model_validate(wanted))
        assert first is not None
        assert 0 < first.total(3000) < 3000
        assert _finished(filters.eligible(Filter.model_validate(wanted))) is first
