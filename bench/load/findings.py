"""What samples say, as plain rows: the report shows them, and its JSON file holds them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.load.fleet import Sent
from bench.load.samples import Samples
from bench.machine import cores

Row = dict[str, Any]

PERCENTILES = (50, 90, 95, 99, 99.9)
_WINDOWS = 60
_LATE_MS = 20.0


def percentile(samples: Samples, share: float) -> float | None:
    """Milliseconds from when they were due until `share` percent of the requests had ended, failed
    ones included; None of none."""
    if not len(samples):
        return None
    return float(np.percentile(samples.seconds, share)) * 1e3


def kinds(samples: Samples, seconds: float) -> list[Row]:
    """Recommendations and events apart; `seconds` are those in which they were due."""
    rows = []
    for kind, events in (("recommendations", False), ("events", True)):
        own = samples.where(samples.event == events)
        if len(own):
            rows.append(
                {
                    "kind": kind,
                    "requests": len(own),
                    "per_second": len(own) / seconds,
                    **{f"p{share:g}_ms": percentile(own, share) for share in PERCENTILES},
                    "max_ms": float(own.seconds.max()) * 1e3,
                    "failed": int((~own.answered).sum()),
                }
            )
    return rows


def step(samples: Samples, rate: float, seconds: float) -> Row:
    """One rate: latencies are those of recommendations."""
    asked = samples.where(~samples.event)
    return {
        "rate": rate,
        "requests": len(samples),
        "answered_per_second": int(samples.answered.sum()) / seconds,
        **{f"p{share}_ms": percentile(asked, share) for share in (50, 95, 99)},
        "failed": int((~samples.answered).sum()),
        "fallbacks": int(samples.fallen.sum()),
        "late_p99_ms": float(np.percentile(samples.late, 99)) * 1e3 if len(samples) else None,
    }


def steps(sent: Sequence[Sent]) -> list[Row]:
    """Every step of every run."""
    rows = []
    for run in sent:
        began = 0.0
        for one in run.steps:
            ended = began + one.seconds
            inside = (run.samples.due >= began) & (run.samples.due < ended)
            rows.append(step(run.samples.where(inside), one.rate, one.seconds))
            began = ended
    return rows


def windows(sent: Sequence[Sent]) -> list[Row]:
    """The runs one after the other, cut into about 60 windows of at least a second, by when
    requests were due."""
    width = max(1.0, sum(run.seconds for run in sent) / _WINDOWS)
    rows, offset = [], 0.0
    for run in sent:
        count = max(1, round(run.seconds / width))
        own = run.seconds / count
        places = np.minimum((run.samples.due / own).astype(int), count - 1)
        for place in range(count):
            inside = run.samples.where(places == place)
            rows.append(
                {"at": offset + (place + 0.5) * own, "seconds": own, **_window(inside, own)}
            )
        offset += run.seconds
    return rows


def _window(inside: Samples, seconds: float) -> Row:
    asked = inside.where(~inside.event)
    return {
        **{f"p{share}_ms": percentile(asked, share) for share in (50, 95, 99)},
        "due_per_second": len(inside) / seconds,
        "answered_per_second": int((inside.answered & ~inside.fallen).sum()) / seconds,
        "fallbacks_per_second": int(inside.fallen.sum()) / seconds,
        "failed_per_second": int((~inside.answered).sum()) / seconds,
    }


def sources(samples: Samples) -> list[Row]:
    """Who answered recommendations, and why not the model."""
    given = samples.where(~samples.event & samples.answered)
    counted = Counter(zip(given.source.tolist(), given.reason.tolist(), strict=True))
    return [
        {"source": source, "reason": reason or None, "count": count, "share": count / len(given)}
        for (source, reason), count in counted.most_common()
    ]


def failures(samples: Samples) -> list[Row]:
    """What came in the place of an answer."""
    failed = samples.where(~samples.answered)
    kinds = np.where(failed.event, "events", "recommendations")
    counted = Counter(zip(kinds.tolist(), failed.outcome.tolist(), strict=True))
    return [
        {"kind": kind, "outcome": outcome, "count": count, "share": count / len(samples)}
        for (kind, outcome), count in counted.most_common()
    ]


def stages(samples: Samples) -> list[Row]:
    """What answers say that they took, and what was seen here of the same requests."""
    given = samples.where(~samples.event & samples.answered)
    rows = []
    for name, column in given.stages.items():
        known = column[~np.isnan(column)]
        if len(known) and name != "total":
            rows.append(_stage(name, known))
    total = given.stages.get("total")
    if total is not None and len(given):
        rows.append(_stage("total, says the service", total[~np.isnan(total)]))
        rows.append(_stage("total, seen from here", given.seconds * 1e3))
        rows.append(_stage("between the two", given.seconds * 1e3 - total))
    return rows


def _stage(name: str, ms: Any) -> Row:
    return {
        "stage": name,
        "count": len(ms),
        "mean_ms": float(np.mean(ms)),
        **{f"p{share}_ms": float(np.percentile(ms, share)) for share in (50, 95, 99)},
    }


def generator(sent: Sequence[Sent]) -> Row:
    """Whether what sends kept up: one that cannot measures itself."""
    late = np.concatenate([run.samples.late for run in sent]) * 1e3
    share = sum(run.cpu_s for run in sent) / sum(run.wall_s for run in sent)
    p99 = float(np.percentile(late, 99)) if len(late) else 0.0
    return {
        "processes": sent[0].processes,
        "cores": cores(),
        "cores_used": share,
        "late_p50_ms": float(np.percentile(late, 50)) if len(late) else 0.0,
        "late_p99_ms": p99,
        "late_max_ms": float(late.max()) if len(late) else 0.0,
        # A process that is busy sends late; one whose machine is busy does so too.
        "kept_up": p99 <= _LATE_MS and share < 0.8 * sent[0].processes,
    }
