"""Versions that are swapped while requests arrive at a constant rate, beside the same without.

A swap is all of it: the other version is loaded beside the one in service, warmed up and activated,
and the one before is unloaded. It has half of the time from one swap to the next, and with it what
is felt behind it; the other half shows latency without. What else slows the machine down for
minutes is in both.
"""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import shapes
from bench.connection import NotServing, store_events
from bench.http_load import Answered, Sent, apart, closed_loop, open_loop, percentile
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
    every: Annotated[
        float, typer.Option(help="Seconds from one swap to the next, half without.")
    ] = 20.0,
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
                answered, made, watched = _swapped(one, bodies, rate, loaded.name, swaps, every)
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    wrong = inconsistent(answered.replies, made, sids)
    spans = _spans(answered, made, every)
    swapping, quiet = ([one for span in half for one in span] for half in zip(*spans, strict=True))
    pairs = [_ms(one, 99) / _ms(other, 99) for one, other in spans if one and other]
    rows = [
        {"part": "quiet", "rate": rate, **_latency(quiet)},
        {
            "part": "swapping",
            "rate": rate,
            **_latency(swapping),
            "p99_over_quiet": _ms(swapping, 99) / _ms(quiet, 99),
            "p99_over_quiet_by_swap": Spread.of(pairs).json(),
            "outcomes": answered.outcomes,
            "asked": len(answered.each),
            "failed": answered.failed,
            "swaps": len(made),
            "load_s": Spread.of([one.load_s for one in made]).json(),
            "activate_ms": Spread.of([(one.done - one.asked) * 1e3 for one in made]).json(),
            "unload_ms": Spread.of([one.unload_s * 1e3 for one in made]).json(),
            "checked": len(answered.replies),
            "inconsistent": len(wrong),
            "readyz": watched.asked,
            "unready": len(watched.unready),
            "load_cpu_share": answered.cpu_s / answered.wall_s,
            "latest_send_ms": answered.lag_s * 1e3,
        },
    ]
    _print(rows[0], rows[1])
    for line in [*wrong, *watched.unready][:5]:
        console.print(line, markup=False)
    write_json(out, "swap", machine=describe(), settings=settings, rows=rows)
    _draw(answered, made, out)
    if wrong or watched.unready or answered.failed:
        raise typer.Exit(1)


def _saturation(one: Served, bodies: Sequence[bytes], in_flight: int, seconds: float) -> float:
    """Answers a second when there is always more to do; the first round warms it up."""
    rounds = [apart(closed_loop, one.url, bodies, in_flight, seconds) for _ in range(2)]
    return rounds[-1].per_second


def _swapped(
    one: Served, bodies: Sequence[bytes], rate: float, name: str, swaps: int, every: float
) -> tuple[Answered, list[Swap], Any]:
    """The same load while versions are swapped from this process. Raises `NotServing`."""
    with readiness(one.url) as watched, ThreadPoolExecutor(1) as beside:
        swapping = beside.submit(swap_models, one.url, name, swaps, every)
        answered = apart(open_loop, one.url, bodies, rate, swaps * every, keep=True)
        made = swapping.result()
    if (longest := max(swap.seconds for swap in made)) > every / 2:
        raise NotServing(f"a swap took {longest:.1f} s: give them twice as much, by --every")
    return answered, made, watched


def _spans(
    answered: Answered, made: Sequence[Swap], every: float
) -> list[tuple[list[Sent], list[Sent]]]:
    """Of each swap the requests that were due in the half of `every` that begins with it, and those
    that were in the half behind."""
    spans = []
    for swap in made:
        begin = swap.began - answered.began
        halves = (begin, begin + every / 2), (begin + every / 2, begin + every)
        parts = [[one for one in answered.each if a <= one.due < b] for a, b in halves]
        spans.append((parts[0], parts[1]))
    return spans


def _latency(sent: Sequence[Sent]) -> dict[str, Any]:
    return {"requests": len(sent), **{f"p{q}_ms": _ms(sent, q) for q in (50, 99, 99.9)}}


def _ms(sent: Sequence[Sent], share: float) -> float:
    return percentile(sent, share) * 1e3


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
            ["  swap by swap", str(Spread(**swapping["p99_over_quiet_by_swap"]))],
            ["failed", f"{swapping['failed']} of {swapping['asked']:,}"],
            ["answers of a wrong version, or mixed", f"{swapping['inconsistent']}"],
            ["load and warm up, s", str(Spread(**swapping["load_s"]))],
            ["activate, ms", str(Spread(**swapping["activate_ms"]))],
            ["unload, ms", str(Spread(**swapping["unload_ms"]))],
            ["/readyz not ready", f"{swapping['unready']} of {swapping['readyz']:,}"],
            ["a request was sent late by at most, ms", digits(swapping["latest_send_ms"])],
        ],
    )


def _draw(answered: Answered, made: Sequence[Swap], out: Path) -> None:
    start = answered.began
    with figure(out, "swap", 1) as [axis]:
        for one in made:
            axis.axvspan(one.began - start, one.done - start, color=COLOURS[3])
        due = [reply.due - start for reply in answered.replies]
        taken = [(reply.there - reply.due) * 1e3 for reply in answered.replies]
        axis.plot(due, taken, ".", markersize=2, color=COLOURS[0])
        axis.set_xlabel("s; a version is loaded and activated where it is yellow")
        axis.set_ylabel("ms from when a request was due")
