"""Filters against their plain meaning, item by item, and what of them is refused."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from model_store.catalogue import Catalogue
from model_store.sid import Eligibility
from service.eligibility.filter import MAX_DEPTH, MAX_TESTS, MAX_VALUES, Filter
from service.eligibility.filters import Filters
from service.errors import InvalidInput

Item = dict[str, Any]

SCHEMA = pa.schema(
    {
        "item_id": pa.string(),
        "title": pa.string(),
        "brand": pa.string(),
        "price": pa.float64(),
        "stock": pa.int16(),
        "new": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "sizes": pa.list_(pa.int64()),
        "popularity": pa.float64(),
        "maker": pa.struct({"name": pa.string()}),
    }
)
BRANDS, TAGS = ["A", "B", "键盘", "", "D", "E", "F"], ["red", "new", "", "x", "y", "z"]
COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}

_prices = st.sampled_from([0.0, 0.1, 2.5, 3.0, 3, 10, 99.99, -1.0])
_stock = st.integers(-3, 6)
_items = st.fixed_dictionaries(
    {
        "brand": st.none() | st.sampled_from(BRANDS),
        "price": st.none() | _prices.map(float),
        "stock": st.none() | _stock,
        "new": st.none() | st.booleans(),
        "tags": st.none() | st.lists(st.none() | st.sampled_from(TAGS), max_size=4),
        "sizes": st.none() | st.lists(st.integers(0, 3), max_size=3),
    }
)
_catalogues = st.lists(_items, min_size=1, max_size=25).map(
    lambda items: [
        {"item_id": f"i{n}", "title": f"t{n}", "popularity": 0.0, **item}
        for n, item in enumerate(items)
    ]
)
_values: dict[str, st.SearchStrategy[Any]] = {
    "item_id": st.integers(0, 30).map("i{}".format),
    "title": st.sampled_from(["t0", "t1", "unknown"]),
    "brand": st.sampled_from([*BRANDS, "unknown"]),
    "price": _prices,
    "stock": _stock | st.sampled_from([2.5, 3.0, 10**12, -0.5]),
    "new": st.booleans(),
    "tags": st.sampled_from([*TAGS, "unknown"]),
    "sizes": st.integers(0, 4) | st.just(1.0),
}


def _tests(name: str) -> st.SearchStrategy[Any]:
    value = _values[name]
    several = st.lists(value, max_size=7)
    operators = {"eq": value, "in": several}
    if name != "item_id":
        operators["exists"] = st.booleans()
    if name in ("price", "stock"):
        operators |= dict.fromkeys(COMPARE, value)
    if name in ("tags", "sizes"):
        operators["all"] = several
    one = st.sampled_from(sorted(operators)).flatmap(
        lambda op: operators[op].map(lambda operand: {op: operand})
    )
    return value | st.lists(one, min_size=1, max_size=2).map(
        lambda several: {op: operand for test in several for op, operand in test.items()}
    )


_leaves = st.lists(st.sampled_from(sorted(_values)), max_size=2, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: _tests(name) for name in names})
)
_wanted = st.recursive(
    _leaves,
    lambda inner: st.builds(
        lambda leaf, more: {**leaf, **more},
        _leaves,
        st.fixed_dictionaries(
            {},
            optional={
                "and": st.lists(inner, max_size=2),
                "or": st.lists(inner, max_size=3),
                "not": inner,
            },
        ),
    ),
    max_leaves=6,
)


def holds(wanted: Mapping[str, Any], item: Item) -> bool:
    """The meaning of a filter, as docs/api.md has it."""
    for key, test in wanted.items():
        match key:
            case "and":
                fine = all(holds(part, item) for part in test)
            case "or":
                fine = any(holds(part, item) for part in test)
            case "not":
                fine = not holds(test, item)
            case _:
                tests = test if isinstance(test, dict) else {"eq": test}
                fine = all(passes(op, operand, item[key]) for op, operand in tests.items())
        if not fine:
            return False
    return True


def passes(op: str, operand: Any, value: Any) -> bool:
    has = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
    match op:
        case "eq":
            return operand in has
        case "in":
            return any(v in operand for v in has)
        case "all":
            return all(each in has for each in operand)
        case "exists":
            return bool(has) is operand
        case _:
            return any(COMPARE[op](v, operand) for v in has)


def catalogue_of(items: list[Item], chunks: int = 1) -> Catalogue:
    size = -(-len(items) // chunks)
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    table = pa.concat_tables(pa.Table.from_pylist(part, SCHEMA) for part in parts)
    return Catalogue(table, np.zeros((len(items), 1), np.int32))


async def rows(filters: Filters, wanted: Any, n: int) -> list[int]:
    eligible = await filters.eligible(Filter.model_validate(wanted))
    assert eligible is not None
    return eligible.rows(0, n)


@settings(max_examples=250, deadline=None)
@given(items=_catalogues, wanted=_wanted, chunks=st.integers(1, 3))
async def test_a_filter_means_what_it_says(items: list[Item], wanted: Any, chunks: int) -> None:
    filters = Filters(catalogue_of(items, chunks))
    expected = [row for row, item in enumerate(items) if holds(wanted, item)]
    assert await rows(filters, wanted, len(items)) == expected


@settings(max_examples=100, deadline=None)
@given(items=_catalogues, rules=_wanted, wanted=st.none() | _wanted)
async def test_rules_hold_beside_any_filter(items: list[Item], rules: Any, wanted: Any) -> None:
    filters = Filters(catalogue_of(items), Filter.model_validate(rules))
    expected = [
        row
        for row, item in enumerate(items)
        if holds(rules, item) and (wanted is None or holds(wanted, item))
    ]
    eligible = await filters.eligible(None if wanted is None else Filter.model_validate(wanted))
    assert eligible is not None
    assert eligible.rows(0, len(items)) == expected
    assert eligible.total(len(items)) == len(expected)


@pytest.mark.parametrize("op", sorted(COMPARE))
@pytest.mark.parametrize("bound", [2, 2.0, 2.5, -0.5, 0, 10**12, -(10.0**15)])
async def test_bounds_between_integers(op: str, bound: float) -> None:
    items = [{"stock": stock} for stock in (-1, 0, 1, 2, 3, None)]
    found = await rows(Filters(catalogue_of(items)), {"stock": {op: bound}}, len(items))
    assert found == [row for row, item in enumerate(items) if passes(op, bound, item["stock"])]


ITEMS: list[Item] = [
    {
        "item_id": f"i{n}",
        "title": f"t{n}",
        "brand": "AB"[n % 2],
        "price": n / 10,
        "stock": n % 7,
        "new": n % 3 == 0,
        "tags": ["red"],
        "sizes": [n % 5],
        "popularity": 0.0,
        "maker": {"name": "x"},
    }
    for n in range(200)
]


@pytest.mark.parametrize(
    "wanted",
    [
        {"price": {"gt": 3, "lt": 2}},
        {"brand": {"in": []}},
        {"or": []},
        {"brand": "A", "not": {"brand": "A"}},
        {"brand": "nobody's"},
        {"tags": {"all": ["red", "never seen"]}},
        {"stock": 2.5},
        {"stock": {"in": [10**6, 2.5, -(2**62), 7, 8, 9]}},
    ],
)
async def test_a_contradiction_is_empty_and_no_error(wanted: Any) -> None:
    assert await rows(Filters(catalogue_of(ITEMS)), wanted, len(ITEMS)) == []


@pytest.mark.parametrize(
    ("wanted", "field", "says"),
    [
        ({"colour": "red"}, "filter.colour", "there are: item_id, title, brand, price"),
        ({"maker": "x"}, "filter.maker", "no such attribute"),
        ({"brand": 3}, "filter.brand.eq", "3 does not go with texts"),
        ({"brand": True}, "filter.brand.eq", "True"),
        ({"price": "cheap"}, "filter.price.eq", "'cheap' does not go with numbers"),
        ({"price": True}, "filter.price.eq", "numbers"),
        ({"new": 1}, "filter.new.eq", "true or false"),
        ({"tags": 3}, "filter.tags.eq", "several values"),
        ({"sizes": "3"}, "filter.sizes.eq", "several values"),
        ({"item_id": {"in": ["i1", 2]}}, "filter.item_id.in.1", "2"),
        ({"tags": {"all": ["red", False]}}, "filter.tags.all.1", "False"),
        ({"brand": {"gte": 3}}, "filter.brand.gte", "only: eq, in, exists"),
        ({"brand": {"all": ["A"]}}, "filter.brand.all", "texts"),
        ({"tags": {"lt": 3}}, "filter.tags.lt", "several values"),
        ({"item_id": {"exists": True}}, "filter.item_id.exists", "only: eq, in"),
        (
            {"and": [{}, {"or": [{"not": {"price": {"eq": "x"}}}]}]},
            "filter.and.1.or.0.not.price.eq",
            "'x'",
        ),
    ],
)
async def test_what_a_catalogue_cannot_answer(wanted: Any, field: str, says: str) -> None:
    catalogue = catalogue_of(ITEMS)
    with pytest.raises(InvalidInput) as caught:
        await Filters(catalogue).eligible(Filter.model_validate(wanted))
    assert caught.value.field == field
    assert says in caught.value.reason
    with pytest.raises(InvalidInput, match=rf"^rules{field.removeprefix('filter')}: "):
        Filters(catalogue, Filter.model_validate(wanted))


def nested(depth: int) -> Any:
    return {"price": 1} if depth == 1 else {"not": nested(depth - 1)}


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ([], ""),
        ("brand", ""),
        ({"price": None}, "price"),
        ({"price": []}, "price"),
        ({"price": {}}, "price"),
        ({"price": {"above": 3}}, "price.above"),
        ({"price": {"gte": "3"}}, "price.gte"),
        ({"price": {"gte": True}}, "price.gte"),
        ({"price": {"gte": None}}, "price.gte"),
        ({"price": {"gte": float("nan")}}, "price.gte"),
        ({"price": {"lt": 2**63}}, "price.lt"),
        ({"price": {"exists": 1}}, "price.exists"),
        ({"brand": {"in": "A"}}, "brand.in"),
        ({"brand": {"in": ["A", None]}}, "brand.in.1"),
        ({"brand": {"in": ["A"] * (MAX_VALUES + 1)}}, "brand.in"),
        ({"brand": {"eq": {}}}, "brand.eq"),
        ({"and": {}}, "and"),
        ({"and": [{}, 3]}, "and.1"),
        ({"or": None}, "or"),
        ({"not": None}, "not"),
        ({"not": []}, "not"),
        ({"and": [{"price": {"gte": "x"}}]}, "and.0.price.gte"),
        ({"x" * 65: 1}, "x" * 65),
        ({f"a{n}": 1 for n in range(MAX_TESTS + 1)}, ""),
        ({"or": [{"price": n} for n in range(MAX_TESTS // 2 + 1)]}, ""),
        (nested(MAX_DEPTH + 1), ""),
    ],
)
def test_what_is_no_filter(wanted: Any, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Filter.model_validate(wanted)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == field


def test_the_bounds_themselves_are_allowed() -> None:
    Filter.model_validate(nested(MAX_DEPTH))
    Filter.model_validate({f"a{n}": 1 for n in range(MAX_TESTS)})
    Filter.model_validate({"brand": {"in": ["A"] * MAX_VALUES}})


def spied(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one whenever a filter is compiled."""
    compiled: list[None] = []
    compile = Filters.compile

    def spy(self: Filters, condition: Any) -> Eligibility:
        compiled.append(None)
        return compile(self, condition)

    monkeypatch.setattr(Filters, "compile", spy)
    return compiled


