"""A service under a constant load for a long time, while everything around it changes.

Versions are swapped, items come and go, histories grow, and Redis goes away and comes back, killed
and shut down in turn. Every answer is judged by what docs/reliability.md promises; memory and open
files are looked at all the time. Saturation is that of the same mix with the same swaps: a version
that has just come remembers nobody's prompt, and is slower.
"""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench import shapes
from bench.connection import NotServing, store_events
from bench.http_load import apart
from bench.machine import describe
from bench.options import (
    DEFAULT_CROWD,
    DEFAULT_IN_FLIGHT,
    DEFAULT_OUT,
    BundleFolder,
    Crowd,
    InFlight,
    Out,
    Threads,
)
from bench.report import console, print_table, write_json
from bench.served import served
from bench.soak_judged import Judged, judge
from bench.soak_load import saturation, soak_load
from bench.soak_plot import draw
from bench.soak_world import World
from bench.swapped import Watched, readiness, two_versions
from bench.timing import digits
from bench.users import Users

_BAR_S = 1.0
_TOO_SHORT = "too short to say"


def soak(
    bundle: BundleFolder = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 20,
    share: Annotated[float, typer.Option(help="The constant rate, of saturation.")] = 0.7,
    settle: Annotated[float, typer.Option(help="Minutes until memory must be flat.")] = 5,
    swap: Annotated[float, typer.Option(help="Seconds from one swap to the next.")] = 30,
    outage: Annotated[float, typer.Option(help="Seconds from one end of Redis to the next.")] = 170,
    away: Annotated[float, typer.Option(help="Seconds without Redis each time.")] = 5,
    sample: Annotated[float, typer.Option(help="Seconds between looks at memory.")] = 2,
    saturate: Annotated[float, typer.Option(help="Seconds at saturation, to measure it.")] = 60,
    prefix_mb: Annotated[
        int, typer.Option(help="For prompts, so little that it is full soon.")
    ] = 32,
    max_wait_ms: Annotated[int, typer.Option(help="SIDREC_MAX_WAIT_MS of the service.")] = 5000,
    in_flight: InFlight = DEFAULT_IN_FLIGHT,
    users: Crowd = DEFAULT_CROWD,
    engine: Annotated[str, typer.Option(help="torch or fake.")] = "torch",
    threads: Threads = 1,
    out: Out = DEFAULT_OUT,
) -> None:
    """Whether a service keeps its promises, its memory and its files through a long bad day."""
    settings = {k: v for k, v in locals().items() if k != "out"}
    loaded = shapes.load("demo", bundle)
    seconds = minutes * 60
    options = {"engine": engine}
    if engine == "torch":
        options["engine_options"] = json.dumps({"prefix_bytes": prefix_mb << 20})
    try:
        with tempfile.TemporaryDirectory(prefix="sidrec-soak-") as root:
            sids = two_versions(loaded, Path(root))
            console.print("starting the service …")
            with served(
                None, threads, options | {"store": root, "max_wait_ms": max_wait_ms}
            ) as one:
                store_events(one.url, Users(shapes.popular(loaded), users).events())
                given = (one.url, loaded.path, users, sids)
                world = World(one)
                with world.meanwhile(partial(world.swapping, name=loaded.name, every_s=swap)):
                    full = apart(saturation, *given, in_flight, saturate)
                    rate, began = share * full, time.perf_counter()
                    console.print(f"{full:.1f} a second; now {rate:.1f} for {minutes:g} minutes …")
                    with (
                        readiness(one.url) as watched,
                        _bar(world, seconds),
                        world.meanwhile(
                            partial(world.breaking, every_s=outage, away_s=away),
                            partial(world.looking, every_s=sample),
                        ),
                    ):
                        account = apart(soak_load, *given, rate, seconds)
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    judged = judge(account, world, began + 60 * settle, watched.unready)
    rows = [{"saturation": full, "rate": rate, **judged.row}]
    _print(judged, watched, rate, minutes)
    for line in judged.broken[:20]:
        console.print(line, markup=False)
    write_json(
        out,
        "soak",
        machine=describe(),
        settings=settings,
        rows=rows,
        broken=judged.broken,
        minutes=judged.minutes,
    )
    draw(account, world, began, out)
    if judged.broken:
        raise typer.Exit(1)


def _print(judged: Judged, watched: Watched, rate: float, minutes: float) -> None:
    row = judged.row

    def flat(name: str, form: str) -> str:
        found = row[name]
        return _TOO_SHORT if found is None else format(found, form)

    def between(name: str) -> str:
        found = row[name]
        return _TOO_SHORT if found is None else f"{found[0]}, {found[1]}"

    counts = [[f"  {kind}", f"{n:,}"] for kind, n in row["outcomes"].items()]
    print_table(
        f"{minutes:g} minutes at {digits(rate)} requests a second",
        ("", ""),
        [
            ["requests", f"{row['requests']:,}"],
            *counts,
            ["outside what is promised", f"{row['broken']}"],
            ["p50, p99, p99.9, ms", ", ".join(digits(row[f"p{q}_ms"]) for q in (50, 99, 99.9))],
            ["swaps, refused while Redis was away", f"{row['swaps']}, {row['swaps_refused']}"],
            ["/readyz not ready", f"{len(watched.unready)} of {watched.asked:,}"],
            ["Redis killed, shut down", f"{row['killed']}, {row['shut_down']}"],
            ["  well again after at most, s", digits(row["well_after_s"])],
            ["events acknowledged, lost", f"{row['acknowledged']:,}, {row['lost']}"],
            ["items written, deleted", f"{row['written']:,}, {row['deleted']:,}"],
            ["new items found", f"{row['found']:,}"],
            ["memory once settled, MB", flat("rss_mb", ".0f")],
            ["  highest minute over that", flat("rss_growth", "+.2%")],
            ["  last minute over that", flat("rss_last", "+.2%")],
            ["open files without connections, first and last minute", between("files")],
            ["connections to Redis, first minute and most", between("to_redis")],
            ["a request was sent late by at most, ms", digits(row["latest_send_ms"])],
        ],
    )


@contextmanager
def _bar(world: World, seconds: float) -> Iterator[None]:
    """How far it is, with what has happened so far."""
    over, began = threading.Event(), time.perf_counter()
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=seconds)

        def move() -> None:
            while not over.wait(_BAR_S):
                held = f"{world.samples[-1].rss >> 20} MB, " if world.samples else ""
                said = f"{held}{len(world.swaps)} swaps, {len(world.outages)} outages"
                done = time.perf_counter() - began
                progress.update(task, completed=done, description=said)

        thread = threading.Thread(target=move)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
