"""A service whose catalogue changes while clients ask, beside the same service left alone."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer

from bench import shapes
from bench.catalogue_load import ask_and_change
from bench.connection import NotServing, store_events
from bench.http_load import apart
from bench.machine import describe
from bench.options import (
    DEFAULT_CROWD,
    DEFAULT_OUT,
    DEFAULT_THREADS,
    BundleFolder,
    Crowd,
    Out,
    Threads,
)
from bench.report import console, figure, print_table, write_json
from bench.served import served
from bench.timing import digits
from bench.users import Users

_BODIES = 4096
_PATTERNS = 500
_LEFT_OUT = ("item_id", "popularity_by_scene")


def catalogue(
    bundle: BundleFolder = None,
    upserts: Annotated[int, typer.Option(min=1, help="New items and new versions.")] = 10_000,
    at_once: Annotated[int, typer.Option(min=1, help="Changes in one request.")] = 20,
    clients: Annotated[int, typer.Option(min=1, help="Who ask all the time.")] = 8,
    seconds: Annotated[float, typer.Option(help="Before and after, without changes.")] = 10,
    users: Crowd = DEFAULT_CROWD,
    engine: Annotated[str, typer.Option(help="torch, vllm or fake.")] = "torch",
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """What changes to the catalogue cost those who ask meanwhile, and what these get to see."""
    settings = {k: v for k, v in locals().items() if k != "out"}
    loaded = shapes.load("demo", bundle)
    crowd = Users(shapes.popular(loaded), users)
    bodies = crowd.bodies(_BODIES)
    some = loaded.catalogue.table.slice(0, _PATTERNS).to_pylist()
    patterns = [{k: v for k, v in item.items() if k not in _LEFT_OUT} for item in some]
    console.print("starting the service …")
    try:
        with served(loaded.path, threads, {"engine": engine}) as one:
            store_events(one.url, crowd.events())
            ask = [one.url, bodies, clients]
            apart(ask_and_change, *ask, seconds=min(2, seconds))  # type: ignore[arg-type]
            before = apart(ask_and_change, *ask, seconds=seconds)  # type: ignore[arg-type]
            during = apart(
                ask_and_change,
                *ask,  # type: ignore[arg-type]
                upserts=upserts,
                at_once=at_once,
                patterns=patterns,
            )
            after = apart(ask_and_change, *ask, seconds=seconds)  # type: ignore[arg-type]
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    quiet = [*before.asked_s, *after.asked_s]
    rows = [
        {"part": "quiet", **_latency("asked", quiet)},
        {
            "part": "changing",
            **_latency("asked", during.asked_s),
            **_latency("written", during.written_s),
            "p99_over_quiet": _percentile(during.asked_s, 99) / _percentile(quiet, 99),
            "upserts": during.written,
            "deleted": during.deleted,
            "changes_per_second": (during.written + during.deleted) / during.wall_s,
            "slowest_new_item_s": max(during.fresh_s, default=0.0),
            "new_items_found": len(during.fresh_s),
            "errors": len(before.errors) + len(during.errors) + len(after.errors),
            "deleted_items_shown": len(during.stale),
        },
    ]
    _print(rows[0], rows[1])
    for line in [*before.errors, *during.errors, *after.errors][:5]:
        console.print(line, markup=False)
    write_json(out, "catalogue", machine=describe(), settings=settings, rows=rows)
    with figure(out, "catalogue", 1) as [axis]:
        for name, seconds_taken in (("quiet", quiet), ("changing", during.asked_s)):
            taken = np.sort(seconds_taken) * 1e3
            axis.plot(taken, np.arange(1, len(taken) + 1) / len(taken), label=name)
        axis.set_xlabel("ms")
        axis.set_ylabel("share of answers")
        axis.set_xscale("log")
        axis.legend(frameon=False)


def _latency(name: str, seconds: Sequence[float]) -> dict[str, Any]:
    percentiles = {f"p{share}": _percentile(seconds, share) * 1e3 for share in (50, 99)}
    return {f"{name}_ms": percentiles, f"{name}": len(seconds)}


def _percentile(seconds: Sequence[float], share: float) -> float:
    return float(np.percentile(seconds, share))


def _print(quiet: dict[str, Any], changing: dict[str, Any]) -> None:
    def ms(row: dict[str, Any], name: str) -> str:
        return f"{digits(row[name]['p50'])}, {digits(row[name]['p99'])}"

    print_table(
        "a catalogue that changes",
        ("", "p50, p99"),
        [
            ["recommendation, nothing changing, ms", ms(quiet, "asked_ms")],
            ["recommendation meanwhile, ms", ms(changing, "asked_ms")],
            ["p99 over p99", f"{changing['p99_over_quiet']:.2f}"],
            ["batch of changes acknowledged, ms", ms(changing, "written_ms")],
            ["changes a second", digits(changing["changes_per_second"])],
            ["slowest new item in an answer, s", digits(changing["slowest_new_item_s"])],
            ["upserts, deletions", f"{changing['upserts']:,}, {changing['deleted']:,}"],
            ["errors", f"{changing['errors']}"],
            ["deleted items shown", f"{changing['deleted_items_shown']}"],
        ],
    )