async def test_the_same_in_other_words_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = spied(monkeypatch)
    filters = Filters(catalogue_of(ITEMS))
    for wanted in (
        {"brand": "A", "price": {"gte": 1, "lt": 9}},
        {"price": {"lt": 9.0, "gte": 1.0}, "brand": {"in": ["A", "A", "nobody's"]}},
        {"and": [{"price": {"lt": 9}}, {"or": [{"brand": {"eq": "A"}}]}], "price": {"gte": 1}},
    ):
        assert len(await rows(filters, wanted, 200)) == 40
    assert len(compiled) == 1


async def test_what_was_not_used_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = spied(monkeypatch)
    filters = Filters(catalogue_of(ITEMS), cache_bytes=2 * 4 * 201)
    for stock in (1, 2, 1, 3, 1, 2):
        assert len(await rows(filters, {"stock": stock}, 200)) in (28, 29)
    assert len(compiled) == 4  # 1, 2, 3, and 2 again


@pytest.mark.parametrize("chunks", [1, 3])
def test_texts_for_people_are_not_laid_out_before_they_are_asked_for(chunks: int) -> None:
    filters = Filters(catalogue_of(ITEMS, chunks))
    filters.prepare()
    assert "title" not in filters._columns
    assert all(name in filters._columns for name in filters._columns.names if name != "title")
