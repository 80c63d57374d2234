"""What filters and exclusions add to a request, over catalogues of ten thousand and more items.

Measured is everything between the request's JSON and the beams but the model: validating the
filter, binding and compiling it or finding it compiled, item ids becoming rows, and the search in
the trie, as the torch engine drives it over random log-probabilities. All contestants take turns;
what one adds is its time less that of the same search among all items, in the same round. A
turn is the least of some repetitions, in processor time of the calling thread: differences of
fractions of a millisecond drown in what other programs do to the processor and its caches. What
further threads of torch do is not in it, so that one thread is the honest choice.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
import typer
from pydantic import TypeAdapter

from bench import eligibility_plot
from bench.machine import describe
from bench.options import DEFAULT_OUT, Ints, Out, Threads, ints
from bench.report import console, print_table, write_json
from bench.timing import Spread, alternate, digits, timed
from bench.trie_contest import Layout
from model_store.catalogue import Catalogue
from model_store.sid import Eligibility, EligibilityBatch, Trie, sort_order
from service.eligibility.filter import Filter
from service.eligibility.filters import Filters
from service.eligibility.wanted import WantedFilter
from service.engine.beams import Beams, advance
from service.engine.frontier import frontier

_WANTED = TypeAdapter(WantedFilter)

T = TypeVar("T")
Make = Callable[[], Eligibility | None]

_IN_STOCK = "in stock, 98%"

FILTERS: dict[str, Any] = {
    "one of 500 brands": {"brand": "brand-7"},
    "price in a range, half": {"price": {"gte": 25, "lt": 75}},
    _IN_STOCK: {"stock": {"gt": 0}},
    "two tags of 40": {"tags": {"all": ["tag-3", "tag-5"]}},
    "100 of 2,000 categories": {"category": {"in": [f"category-{n}" for n in range(100)]}},
    "1,000 of 2,000 categories": {"category": {"in": [f"category-{n}" for n in range(1000)]}},
    "five conditions": {
        "category": {"in": [f"category-{n}" for n in range(100)]},
        "price": {"gte": 10, "lt": 90},
        "stock": {"gt": 0},
        "or": [{"tags": {"in": ["tag-1", "tag-2", "tag-3"]}}, {"price": {"lt": 20}}],
        "not": {"brand": {"in": ["brand-1", "brand-2"]}},
    },
}
LIMITS_MS = {"not cached": 10.0, "cached": 0.2, "exclusions": 0.5}
"""What each kind may add to a request over a million items."""

_TURN_S = 0.02
_SPARE = 16  # rows that a small model takes along for free, see `service.engine.torch`


@dataclass(frozen=True, slots=True)
class Shop:
    """A made-up catalogue."""

    catalogue: Catalogue
    trie: Trie

    @classmethod
    def of(cls, n: int) -> "Shop":
        rng = np.random.default_rng(6)
        codes = Layout(4, 256).draw(n)
        tags = pa.array([f"tag-{tag}" for tag in range(40)]).take(rng.integers(0, 40, 3 * n))
        table = pa.table(
            {
                "item_id": [f"item-{row}" for row in range(n)],
                "title": [f"Title {row}" for row in range(n)],
                "brand": _texts("brand", 500).take(rng.integers(0, 500, n)),
                "category": _texts("category", 2000).take(rng.integers(0, 2000, n)),
                "price": np.round(rng.random(n) * 100, 2),
                "stock": rng.integers(0, 50, n),
                "tags": pa.ListArray.from_arrays(
                    pa.array(range(0, 3 * n + 1, 3), pa.int32()), tags
                ),
                "popularity": np.zeros(n),
            }
        )
        catalogue = Catalogue(table, codes[sort_order(codes)])
        return cls(catalogue, Trie.build(catalogue.codes))


def eligibility(
    items: Annotated[Ints, ints("Items of a catalogue.")] = Ints((10_000, 1_000_000)),
    beams: Annotated[int, typer.Option(min=1, help="Beams of a search.")] = 20,
    excluded: Annotated[int, typer.Option(min=1, help="Items of an exclusion list.")] = 200,
    threads: Threads = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are measured.")] = 30,
    out: Out = DEFAULT_OUT,
) -> None:
    """Filters and exclusions, cached or not, on top of a search among all items."""
    settings = {k: v for k, v in locals().items() if k != "out"}
    torch.set_num_threads(threads)
    rows = []
    for count in items:
        found = _measure(Shop.of(count), beams, excluded, rounds)
        _print(found, f"{count:,} items, {beams} beams")
        rows += found
    write_json(out, "eligibility", machine=describe(), settings=settings, rows=rows)
    eligibility_plot.draw(rows, LIMITS_MS, out)


def _measure(shop: Shop, width: int, excluded: int, rounds: int) -> list[dict[str, Any]]:
    filters, row_of = Filters(shop.catalogue), shop.catalogue.row_of
    prepare_s, _ = timed(filters.prepare)
    table = torch.randn(4096, 256, generator=torch.Generator().manual_seed(6)).log_softmax(dim=1)
    drawn = np.random.default_rng(6).choice(len(shop.catalogue), excluded, replace=False)
    listed = [shop.catalogue.item_ids[row] for row in drawn]

    def anew(wanted: Any) -> Eligibility:
        return filters.compile(filters.bind(Filter.model_validate(wanted)))

    def again(wanted: Any) -> Eligibility | None:
        return _finished(filters.eligible(_WANTED.validate_python(wanted)))

    def without(wanted: Any) -> Eligibility:
        eligible = Eligibility.of() if wanted is None else again(wanted)
        assert eligible is not None
        return eligible.without([row_of[item_id] for item_id in listed])

    makers: dict[tuple[str, str], Make] = {}
    for name, wanted in FILTERS.items():
        asyncio.run(filters.eligible(Filter.model_validate(wanted)))  # from now on it is kept
        makers[name, "not cached"] = partial(anew, wanted)
        makers[name, "cached"] = partial(again, wanted)
    makers[f"{excluded} items", "exclusions"] = partial(without, None)
    makers[f"{excluded} items, in stock", "exclusions"] = partial(without, FILTERS[_IN_STOCK])

    def turn(make: Make) -> Callable[[int], tuple[float, None]]:
        def take(_: int) -> tuple[float, None]:
            return _turn(lambda: _search(shop.trie, table, width, make())), None

        return take

    contestants = {", ".join(key): turn(make) for key, make in makers.items()}
    contestants["everything"] = turn(lambda: None)
    taken = alternate(contestants, rounds, warm_up=3, title=f"{len(shop.catalogue):,} items")
    seconds = {name: [each for each, _ in turns] for name, turns in taken.items()}
    base = seconds["everything"]
    rows = []
    for key, make in makers.items():
        eligible, own = make(), seconds[", ".join(key)]
        added = [a - b for a, b in zip(own, base, strict=True)]
        rows.append(
            {
                "items": len(shop.catalogue),
                "contestant": key[0],
                "kind": key[1],
                "eligible": None if eligible is None else eligible.total(len(shop.catalogue)),
                "search_ms": Spread.of(base).scaled(1e3).json(),
                "with_ms": Spread.of(own).scaled(1e3).json(),
                "added_ms": Spread.of(added).scaled(1e3).json(),
                "least_added_ms": (min(own) - min(base)) * 1e3,
                "prepare_seconds": prepare_s,
            }
        )
    return rows


def _search(trie: Trie, table: torch.Tensor, width: int, eligible: Eligibility | None) -> Beams:
    """A search without a model: `TorchEngine._run` with the rows of a table for answers."""
    batch = EligibilityBatch([eligible], trie.n_items)
    beams = Beams.start(1, torch.device("cpu"))
    beams = advance(trie, 0, beams, table[:1], beams.query, [width], batch)
    depth = 1
    while depth < trie.depth:
        for level in frontier(trie, depth, beams, batch, _SPARE):
            logp = table[: max(1, len(level))]
            beams = advance(trie, depth, beams, logp, level.row(beams), [width], batch)
            depth += 1
    return beams


def _turn(work: Callable[[], object]) -> float:
    """The least time of one piece of work, repeated for a moment."""
    taken: list[float] = []
    while not taken or sum(taken) < _TURN_S:
        started = time.thread_time()
        work()
        taken.append(time.thread_time() - started)
    return min(taken)


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("it waited")


def _texts(name: str, count: int) -> pa.Array:
    return pa.array([f"{name}-{number}" for number in range(count)])


def _print(rows: Sequence[dict[str, Any]], title: str) -> None:
    lines = []
    for row in rows:
        added = Spread(**row["added_ms"])
        lines.append(
            [
                row["contestant"],
                row["kind"],
                f"{row['eligible']:,}",
                digits(Spread(**row["with_ms"]).median),
                digits(added.median),
                f"{digits(added.low)} to {digits(added.high)}",
                digits(row["least_added_ms"]),
                digits(LIMITS_MS[row["kind"]]),
            ]
        )
    columns = ("", "", "eligible", "ms", "added ms", "quartiles", "least", "may add")
    print_table(title, columns, lines)
    base, prepare = rows[0]["search_ms"]["median"], rows[0]["prepare_seconds"]
    console.print(
        f"The same search among all items: {digits(base)} ms. Columns laid out in"
        f" {digits(prepare)} s, once."
    )
    console.print()
