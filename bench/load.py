"""The highest constant rate at which a service keeps its p99 under a limit, found by bisection.

The load is open (see `bench.http_load`) and comes from this process, the service may be anywhere.
The rate doubles until the limit breaks, then the gap is halved until it is narrow; what was found
is then held some more times. A rate holds when p99 stays under the limit and every request gets a
model's answer.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import shapes
from bench.http_load import Answered, open_loop
from bench.machine import describe
from bench.options import DEFAULT_OUT, DEFAULT_THREADS, BundleFolder, Out, Threads
from bench.report import COLOURS, console, figure, logarithmic, print_table, write_json
from bench.served import NotServing, served, store_histories
from bench.timing import Spread, digits
from bench.users import Users

_LOWEST_RATE = 0.5
_LATE_S = 0.05
_BODIES = 4096


@dataclass(frozen=True, slots=True)
class Probe:
    """What a rate gave."""

    rate: float
    answered: Answered
    limit_s: float

    @property
    def holds(self) -> bool:
        return self.answered.failed == 0 and self.answered.percentile(99) <= self.limit_s

    def row(self) -> dict[str, Any]:
        answered = self.answered
        return {
            "rate": self.rate,
            "holds": self.holds,
            "p50_ms": answered.percentile(50) * 1e3,
            "p99_ms": answered.percentile(99) * 1e3,
            "per_second": answered.per_second,
            "requests": len(answered.seconds),
            "failed": answered.failed,
            "outcomes": answered.outcomes,
            "load_cpu_share": answered.cpu_s / answered.wall_s / len(os.sched_getaffinity(0)),
            "latest_send_ms": answered.lag_s * 1e3,
        }


def milliseconds(text: object) -> float:
    """From "100ms", "0.1s" or "100". Raises `typer.BadParameter`."""
    number, factor = str(text).strip(), 1.0
    for unit, worth in (("ms", 1.0), ("s", 1000.0)):
        if number.endswith(unit):
            number, factor = number.removesuffix(unit), worth
            break
    try:
        value = float(number) * factor
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no time such as 100ms or 0.5s") from error
    if not value > 0:
        raise typer.BadParameter(f"{text}: a limit is above zero")
    return value


def load(
    url: Annotated[
        str | None, typer.Argument(help="The service; by default one of our own.")
    ] = None,
    p99: Annotated[float, typer.Option(parser=milliseconds, help="Such as 100ms.")] = 200.0,
    seconds: Annotated[float, typer.Option(help="Of one probe.")] = 15,
    start: Annotated[float, typer.Option(help="Requests a second of the first probe.")] = 8,
    within: Annotated[float, typer.Option(help="Width of the gap at the end.")] = 0.05,
    repeats: Annotated[int, typer.Option(min=1, help="Probes at the rate found.")] = 3,
    poisson: Annotated[bool, typer.Option(help="Random arrivals, not even ones.")] = True,
    stored: Annotated[
        bool, typer.Option(help="Histories from Redis: stores some there first.")
    ] = False,
    bundle: BundleFolder = None,
    users: Annotated[int, typer.Option(min=1, help="Users who come.")] = 500,
    threads: Threads = DEFAULT_THREADS,
    out: Out = DEFAULT_OUT,
) -> None:
    """The highest rate at which p99 stays under a limit.

    The bundle is the one in service: histories are made of its items, and come with each request
    unless `--stored`. The threads are those of a service of our own.
    """
    settings = dict(locals())
    crowd = Users(shapes.load("demo", bundle), users)
    bodies = crowd.bodies(_BODIES, stored=stored)
    probes: list[Probe] = []

    def probe(rate: float) -> Probe:
        answered = open_loop(address, bodies, rate, seconds, poisson=poisson, seed=len(probes))
        probes.append(Probe(rate, answered, p99 / 1e3))
        console.print(f"{rate:8.1f} a second: {answered}", highlight=False)
        if answered.lag_s > _LATE_S:
            console.print(
                f"  a request was sent {answered.lag_s * 1e3:.0f} ms late: the load is"
                " short of processor itself"
            )
        return probes[-1]

    try:
        with _address(url, crowd, threads) as address:
            if stored:
                store_histories(address, crowd)
            open_loop(address, bodies, start, min(seconds, 2.0))  # warm-up
            rate, held = highest(probe, start, within, repeats)
    except NotServing as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from error
    rows = [one.row() for one in probes]
    if rate is None:
        console.print(f"not even {_LOWEST_RATE} a second stays under {digits(p99)} ms")
    else:
        _print(rate, held, p99)
    write_json(
        out,
        "load",
        machine=describe(),
        settings=settings,
        rows=rows,
        highest_rate=rate,
        p99_ms_at_highest=[one.answered.percentile(99) * 1e3 for one in held],
    )
    _draw(rows, rate, p99, out)
    if rate is None:
        raise typer.Exit(1)


def highest(
    probe: Callable[[float], Probe], start: float, within: float, repeats: int
) -> tuple[float | None, list[Probe]]:
    """The highest rate that holds, and the probes that confirm it; None where no rate does.

    A rate is confirmed by `repeats` probes of which more than half hold; else the next one is
    lower by `within`.
    """
    low, rate = 0.0, start
    while probe(rate).holds:
        low, rate = rate, rate * 2
    high = rate
    while low == 0.0:
        rate /= 2
        if rate < _LOWEST_RATE:
            return None, []
        if probe(rate).holds:
            low = rate
        else:
            high = rate
    while high / low > 1 + within:
        middle = math.sqrt(low * high)
        if probe(middle).holds:
            low = middle
        else:
            high = middle
    while low >= _LOWEST_RATE:
        held = [probe(low) for _ in range(repeats)]
        if sum(one.holds for one in held) * 2 > repeats:
            return low, held
        low /= 1 + within
    return None, []


@contextmanager
def _address(url: str | None, crowd: Users, threads: int) -> Iterator[str]:
    """The given address, or that of a service of our own."""
    if url is not None:
        yield url.rstrip("/")
        return
    console.print("starting a service of our own …")
    with served(crowd.bundle.path, threads, {}) as one:
        yield one.url


def _print(rate: float, held: list[Probe], limit_ms: float) -> None:
    def spread(values: list[float]) -> str:
        return str(Spread.of(values))

    rows = [one.row() for one in held]
    print_table(
        f"highest rate with p99 under {digits(limit_ms)} ms: {digits(rate)} a second",
        ("", "median (quartiles)"),
        [
            ["p50, ms", spread([row["p50_ms"] for row in rows])],
            ["p99, ms", spread([row["p99_ms"] for row in rows])],
            [
                "the load's share of this machine's cores",
                spread([row["load_cpu_share"] for row in rows]),
            ],
        ],
    )


def _draw(rows: list[dict[str, Any]], rate: float | None, limit_ms: float, out: Path) -> None:
    with figure(out, "load", 1) as [axis]:
        rows = sorted(rows, key=lambda row: float(row["rate"]))
        for key, colour in (("p50_ms", COLOURS[0]), ("p99_ms", COLOURS[1])):
            x, y = [row["rate"] for row in rows], [row[key] for row in rows]
            axis.plot(x, y, "o-", color=colour, label=key.removesuffix("_ms"))
        axis.axhline(limit_ms, color="black", linestyle="--", linewidth=1, label="limit of p99")
        if rate is not None:
            axis.axvline(rate, color="grey", linewidth=1, label=f"{digits(rate)} a second")
        logarithmic(axis)
        axis.set_xlabel("requests a second, arriving whatever the answers do")
        axis.set_ylabel("ms from when it was due")
        axis.legend(frameon=False, fontsize="small")
