"""A filter that was sent before is the same one, and none is taken for another."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from service.api.schemas import RecommendationRequest
from service.eligibility import wanted
from service.eligibility.filter import MAX_DEPTH, Filter
from service.eligibility.filters import Filters
from tests.service.eligibility.test_filters import catalogue_of


def sent(filtered: Any) -> Filter:
    body = json.loads(json.dumps({"filter": filtered}))
    found = RecommendationRequest.model_validate(body).filter
    assert found is not None
    return found


@pytest.mark.parametrize(
    "filtered",
    [
        {"brand": "A"},
        {"price": {"gte": 1, "lt": 2.5}, "not": {"brand": {"in": ["A", "B", "A"]}}},
        {"or": [{"new": True}, {"brand": "键盘"}]},
        {},
    ],
)
def test_the_same_json_is_read_once(filtered: Any) -> None:
    assert sent(filtered) is sent(filtered)
    assert sent(filtered) == Filter.model_validate(filtered)


def test_values_that_are_equal_in_python_are_not_mixed_up() -> None:
    read = [sent({"x": value}).tests["x"].eq for value in (1, True, 1.0, "1")]
    assert [type(value) for value in read] == [int, bool, float, str]


def test_what_is_no_filter_is_refused_each_time_at_its_place() -> None:
    deep: dict[str, Any] = {"brand": "A"}
    for _ in range(MAX_DEPTH + 500):
        deep = {"not": deep}
    refusals: tuple[Any, ...] = ({"brand": {"near": 1}}, {"and": 3}, "brand", [], deep)
    for filtered in refusals:
        for _ in range(2):
            with pytest.raises(ValidationError) as refused:
                RecommendationRequest.model_validate({"filter": filtered})
            assert all(error["loc"][0] == "filter" for error in refused.value.errors())


def test_those_kept_are_few_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "_MOST_KEPT", 2)
    reads = wanted.Read()
    first = {"brand": "A"}
    kept = reads.filter(first, Filter.model_validate)
    reads.filter({"brand": "B"}, Filter.model_validate)
    assert reads.filter(first, Filter.model_validate) is kept
    reads.filter({"brand": "C"}, Filter.model_validate)  # B goes, which was used before A
    assert reads.filter(first, Filter.model_validate) is kept
    long = {"brand": {"in": ["x" * 100] * 1000 + ["y"]}}
    monkeypatch.setattr(wanted, "_LONGEST", 50)
    assert reads.filter(long, Filter.model_construct) is not None
    assert reads.filter(first, Filter.model_validate) is kept


async def test_a_filter_read_once_is_bound_once_by_each_catalogue() -> None:
    items = [{"item_id": f"i{n}", "title": "", "brand": "AB"[n % 2]} for n in range(6)]
    one, other = Filters(catalogue_of(items)), Filters(catalogue_of(items[:3]))
    for filters, rows in ((one, [0, 2, 4]), (other, [0, 2])):
        first = await filters.eligible(sent({"brand": "A"}))
        assert first is not None
        assert first.rows(0, max(rows) + 1) == rows
        assert await filters.eligible(sent({"brand": "A"})) is first
