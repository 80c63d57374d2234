"""What everything around the engine costs: `sidrec serve` over HTTP against its engine alone.

The service is a real one, in a process of its own, on a real Redis that holds the histories; the
engine alone gets the same prompts in this process. Three contests: one query at a time, in turn;
as much as either can do, in turn, `--in-flight` at any time; and a constant rate below that, which
only the service has to bear. What sends the load takes part of the same cores; its share is
reported, and what the service would do without it is computed from that. The floor of the service
is the engine. Both compute every prompt anew: what an engine remembers of users who come back makes
the engine cheaper and not what is around it.
"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Annotated, Any

import torch
import typer
from rich.progress import track

from bench import service_plot, shapes
from bench.connection import Connection, NotServing, store_events
from bench.http_load import PATH, Answered, apart, closed_loop, open_loop
from bench.machine import describe
from bench.options import (
    DEFAULT_CROWD,
    DEFAULT_IN_FLIGHT,
    DEFAULT_OUT,
    DEFAULT_THREADS,
    BundleFolder,
    Crowd,
    InFlight,
    Out,
    Threads,
)
from bench.report import console, print_table, write_json
from bench.served import Served, served
from bench.timing import Spread, alternate, digits, timed
from bench.users import Users
from service.engine import Engine, Query, create_engine
from service.prompt import PromptBuilder

BEAMS = 20
_BODIES = 4096
_OPTIONS = '{"prefix_bytes": 0}'
STAGES = ("history", "prompt", "search", "items")


def service(
    bundle: BundleFolder = None,
    requests: Annotated[int, typer.Option(min=10, help="One at a time.")] = 200,
    in_flight: InFlight = DEFAULT_IN_FLIGHT,
    seconds: Annotated[float, typer.Option(help="Of one round at saturation.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds at saturation and below.")] = 3,
    share: Annotated[float, typer.Option(help="The constant rate, of saturation.")] = 0.7,
    users: Crowd = DEFAULT_CROWD,
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """HTTP, validation, Redis, prompt and items: what they add to the engine."""
    settings = dict(locals())
    torch.set_num_threads(threads)
    loaded = shapes.load("demo", bundle)
    crowd = Users(shapes.popular(loaded), users)
    console.print("starting the service …")
    try:
        with (
            served(loaded.path, threads, {"beam_width": BEAMS, "engine_options": _OPTIONS}) as one,
            create_engine("torch", loaded, **json.loads(_OPTIONS)) as engine,
        ):
            store_events(one.url, crowd.events())
            visits = crowd.draw(_BODIES)
            bodies = [crowd.body(user, stored=True) for user in visits]
            builder = PromptBuilder(loaded)
            row_of = loaded.catalogue.row_of
            known = [[row_of[item] for item in crowd.histories[user]] for user in visits]
            queries = [Query(builder.build(rows)[0], BEAMS) for rows in known]
            single = _one_at_a_time(engine, one, queries, bodies, requests)
            full = _saturated(engine, one, queries, bodies, in_flight, seconds, rounds)
            rate = share * full["service_per_second"]["median"]
            below = _below(one, bodies, rate, seconds, rounds)
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    rows = [
        {"part": "one in flight", **single},
        {"part": "saturation", **full},
        {"part": "below saturation", "rate": rate, **below},
    ]
    _print(single, full, below, rate)
    write_json(out, "service", machine=describe(), settings=settings, rows=rows)
    service_plot.draw(single, full, below, rate, out)


def _one_at_a_time(
    engine: Engine, one: Served, queries: Sequence[Query], bodies: Sequence[bytes], count: int
) -> dict[str, Any]:
    """Latencies alone, pair by pair for the same user. Raises `NotServing`."""
    with Connection(one.url) as connection:

        def over_http(number: int) -> tuple[float, Any]:
            seconds, (status, body) = timed(lambda: connection.post(PATH, bodies[number]))
            if status != 200:
                raise NotServing(f"a request was answered with {status}: {body!r}")
            return seconds, json.loads(body)

        def alone(number: int) -> tuple[float, Any]:
            # As the service asks it: by way of its queue.
            return timed(lambda: runner.run(engine.search(queries[number])))

        with asyncio.Runner() as runner:
            taken = alternate(
                {"engine": alone, "service": over_http}, count, warm_up=10, title="one in flight"
            )
    times = {name: [seconds for seconds, _ in found] for name, found in taken.items()}
    answers = [answer for _, answer in taken["service"]]
    # Medians of stages do not add up to that of the whole, but nearly.
    stages = {
        stage: Spread.of([answer["timing_ms"][stage] for answer in answers]).json()
        for stage in STAGES
    }
    outside = [
        seconds * 1e3 - answer["timing_ms"]["total"]
        for seconds, answer in zip(times["service"], answers, strict=True)
    ]
    service_ms, engine_ms = (Spread.of(times[k]).scaled(1e3) for k in ("service", "engine"))
    return {
        "service_ms": service_ms.json(),
        "engine_ms": engine_ms.json(),
        "p50_difference_ms": service_ms.median - engine_ms.median,
        "stages_ms": stages | {"HTTP": Spread.of(outside).json()},
        "time_over_floor": service_ms.median / engine_ms.median,
        "not_by_the_model": sum(answer["source"] != "model" for answer in answers),
    }


def _saturated(
    engine: Engine,
    one: Served,
    queries: Sequence[Query],
    bodies: Sequence[bytes],
    in_flight: int,
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """Answers a second of both, in turn."""
    cores = len(os.sched_getaffinity(0))

    def alone(_: int) -> tuple[float, float]:
        return seconds, asyncio.run(search_all(engine, queries, in_flight, seconds))

    def over_http(_: int) -> tuple[float, tuple[Answered, float]]:
        before = one.cpu_s()
        answered = apart(closed_loop, one.url, bodies, in_flight, seconds)
        return seconds, (answered, (one.cpu_s() - before) / answered.wall_s / cores)

    taken = alternate(
        {"engine": alone, "service": over_http}, rounds, title=f"{in_flight} in flight"
    )
    rates = [rate for _, rate in taken["engine"]]
    found = [answered for _, (answered, _) in taken["service"]]
    own = [answered.cpu_s / answered.wall_s / cores for answered in found]
    ratios = [a.per_second / rate for a, rate in zip(found, rates, strict=True)]
    # A load from elsewhere would leave its share of the cores to the service.
    freed = [ratio / (1 - share) for ratio, share in zip(ratios, own, strict=True)]
    return {
        "in_flight": in_flight,
        "service_per_second": Spread.of([answered.per_second for answered in found]).json(),
        "engine_per_second": Spread.of(rates).json(),
        "over_engine": Spread.of(ratios).json(),
        "over_engine_without_load": Spread.of(freed).json(),
        "load_cpu_share": Spread.of(own).json(),
        "service_cpu_share": Spread.of([share for _, (_, share) in taken["service"]]).json(),
        "failed": sum(answered.failed for answered in found),
        "answered": sum(len(answered.seconds) for answered in found),
    }


async def search_all(
    engine: Engine, queries: Sequence[Query], in_flight: int, seconds: float
) -> float:
    """Answers a second with `in_flight` callers."""
    start, left, done = time.perf_counter(), cycle(queries), 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < start + seconds:
            await engine.search(next(left))
            done += 1

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return done / (time.perf_counter() - start)


def _below(
    one: Served, bodies: Sequence[bytes], rate: float, seconds: float, rounds: int
) -> dict[str, Any]:
    """Latencies at a constant rate, Poisson arrivals, from a process of its own."""
    found = [
        apart(open_loop, one.url, bodies, rate, seconds, seed=number)
        for number in track(range(rounds), f"{rate:.1f} a second", transient=True)
    ]
    p50, p99 = ([answered.percentile(share) for answered in found] for share in (50, 99))
    return {
        "p50_ms": Spread.of(p50).scaled(1e3).json(),
        "p99_ms": Spread.of(p99).scaled(1e3).json(),
        "p99_over_p50": Spread.of([b / a for a, b in zip(p50, p99, strict=True)]).json(),
        "load_cpu_share": Spread.of(
            [a.cpu_s / a.wall_s / len(os.sched_getaffinity(0)) for a in found]
        ).json(),
        "failed": sum(answered.failed for answered in found),
        "answered": sum(len(answered.seconds) for answered in found),
        "latest_send_ms": max(answered.lag_s for answered in found) * 1e3,
    }


def _print(
    single: dict[str, Any], full: dict[str, Any], below: dict[str, Any], rate: float
) -> None:
    def spread(value: dict[str, Any], unit: str = "") -> str:
        return f"{Spread(**value)}{unit}"

    stages = [[f"  {name}", digits(value["median"])] for name, value in single["stages_ms"].items()]
    print_table(
        "one in flight, ms",
        ("", "median (quartiles)"),
        [
            ["engine alone, the floor", spread(single["engine_ms"])],
            ["over HTTP", spread(single["service_ms"])],
            ["difference of the medians", digits(single["p50_difference_ms"])],
            ["time over floor", f"{single['time_over_floor']:.2f}"],
            *stages,
        ],
    )
    print_table(
        f"saturation, {full['in_flight']} in flight",
        ("", "median (quartiles)"),
        [
            ["engine alone, answers/s", spread(full["engine_per_second"])],
            ["over HTTP, answers/s", spread(full["service_per_second"])],
            ["over engine", spread(full["over_engine"])],
            ["over engine, were the load elsewhere", spread(full["over_engine_without_load"])],
            ["the load's share of the cores", spread(full["load_cpu_share"])],
            ["the service's and its Redis's", spread(full["service_cpu_share"])],
            ["not answered by the model", f"{full['failed']} of {full['answered']}"],
        ],
    )
    print_table(
        f"{rate:.1f} a second, open loop",
        ("", "median (quartiles)"),
        [
            ["p50, ms", spread(below["p50_ms"])],
            ["p99, ms", spread(below["p99_ms"])],
            ["p99 over p50", spread(below["p99_over_p50"])],
            ["the load's share of the cores", spread(below["load_cpu_share"])],
            ["sent at most this late, ms", digits(below["latest_send_ms"])],
            ["not answered by the model", f"{below['failed']} of {below['answered']}"],
        ],
    )
