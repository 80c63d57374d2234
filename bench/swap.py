"""Versions that are swapped while requests arrive at a constant rate, beside the same without.

A swap is all of it: the other version is loaded beside the one in service, warmed up and activated,
and the one before is unloaded.
"""

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench import shapes
from bench.connection import NotServing, store_events
from bench.http_load import Answered, apart, closed_loop, open_loop
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
from bench.report import COLOURS, console, figure, print_table, write_json
from bench.served import Served, served
from bench.swapped import Swap, inconsistent, readiness, swap_models, two_versions
from bench.timing import Spread, digits
from bench.users import Users

_BODIES = 4096


def swap(
    bundle: BundleFolder = None,
    swaps: Annotated[int, typer.Option(min=2, help="Of the active version.")] = 20,
    every: Annotated[float, typer.Option(help="Seconds from one swap to the next.")] = 4.0,
    seconds: Annotated[float, typer.Option(help="Before and after, without swaps.")] = 40.0,
    share: Annotated[float, typer.Option(help="The constant rate, of saturation.")] = 0.7,
    in_flight: InFlight = DEFAULT_IN_FLIGHT,
    saturate: Annotated[float, typer.Option(help="Seconds at saturation, twice.")] = 8.0,
    users: Crowd = DEFAULT_CROWD,
    engine: Annotated[str, typer.Option(help="torch or fake.")] = "torch",
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """What swaps of the model cost those who ask meanwhile, and whether each answer is of one."""
    settings = {k: v for k, v in locals().items() if k != "out"}
    loaded = shapes.load("demo", bundle)
    crowd = Users(shapes.popular(loaded), users)
    bodies = crowd.bodies(_BODIES)
    try:
        with tempfile.TemporaryDirectory(prefix="sidrec-swap-") as root:
            sids = two_versions(loaded, Path(root))
            console.print("starting the service …")
            with served(None, threads, {"store": root, "engine": engine}) as one:
                store_events(one.url, crowd.events())
                rate = share * _saturation(one, bodies, in_flight, saturate)
                before = apart(open_loop, one.url, bodies, rate, seconds, seed=1)
                during, made, watched = _swapped(one, bodies, rate, loaded.name, swaps, every)
                after = apart(open_loop, one.url, bodies, rate, seconds, seed=2)
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    wrong = inconsistent(during.replies, made, sids)
    quiet = [*before.seconds, *after.seconds]
    rows = [
        {"part": "quiet", "rate": rate, **_latency(quiet), "failed": before.failed + after.failed},
        {
            "part": "swapping",
            "rate": rate,
            **_latency(during.seconds),
            "failed": during.failed,
            "outcomes": during.outcomes,
            "p99_over_quiet": _ms(during.seconds, 99) / _ms(quiet, 99),
            "swaps": len(made),
            "load_s": Spread.of([one.load_s for one in made]).json(),
            "activate_ms": Spread.of([(one.done - one.asked) * 1e3 for one in made]).json(),
            "unload_ms": Spread.of([one.unload_s * 1e3 for one in made]).json(),
            "checked": len(during.replies),
            "inconsistent": len(wrong),
            "readyz": watched.asked,
            "unready": len(watched.unready),
            "load_cpu_share": during.cpu_s / during.wall_s,
            "latest_send_ms": during.lag_s * 1e3,
        },
    ]
    _print(rows[0], rows[1])
    for line in [*wrong, *watched.unready][:5]:
        console.print(line, markup=False)
    write_json(out, "swap", machine=describe(), settings=settings, rows=rows)
    _draw(during, made, out)


def _saturation(one: Served, bodies: Sequence[bytes], in_flight: int, seconds: float) -> float:
    """Answers a second when there is always more to do; the first round warms it up."""
    rounds = [apart(closed_loop, one.url, bodies, in_flight, seconds) for _ in range(2)]
    return rounds[-1].per_second


def _swapped(
    one: Served, bodies: Sequence[bytes], rate: float, name: str, swaps: int, every: float
) -> tuple[Answered, list[Swap], Any]:
    """The same load while versions are swapped from this process. Raises `NotServing`."""
    made: list[Swap] = []
    failed: list[NotServing] = []

    def work() -> None:
        try:
            made.extend(swap_models(one.url, name, swaps, every))
        except NotServing as error:
            failed.append(error)

    with readiness(one.url) as watched:
        swapping = threading.Thread(target=work)
        swapping.start()
        answered = apart(open_loop, one.url, bodies, rate, swaps * every, keep=True)
        swapping.join()
    if failed:
        raise failed[0]
    return answered, made, watched


def _latency(seconds: Sequence[float]) -> dict[str, Any]:
    return {"requests": len(seconds), **{f"p{q}_ms": _ms(seconds, q) for q in (50, 99, 99.9)}}


def _ms(seconds: Sequence[float], share: float) -> float:
    return float(np.percentile(seconds, share)) * 1e3


def _print(quiet: dict[str, Any], swapping: dict[str, Any]) -> None:
    def three(row: dict[str, Any]) -> str:
        return ", ".join(digits(row[f"p{q}_ms"]) for q in (50, 99, 99.9))

    print_table(
        f"{swapping['swaps']} swaps at {digits(quiet['rate'])} requests a second",
        ("", ""),
        [
            ["p50, p99, p99.9 without swaps, ms", three(quiet)],
            ["p50, p99, p99.9 with swaps, ms", three(swapping)],
            ["p99 over p99", f"{swapping['p99_over_quiet']:.2f}"],
            ["failed", f"{swapping['failed']} of {swapping['requests']:,}"],
            ["answers of a wrong version, or mixed", f"{swapping['inconsistent']}"],
            ["load and warm up, s", str(Spread(**swapping["load_s"]))],
            ["activate, ms", str(Spread(**swapping["activate_ms"]))],
            ["unload, ms", str(Spread(**swapping["unload_ms"]))],
            ["/readyz not ready", f"{swapping['unready']} of {swapping['readyz']:,}"],
            ["a request was sent late by at most, ms", digits(swapping["latest_send_ms"])],
        ],
    )


def _draw(during: Answered, made: Sequence[Swap], out: Path) -> None:
    start = min(reply.due for reply in during.replies)
    with figure(out, "swap", 1) as [axis]:
        for one in made:
            axis.axvspan(one.asked - one.load_s - start, one.done - start, color=COLOURS[3])
        due = [reply.due - start for reply in during.replies]
        taken = [(reply.there - reply.due) * 1e3 for reply in during.replies]
        axis.plot(due, taken, ".", markersize=2, color=COLOURS[0])
        axis.set_xlabel("s; a version is loaded and activated where it is yellow")
        axis.set_ylabel("ms from when a request was due")
