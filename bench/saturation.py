"""How many requests a second a service can take: computed from its engine alone, then found by
`sidrec load` with the same traffic.

What is computed, before anything is sent: the engine alone answers E queries a second, prompts of
this traffic, as many at a time as the service would have in flight. A request takes the engine for
s / E seconds, where s is the share of requests that search: events do not, nor do users without a
history. Around that it takes h seconds of the service's processor time: what a request of the
same traffic takes of the same service with the fake engine, less what that engine takes alone. The
service is one interpreter, so both follow one another: it can take 1 / (s / E + h) requests a
second. That is the prediction. The engine alone would be E / s.

Redis and what sends the load have the other core; where there is none, or the engine has more than
one thread, they are in its way, and the prediction is too high. Both compute every prompt anew, as
in `bench.service`.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from bench import shapes
from bench.connection import NotServing
from bench.load import findings, run
from bench.load.fleet import Fleet
from bench.load.limits import Limits
from bench.load.page import page
from bench.load.samples import Samples
from bench.load.traffic import EVENTS, RECOMMENDATIONS, Mix, Traffic
from bench.load.wares import Wares
from bench.load.worker import Step, Target
from bench.machine import describe
from bench.options import DEFAULT_IN_FLIGHT, DEFAULT_OUT, BundleFolder, InFlight, Out, Threads
from bench.report import console, print_table, write_json
from bench.served import served
from bench.service import BEAMS, search_all
from bench.timing import digits
from model_store.bundle import Bundle
from service.engine import Query, create_engine
from service.prompt import PromptBuilder

_REQUESTS = 6000
_FAKE_QUERIES = 200
_CALM_RATE = 100.0
"""With the fake engine: near what is predicted, where a wake-up serves as many requests."""
_OPTIONS = '{"prefix_bytes": 0}'


def saturation(
    bundle: BundleFolder = None,
    p99: Annotated[float, typer.Option(help="Limit, ms: what counts as bearable.")] = 1000,
    start: Annotated[float, typer.Option(help="Requests a second of the first try.")] = 80,
    seconds: Annotated[float, typer.Option(help="Of one try.")] = 12,
    within: Annotated[float, typer.Option(help="Width of the gap at the end.")] = 0.04,
    repeats: Annotated[int, typer.Option(min=1, help="Runs at the rate found.")] = 3,
    in_flight: InFlight = DEFAULT_IN_FLIGHT,
    threads: Threads = 1,
    out: Out = DEFAULT_OUT,
) -> None:
    """The rate that `sidrec load --find` finds, and the one that the engine alone lets expect."""
    settings = dict(locals())
    torch.set_num_threads(threads)
    loaded = shapes.load("demo", bundle)
    rows = loaded.catalogue.table.to_pylist()
    wares = Wares.of(rows)
    search = run.Search(Step(start, seconds), within, repeats)
    try:
        share, around = _around(loaded, wares, threads, seconds)
        alone = _alone(loaded, wares, in_flight, seconds)
        predicted = 1 / (share / alone + around)
        console.print(f"predicted: {digits(predicted)} requests a second; now to find it …")
        with served(loaded.path, threads, _settings("torch")) as one:
            target = Target(one.url, None, wares, Mix())
            limits = Limits(p99=p99, errors=0, fallbacks=0)
            run.prepared(target)
            cpu = one.cpu_s()
            outcome = run.find(target, limits, search, run.Sending(1, 5, [one.url]))
            busy = (one.cpu_s() - cpu) / sum(sent.wall_s for sent in outcome.all)
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    report = run.report("find", "Search for saturation", target, limits, outcome)
    found = outcome.highest_rate
    row = {
        "searching_share": share,
        "around_ms": around * 1e3,
        "engine_per_second": alone,
        "engine_over_share": alone / share,
        "predicted": predicted,
        "found": found,
        "found_over_predicted": None if found is None else found / predicted,
        "found_over_engine": None if found is None else found * share / alone,
        "service_cores": busy,
        "load_cores": findings.generator(outcome.all)["cores_used"],
    }
    _print(row, p99)
    _write(out, report, settings, row)
    if found is None:
        raise typer.Exit(1)


def _settings(engine: str) -> dict[str, Any]:
    """Nobody is refused, and Redis may be slow: what sends the load shares its core."""
    settings: dict[str, Any] = {"engine": engine, "beam_width": BEAMS, "max_wait_ms": 0}
    settings["redis_timeout_ms"] = 5000
    return settings | ({"engine_options": _OPTIONS} if engine == "torch" else {})


def _around(bundle: Bundle, wares: Wares, threads: int, seconds: float) -> tuple[float, float]:
    """The share of requests that search, and the seconds of processor time that the service takes
    for a request beside searching."""
    with served(bundle.path, threads, _settings("fake")) as one:
        target = Target(one.url, None, wares, Mix())
        run.prepared(target)
        with Fleet(target, 1) as fleet:
            fleet.run([Step(_CALM_RATE, 2)], "warming up")
            before = one.cpu_s(redis=False)
            sent = fleet.run([Step(_CALM_RATE, seconds)], "what is around the engine")
            spent = one.cpu_s(redis=False) - before
    searching = _searching(sent.samples)
    return searching, spent / len(sent.samples) - searching * _fake(bundle, wares)


def _fake(bundle: Bundle, wares: Wares) -> float:
    """Seconds of processor time that the fake engine takes for a query."""

    async def search(queries: Sequence[Query]) -> float:
        began = time.process_time()
        for query in queries:
            await engine.search(query)
        return (time.process_time() - began) / len(queries)

    queries = _queries(bundle, wares)[:_FAKE_QUERIES]
    with create_engine("fake", bundle) as engine:
        asyncio.run(search(queries))
        return asyncio.run(search(queries))


def _searching(samples: Samples) -> float:
    searched = samples.stages["search"]
    return float((searched == searched).sum()) / len(samples)


def _alone(bundle: Bundle, wares: Wares, in_flight: int, seconds: float) -> float:
    """Queries a second of the engine in this process, prompts of this traffic."""
    with create_engine("torch", bundle, **json.loads(_OPTIONS)) as engine:
        queries = _queries(bundle, wares)
        asyncio.run(search_all(engine, queries, in_flight, min(seconds, 2)))
        return asyncio.run(search_all(engine, queries, in_flight, seconds))


def _queries(bundle: Bundle, wares: Wares) -> Sequence[Query]:
    """What the service would ask its engine for in so many requests, histories growing."""
    crowd = Target("", None, wares, Mix()).crowd()
    traffic = Traffic(crowd, wares.filters, Mix(), seed="saturation", name="saturation")
    row_of, builder = bundle.catalogue.row_of, PromptBuilder(bundle)
    known = defaultdict(list, zip(crowd.ids, map(list, crowd.histories), strict=True))
    queries = []
    for _ in range(_REQUESTS):
        _, call = traffic.call(_CALM_RATE)
        said = json.loads(call.body)
        if call.path == EVENTS:
            [event] = said["events"]
            known[event["user_id"]].append(event["item_id"])
        elif call.path == RECOMMENDATIONS and known[said["user_id"]]:
            rows = [row_of[item] for item in known[said["user_id"]]]
            queries.append(Query(builder.build(rows)[0], BEAMS))
    return queries


def _print(row: dict[str, Any], p99: float) -> None:
    found = row["found"]
    print_table(
        "saturation, requests a second",
        ("", ""),
        [
            ["engine alone, queries a second", digits(row["engine_per_second"])],
            ["requests that search", f"{row['searching_share']:.1%}"],
            ["  the engine alone would take", digits(row["engine_over_share"])],
            ["processor time around it, ms a request", digits(row["around_ms"])],
            ["  predicted", digits(row["predicted"])],
            [f"found, p99 under {digits(p99)} ms", "none" if found is None else digits(found)],
            ["  over predicted", "" if found is None else f"{row['found_over_predicted']:.3f}"],
            ["  over engine alone", "" if found is None else f"{row['found_over_engine']:.3f}"],
            ["cores: service and its Redis", digits(row["service_cores"])],
            ["cores: what sends the load", digits(row["load_cores"])],
        ],
    )


def _write(
    out: Path, report: dict[str, Any], settings: dict[str, Any], row: dict[str, Any]
) -> None:
    write_json(out, "saturation", machine=describe(), settings=settings, rows=[row], load=report)
    drawn = out / "saturation.html"
    drawn.write_text(page(report), encoding="utf-8")
    console.print(f"written: {drawn}")
