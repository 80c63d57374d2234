"""A service that is asked for several times what it can give: who is answered, and who is told no.

Saturation is measured first, by a closed loop on a service that refuses nobody, and the p99 at a
rate below it. Another service is told to let nobody in who would take much longer than that, as
docs/reliability.md advises, and gets the same rate, several times saturation, and the first rate
again, by one schedule that does not wait for answers (see `bench.http_load`). The p99 that others
are held against is that of all three spans at the lower rate: those of each alone, of some five
thousand requests, differ by a factor of two on a machine that others use too. What sends the load
takes part of the same cores, and more of them the more it sends. The engine computes every prompt
anew, as in `bench.service`: what it remembers of users who come back makes it quicker, and its
memory grow until that is full.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from bench import shapes
from bench.connection import NotServing, store_events
from bench.http_load import Answered, Sent, apart, closed_loop, even, percentile, scheduled
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
from bench.served import served
from bench.timing import digits
from bench.users import Users

_BODIES = 4096
_ROOM = 1.4
"""What one may wait, over the p99 at the rate before. With 1, every thirtieth is refused at that
rate already: the queue estimates how long a search will take, and nobody knows."""
_SETTLING_S = 5.0
"""Of the flood, before memory is compared with its end."""
_IN_A_ROW = 100
_ADMITTED = ("200", "popular")
_NORMAL_S = 2.0
"""After the flood, from when on latency is that of the lower rate."""


def overload(
    bundle: BundleFolder = None,
    times: Annotated[float, typer.Option(help="The flood, in saturations.")] = 3,
    share: Annotated[float, typer.Option(help="The rate before and after, of saturation.")] = 0.7,
    seconds: Annotated[float, typer.Option(help="Of the flood.")] = 60,
    calm: Annotated[float, typer.Option(help="Seconds before it, and after it.")] = 60,
    in_flight: InFlight = DEFAULT_IN_FLIGHT,
    max_wait_ms: Annotated[
        int | None,
        typer.Option(help=f"SIDREC_MAX_WAIT_MS; by default {_ROOM} times the p99 before."),
    ] = None,
    users: Crowd = DEFAULT_CROWD,
    engine: Annotated[str, typer.Option(help="torch, vllm or fake.")] = "torch",
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """Latency of those who are admitted, of refusals, and the way back, under too many requests."""
    settings = {k: v for k, v in locals().items() if k != "out"}
    loaded = shapes.load("demo", bundle)
    crowd = Users(shapes.popular(loaded), users)
    options = {"engine": engine}
    if engine == "torch":
        options["engine_options"] = '{"prefix_bytes": 0}'
    bodies = crowd.bodies(_BODIES)
    console.print("saturating a service …")
    try:
        with served(loaded.path, threads, {**options, "max_wait_ms": 0}) as one:
            store_events(one.url, crowd.events())
            apart(closed_loop, one.url, bodies, in_flight, min(seconds, 3))
            full = apart(closed_loop, one.url, bodies, in_flight, min(seconds, 10)).per_second
            below, above = share * full, times * full
            calmly = apart(scheduled, one.url, bodies, even([(below, calm)]))
        limit = max_wait_ms or math.ceil(_ROOM * calmly.percentile(99) * 1e3)
        due = even([(below, calm), (above, seconds), (below, calm)])
        console.print(
            f"{full:.1f} a second; at {below:.1f} {calmly}. Now {below:.1f}, {above:.1f} and"
            f" {below:.1f} with SIDREC_MAX_WAIT_MS={limit} …"
        )
        with served(loaded.path, threads, {**options, "max_wait_ms": limit}) as one:
            store_events(one.url, crowd.events())
            apart(scheduled, one.url, bodies, even([(below, min(calm, 3))]))
            with _memory(one.pid) as memory:
                found = apart(scheduled, one.url, bodies, due)
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    asked = {"saturation": full, "asked": above, "max_wait_ms": limit}
    rows = [_row(calmly.each, found, memory, calm, seconds) | asked]
    _print(rows[0], times, share)
    write_json(out, "overload", machine=describe(), settings=settings, rows=rows)
    _draw(found, calm, seconds, out)
    if rows[0]["otherwise"]:
        raise typer.Exit(1)


def _row(
    first: Sequence[Sent],
    found: Answered,
    memory: Sequence[tuple[float, int]],
    calm: float,
    seconds: float,
) -> dict[str, Any]:
    """`first` are the requests to the service without a limit."""
    end = calm + seconds
    before = [one for one in found.each if one.due < calm]
    flood = [one for one in found.each if calm <= one.due < end]
    after = [one for one in found.each if one.due >= end]
    admitted = [one for one in flood if one.outcome in _ADMITTED]
    refused = [one for one in flood if one.outcome == "503"]
    settled = [one for one in after if one.due >= end + _NORMAL_S]
    below = [*first, *before, *settled]
    p99 = percentile(below, 99)
    rss = [
        size
        for at, size in memory
        if found.began + calm + min(_SETTLING_S, seconds / 2) <= at <= found.began + end
    ]
    return {
        "below_p99_ms": p99 * 1e3,
        "below_p99_of_each_ms": [percentile(one, 99) * 1e3 for one in (first, before, settled)],
        "below_refused": sum(one.outcome != "200" for one in below),
        "admitted_per_second": len(admitted) / seconds,
        "by_fallback": sum(one.outcome == "popular" for one in admitted),
        "admitted_p99_ms": percentile(admitted, 99) * 1e3,
        "admitted_p99_over_below": percentile(admitted, 99) / p99,
        "refused": len(refused),
        "refused_p99_ms": percentile(refused, 99) * 1e3,
        "otherwise": len(flood) - len(admitted) - len(refused),
        "normal_after_s": _normal(after, end, 2 * p99),
        "memory_mb": [rss[place] / 2**20 for place in (0, len(rss) // 2, -1)] if rss else None,
        "memory_growth": rss[-1] / rss[0] - 1 if rss else None,
        "load_cpu_s": found.cpu_s,
        "latest_send_ms": found.lag_s * 1e3,
    }


def _normal(after: Sequence[Sent], end: float, limit: float) -> float:
    """Seconds after `end` from which on a hundred requests in a row have at most one that was not
    answered within `limit`, to a tenth."""
    for moment in np.arange(end, max((one.due for one in after), default=end), 0.1):
        following = [one for one in after if one.due >= moment][:_IN_A_ROW]
        good = sum(one.outcome == "200" and one.seconds <= limit for one in following)
        if good >= 0.99 * len(following):
            return float(moment - end)
    return float("inf")


@contextmanager
def _memory(pid: int) -> Iterator[list[tuple[float, int]]]:
    """Bytes that a process holds, by the clock of `perf_counter`, twice a second meanwhile."""
    sizes: list[tuple[float, int]] = []
    ended, process = threading.Event(), psutil.Process(pid)

    def look() -> None:
        while not ended.wait(0.5):
            sizes.append((perf_counter(), process.memory_info().rss))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()


def _print(row: dict[str, Any], times: float, share: float) -> None:
    memory = ", ".join(digits(size) for size in row["memory_mb"] or ())
    spans = ", ".join(digits(p99) for p99 in row["below_p99_of_each_ms"])
    lines = [
        ["saturation, answers/s", digits(row["saturation"]), ""],
        ["SIDREC_MAX_WAIT_MS", f"{row['max_wait_ms']}", ""],
        [f"p99 at {share:.0%} of it, ms", digits(row["below_p99_ms"]), ""],
        ["  without a limit, before, after, ms", spans, ""],
        ["  not answered then", f"{row['below_refused']}", ""],
        [f"answers/s at {times:g} times it", digits(row["admitted_per_second"]), ""],
        ["p99 of those admitted, ms", digits(row["admitted_p99_ms"]), ""],
        [f"  over that at {share:.0%}", f"{row['admitted_p99_over_below']:.2f}", "2"],
        ["  of them answered without the model", f"{row['by_fallback']}", ""],
        ["refused", f"{row['refused']:,}", ""],
        ["p99 of refusals, ms", digits(row["refused_p99_ms"]), "20"],
        ["failed otherwise", f"{row['otherwise']}", "0"],
        ["latency normal again after, s", digits(row["normal_after_s"]), "2"],
        ["memory after 5 s, half-way, at the end, MB", memory, ""],
        ["sent at most this late, ms", digits(row["latest_send_ms"]), ""],
    ]
    print_table(f"{times:g} times saturation", ("", "", "at most"), lines)


def _draw(found: Answered, calm: float, seconds: float, out: Path) -> None:
    with figure(out, "overload", 1) as [axis]:
        parts = (("answered", _ADMITTED, COLOURS[0]), ("refused", ("503",), COLOURS[1]))
        for label, outcomes, colour in parts:
            sent = [one for one in found.each if one.outcome in outcomes]
            axis.plot(
                [one.due for one in sent],
                [one.seconds * 1e3 for one in sent],
                ",",
                color=colour,
                label=label,
            )
        for edge in (calm, calm + seconds):
            axis.axvline(edge, color="grey", linewidth=1)
        axis.set_yscale("log")
        axis.set_xlabel("s")
        axis.set_ylabel("ms from when it was due")
        axis.legend(frameon=False, fontsize="small", markerscale=20)
