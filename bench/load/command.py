"""`sidrec load URL`."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from bench.connection import NotServing
from bench.load import run
from bench.load.limits import Limits
from bench.load.page import page
from bench.load.traffic import Mix
from bench.load.wares import Wares, from_file, from_service
from bench.load.worker import Step, Target
from bench.machine import cores
from bench.report import console, print_table
from bench.timing import digits
from service.asking import KEY, fail

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_PER_PROCESS = 400.0
"""Requests a second that one process sends without being late."""


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
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text}: a limit is above zero")
    return value


def share(text: object) -> float:
    """From "0.1%" or "0.001". Raises `typer.BadParameter`."""
    number = str(text).strip()
    try:
        value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no share such as 0.1% or 0.001") from error
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{text}: a share is between 0 and 1")
    return value


def _ms(help: str) -> Any:
    return typer.Option(parser=milliseconds, metavar="TIME", help=help)


def _share(help: str) -> Any:
    return typer.Option(parser=share, metavar="SHARE", help=help)


@app.command()
def load(
    url: Annotated[str, typer.Argument(help="Of the service, such as https://recs.example:8000.")],
    rate: Annotated[float | None, typer.Option(min=0.1, help="Requests a second.")] = None,
    first: Annotated[
        float | None, typer.Option("--from", min=0.1, help="First rate of a ramp; or of a search.")
    ] = None,
    last: Annotated[float | None, typer.Option("--to", min=0.1, help="Last of a ramp.")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Rates of a ramp.")] = 10,
    find: Annotated[bool, typer.Option(help="The highest rate at which the limits hold.")] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="In all (60), or at each rate of several (15).")
    ] = None,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds before, not counted.")] = 5,
    within: Annotated[float, typer.Option(min=0.01, help="Width of the gap of a search.")] = 0.05,
    repeats: Annotated[int, typer.Option(min=1, help="Runs at the rate found.")] = 3,
    p50: Annotated[float | None, _ms("Limit of recommendations.")] = None,
    p95: Annotated[float | None, _ms("Limit of recommendations.")] = None,
    p99: Annotated[float | None, _ms("Limit of recommendations; of a search 200ms.")] = None,
    errors: Annotated[float | None, _share("Limit of failed requests; of a search 0.")] = None,
    fallbacks: Annotated[
        float | None,
        _share("Limit of answers by a fallback because something is wrong; of a search 0."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="What is clicked, JSON lines; by default what the service lists."),
    ] = None,
    most_items: Annotated[int, typer.Option(min=1, help="Of what it lists.")] = 10_000,
    events: Annotated[float, _share("Of requests.")] = 0.3,
    filters: Annotated[float, _share("Of recommendations.")] = 0.1,
    cold: Annotated[float, _share("Of sessions whose user is new.")] = 0.05,
    session: Annotated[float, typer.Option(min=1, help="Requests of a session, mean.")] = 6,
    think: Annotated[float, typer.Option(min=0.1, help="Seconds between two, mean.")] = 5,
    k: Annotated[int, typer.Option(min=1, max=200, help="Items of an answer.")] = 10,
    users: Annotated[int, typer.Option(min=1, help="Users with a history at first.")] = 2000,
    zipf: Annotated[float, typer.Option(min=0, help="Exponent by which they come.")] = 0.6,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="No events: histories come with each request.")
    ] = False,
    even: Annotated[bool, typer.Option("--even", help="Evenly spaced, not at random.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 20,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer.")] = 30,
    processes: Annotated[
        int | None, typer.Option(min=1, help="That send; by default one for 400 a second.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help=f"File of an API key; else {KEY}.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Address of a replica's metrics; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The report; JSON beside it.")] = Path("load.html"),
) -> None:
    """Send what users do to a service, whatever it answers, and report what came back.

    At a constant --rate, on a ramp --from … --to …, or --find the highest rate that holds. Events
    and histories are stored in the service under made-up users, unless --read-only. Ends with 1
    where a limit is broken.
    """
    mode = _mode(rate, first, last, find)
    if mode == "find":
        p99, errors, fallbacks = p99 or 200.0, errors or 0.0, fallbacks or 0.0
    limits = Limits(p50, p95, p99, errors, fallbacks)
    mix = Mix(events, filters, cold, session, think, k, stored=not read_only)
    plan = _plan(mode, rate, first, last, steps, seconds)
    address = url.rstrip("/")
    key = _key(key_file)
    sending = run.Sending(
        processes or _processes(max(step.rate for step in plan), mode),
        warm_up,
        metrics or [address],
    )
    try:
        target = Target(
            address,
            key,
            _wares(items, address, key, most_items),
            mix,
            users=users,
            exponent=zipf,
            seed=seed,
            even=even,
            timeout_s=timeout,
        )
        run.prepared(target)
        if mode == "find":
            outcome = run.find(target, limits, run.Search(plan[0], within, repeats), sending)
        else:
            outcome = run.steps(target, limits, plan, sending)
    except (NotServing, OSError) as error:
        fail([f"{address}: {error}"], 1)
    report = run.report(mode, _what(mode, plan), target, limits, outcome)
    _print(report)
    _write(report, out)
    _end(outcome, mode)


def _mode(rate: float | None, first: float | None, last: float | None, find: bool) -> str:
    """Raises `typer.BadParameter` for what contradicts itself."""
    if find and (rate is not None or last is not None):
        raise typer.BadParameter("--find looks for the rate; --from is the first one it tries")
    if find:
        return "find"
    if rate is not None and (first is not None or last is not None):
        raise typer.BadParameter("a constant --rate has no --from and --to")
    if (first is None) != (last is None):
        raise typer.BadParameter("a ramp has both: --from and --to")
    return "constant" if first is None else "ramp"


def _plan(
    mode: str,
    rate: float | None,
    first: float | None,
    last: float | None,
    steps: int,
    seconds: float | None,
) -> list[Step]:
    if mode == "ramp":
        assert first is not None
        assert last is not None
        gap = (last - first) / (steps - 1)
        return [Step(first + i * gap, seconds or 15) for i in range(steps)]
    if mode == "find":
        return [Step(first or 8, seconds or 15)]
    return [Step(rate or 20, seconds or 60)]


def _what(mode: str, plan: Sequence[Step]) -> str:
    first, last = plan[0], plan[-1]
    if mode == "find":
        return f"Search for the highest rate, {digits(first.seconds)} s at each"
    if mode == "ramp":
        return (
            f"Ramp from {digits(first.rate)} to {digits(last.rate)} requests a second,"
            f" {len(plan)} rates, {digits(first.seconds)} s each"
        )
    return f"{digits(first.rate)} requests a second for {digits(first.seconds)} s"


def _processes(rate: float, mode: str) -> int:
    """A search does not know its highest rate: half of the cores serve it."""
    if mode == "find":
        return max(1, cores() // 2)
    return max(1, min(cores(), math.ceil(rate / _PER_PROCESS)))


def _key(file: Path | None) -> str | None:
    """No option holds the key itself: others see a command line."""
    if file is None:
        return os.environ.get(KEY) or None
    try:
        return file.read_text().strip()
    except OSError as error:
        raise typer.BadParameter(f"--key-file: {error}") from error


def _wares(file: Path | None, url: str, key: str | None, most: int) -> Wares:
    try:
        return from_service(url, key, most) if file is None else from_file(file)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _print(report: dict[str, Any]) -> None:
    columns = ("", "requests", "a second", "p50, ms", "p95, ms", "p99, ms", "failed")
    rows = [
        [
            row["kind"],
            f"{row['requests']:,}",
            *(digits(row[name]) for name in ("per_second", "p50_ms", "p95_ms", "p99_ms")),
            f"{row['failed']:,}",
        ]
        for row in report["kinds"]
    ]
    print_table(report["what"], columns, rows)
    if not report["generator"]["kept_up"]:
        console.print(
            "what sends did not keep up: p99 of its lateness is"
            f" {digits(report['generator']['late_p99_ms'])} ms. Use more --processes, or a machine"
            " of its own"
        )
    if why := report["server"].get("refused"):
        console.print(f"without the service's metrics: {why}", markup=False)


def _write(report: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(report), encoding="utf-8")
    beside = out.with_suffix(".json")
    beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {out} and {beside}", markup=False, soft_wrap=True)


def _end(outcome: run.Outcome, mode: str) -> None:
    """Raises `typer.Exit` with 1 where a limit is broken, after a line for each."""
    if mode == "find" and outcome.highest_rate is None:
        _broken(["no rate holds"])
    if outcome.highest_rate is not None:
        console.print(f"highest rate that holds: {digits(outcome.highest_rate)} a second")
        return
    if broken := [str(check) for check in outcome.checks if not check.holds]:
        _broken(broken)


def _broken(lines: list[str]) -> NoReturn:
    fail([f"broken: {line}" for line in lines], 1)
