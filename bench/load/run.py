"""One load test, from the first request to its report as rows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from bench.connection import NotServing, store_events
from bench.load import findings, scraped
from bench.load.find import highest
from bench.load.fleet import Fleet, Sent
from bench.load.limits import Checked, Limits
from bench.load.samples import Samples
from bench.load.worker import Step, Target
from bench.machine import describe
from bench.report import console
from bench.timing import digits

T = TypeVar("T")

_AT_ONCE = 100
"""Events of one request that stores histories."""


@dataclass(frozen=True, slots=True)
class Sending:
    """How it is sent: from how many processes, after how many seconds that do not count, and where
    the service's metrics are."""

    processes: int
    warm_up: float
    metrics: Sequence[str]


@dataclass(frozen=True, slots=True)
class Search:
    """The first rate, the width of the gap at the end, and runs at the rate found."""

    first: Step
    within: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A rate that was tried."""

    sent: Sent
    checks: Sequence[Checked]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was sent, and what of it counts: what confirms the rate that was found, or
    everything.

    steps: whether each run of a search held
    server: what the service's metrics say, or why they say nothing
    """

    all: Sequence[Sent]
    counted: Sequence[Sent]
    checks: Sequence[Checked]
    server: dict[str, Any]
    held: Sequence[bool] = ()
    highest_rate: float | None = None


def prepared(target: Target) -> None:
    """Stores the histories that known users have when they come. Raises `NotServing`."""
    if target.mix.stored:
        console.print("storing histories …")
        store_events(target.url, target.crowd().events(_AT_ONCE), target.key)


def steps(target: Target, limits: Limits, plan: Sequence[Step], sending: Sending) -> Outcome:
    """Sends a plan, after a warm-up at its first rate."""
    title = " to ".join(dict.fromkeys(digits(step.rate) for step in (plan[0], plan[-1])))
    with Fleet(target, sending.processes) as fleet:
        _warm(fleet, plan[0].rate, sending.warm_up)
        sent, server = _watched(sending, target, lambda: fleet.run(plan, f"{title} a second"))
    return Outcome([sent], [sent], limits.check(sent.samples), server)


def find(target: Target, limits: Limits, search: Search, sending: Sending) -> Outcome:
    """The highest rate at which the limits hold."""
    tried: list[Probe] = []

    with Fleet(target, sending.processes) as fleet:

        def probe(rate: float) -> Probe:
            plan = [Step(rate, search.first.seconds)]
            sent = fleet.run(plan, f"{digits(rate)} a second")
            tried.append(Probe(sent, limits.check(sent.samples)))
            _tell(rate, tried[-1])
            return tried[-1]

        def searched() -> tuple[float | None, list[Probe]]:
            return highest(probe, search.first.rate, search.within, search.repeats)

        _warm(fleet, search.first.rate, sending.warm_up)
        (rate, held), server = _watched(sending, target, searched)
    counted = [one.sent for one in held] or [tried[-1].sent]
    return Outcome(
        [one.sent for one in tried],
        counted,
        limits.check(Samples.joined([sent.samples for sent in counted])),
        server,
        [one.holds for one in tried],
        rate,
    )


def report(
    mode: str, what: str, target: Target, limits: Limits, outcome: Outcome
) -> dict[str, Any]:
    """What the page shows and the JSON file holds. The key is not in it."""
    samples = Samples.joined([sent.samples for sent in outcome.counted])
    seconds = sum(sent.seconds for sent in outcome.counted)
    rows = findings.steps(outcome.all)
    for row, held in zip(rows, outcome.held, strict=False):
        row["holds"] = held
    return {
        "mode": mode,
        "what": what,
        "url": target.url,
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "bundles": sorted(samples.bundles),
        "highest_rate": outcome.highest_rate,
        "confirmed": len(outcome.counted),
        "requests": len(samples),
        "failed": int((~samples.answered).sum()),
        "fallbacks": int(samples.fallen.sum()),
        "checks": [{**asdict(check), "holds": check.holds} for check in outcome.checks],
        "kinds": findings.kinds(samples, seconds),
        "steps": rows,
        "windows": findings.windows(outcome.all),
        "sources": findings.sources(samples),
        "failures": findings.failures(samples),
        "stages": findings.stages(samples),
        "server": outcome.server,
        "generator": findings.generator(outcome.counted),
        "machine": describe(),
        "settings": {"limits": asdict(limits), "traffic": _traffic(target)},
    }


def _warm(fleet: Fleet, rate: float, seconds: float) -> None:
    if seconds <= 0:
        return
    samples = fleet.run([Step(rate, seconds)], "warming up").samples
    if len(samples) and not samples.answered.any():
        [first, *_] = findings.failures(samples)
        raise NotServing(f"not one request was answered: {first['kind']} got {first['outcome']}")


def _watched(sending: Sending, target: Target, send: Callable[[], T]) -> tuple[T, dict[str, Any]]:
    """What `send` gave, and what the service's metrics say of that time."""
    try:
        before = scraped.look(sending.metrics, target.key)
    except scraped.NotTold as why:
        return send(), {"refused": str(why), "stages": []}
    sent = send()
    try:
        return sent, scraped.compared(before, scraped.look(sending.metrics, target.key))
    except scraped.NotTold as why:
        return sent, {"refused": str(why), "stages": []}


def _tell(rate: float, probe: Probe) -> None:
    broken = [str(check) for check in probe.checks if not check.holds]
    row = findings.step(probe.sent.samples, rate, probe.sent.seconds)
    p50, p99 = ("–" if row[k] is None else digits(row[k]) for k in ("p50_ms", "p99_ms"))
    console.print(
        f"{digits(rate):>8} a second: p50 {p50} ms, p99 {p99} ms, {row['failed']} failed,"
        f" {row['fallbacks']} fell back: {'; '.join(broken) or 'holds'}",
        highlight=False,
        soft_wrap=True,
    )


def _traffic(target: Target) -> dict[str, Any]:
    mix = target.mix
    return {
        "items that are clicked": f"{len(target.wares.items):,}",
        "attributes that are filtered by": ", ".join(target.wares.filters) or "none",
        "known users": f"{target.users:,}",
        "exponent of Zipf's law": target.exponent,
        "histories": "kept by the service" if mix.stored else "sent with each request",
        "share of events": mix.events if mix.stored else 0,
        "share of recommendations with a filter": mix.filters,
        "share of sessions of new users": mix.cold,
        "requests of a session": mix.session,
        "seconds between two of them": mix.think_s,
        "items of an answer": mix.k,
        "arrivals": "even" if target.even else "random (Poisson)",
        "seed": target.seed,
    }
